"""What a task's command reads on standard input: the params `stdin` and `stdin_ref`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import FailureKind
from gbe_nexus import IntegrityError, NotFound
from gbe_operative.contract import Execution, OperativeError

STDIN_PARAMS = frozenset({"stdin", "stdin_ref"})
"""The value itself, or the artifact that has it."""

WRITE_BYTES = 1 << 20


async def stdin_of(execution: Execution) -> bytes | Path | None:
    """What the command is to read; None where the task says nothing about it.

    Raises `OperativeError` (rejected) where both params are given, or the artifact is not one or not there.
    """
    text, uri = execution.params.get("stdin"), execution.params.get("stdin_ref")
    if text is not None and uri is not None:
        raise OperativeError("both stdin and stdin_ref are given", kind=FailureKind.REJECTED)
    if text is not None:
        return text.encode("utf-8", "replace")
    if uri is None:
        return None
    ref = execution.refs.get("stdin_ref")
    if ref is None:
        raise OperativeError(f"stdin_ref is not a store:// reference: {uri[:80]!r}", kind=FailureKind.REJECTED)
    # Beside the command's directory, not in it.
    return await fetched(execution, "stdin_ref", ref, execution.work_dir / "stdin")


async def fetched(execution: Execution, param: str, ref: Ref, file: Path) -> Path:
    """The file, with what the param refers to. Raises `OperativeError` (rejected) where that is not there."""
    try:
        await _download(execution, ref, file)
    except (NotFound, IntegrityError) as error:
        raise OperativeError(f"{param} {ref.uri}: {error}", kind=FailureKind.REJECTED) from error
    return file


async def _download(execution: Execution, ref: Ref, file: Path) -> None:
    with await asyncio.to_thread(file.open, "wb", WRITE_BYTES) as opened:
        held: list[bytes] = []
        size = 0
        async for chunk in execution.artifacts.get(ref.key):
            held.append(chunk)
            size += len(chunk)
            if size >= WRITE_BYTES:
                await asyncio.to_thread(opened.writelines, held)
                held, size = [], 0
        await asyncio.to_thread(opened.writelines, held)
