"""Comparing two runs by the session snapshots in their bundles.

The snapshots may be large, so they are read in a process of its own (`python -m trinity_gate.comparing`), which can be
stopped and whose memory is limited. What differs only because two runs have two ids is no difference: a run's own id is
replaced wherever it stands, and hashes that cover it (the chain of the U-ledger) are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from trinity_gate.errors import GateError, conflict
from trinity_gate.models import Comparison, Difference
from trinity_gate.runs import Runs

SNAPSHOT: Final = "session_snapshot.json"
SESSION: Final = "session.json"
"""What is compared where a run is too large for a snapshot: its configuration and its results, not each tick."""

MAX_BUNDLE: Final = 512 << 20
MAX_MEMBER: Final = 32 << 20
MAX_MEMORY: Final = 2 << 30
MAX_VALUE: Final = 2_000
"""Characters of a value that is shown; of a longer one the beginning."""

TIMEOUT: Final = 60.0

CHAINED: Final = frozenset({"prev_entry_hash", "head_hash", "uledger_last_hash", "last_hash"})
"""Keys whose values cover the run's id."""

SELF: Final = "<run>"

_alone = asyncio.Semaphore(1)


async def compare(runs: Runs, folder: Path, baseline: str, candidate: str, max_diffs: int) -> Comparison:
    """Compare two runs that are over. `folder`: for temporary files. Raises 404, 409, 503."""
    first, second = await runs.status(baseline), await runs.status(candidate)
    async with _alone, _file(folder, "baseline") as one, _file(folder, "candidate") as other:
        for run_id, path in ((baseline, one), (candidate, other)):
            found = await runs.bundle(run_id)
            if found is None:
                raise conflict("not_comparable", f"run {run_id} left no results that could be compared")
            if found.size > MAX_BUNDLE:
                raise conflict("too_large", f"run {run_id} is too large to be compared: {found.size} bytes")
            await _save(found.chunks, path)
        answer = await _in_child([str(one), baseline, str(other), candidate, str(max_diffs)])
    return Comparison(
        baseline=first,
        candidate=second,
        compared=answer["compared"],
        equal=not answer["differences"],
        differences=[Difference(**each) for each in answer["differences"]],
        truncated=answer["truncated"],
    )


@contextlib.asynccontextmanager
async def _file(folder: Path, name: str) -> AsyncIterator[Path]:
    path = folder / f"compare-{name}-{os.urandom(6).hex()}.zip"
    try:
        yield path
    finally:
        await asyncio.to_thread(path.unlink, missing_ok=True)


async def _save(chunks: AsyncIterator[bytes], path: Path) -> None:
    with await asyncio.to_thread(path.open, "xb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)


async def _in_child(arguments: list[str]) -> Any:
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "PYTHONPATH", "HOME")}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "trinity_gate.comparing",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, complaints = await child.communicate()
    except TimeoutError:
        raise conflict("too_large", f"the comparison took longer than {TIMEOUT:g} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        reason = complaints.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        raise GateError(409, "not_comparable", f"the exports can't be compared: {reason or 'its process was killed'}")
    return json.loads(output)


# --- in the child -----------------------------------------------------------------------------------------------------


def differences(baseline: Any, candidate: Any, max_diffs: int) -> tuple[list[dict[str, Any]], bool]:
    """Where two JSON values differ, at most so many, and whether there are more."""
    from gbe_aether import diff_snapshots

    found = diff_snapshots(baseline, candidate, max_diffs + 1)
    shown = [
        {"path": each.path or "<root>", "baseline": _shown(each.baseline), "candidate": _shown(each.candidate)}
        for each in found[:max_diffs]
    ]
    return shown, len(found) > max_diffs


def without_identity(value: Any, run_id: str) -> Any:
    """A JSON value as if the run had no id."""
    if isinstance(value, dict):
        return {
            key.replace(run_id, SELF): without_identity(inner, run_id)
            for key, inner in value.items()
            if key not in CHAINED
        }
    if isinstance(value, list):
        return [without_identity(inner, run_id) for inner in value]
    return value.replace(run_id, SELF) if isinstance(value, str) else value


def _shown(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 53:
        return str(value)
    if isinstance(value, dict | list | str) and len(text := json.dumps(value)) > MAX_VALUE:
        return f"{text[:MAX_VALUE]} … ({len(text)} characters)"
    return value


def _main(arguments: list[str]) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    one, first, other, second, most = arguments
    try:
        with zipfile.ZipFile(one) as left, zipfile.ZipFile(other) as right:
            sizes = [{info.filename: info.file_size for info in bundle.infolist()} for bundle in (left, right)]
            fits = [
                name for name in (SNAPSHOT, SESSION) if all(s.get(name, MAX_MEMBER + 1) <= MAX_MEMBER for s in sizes)
            ]
            if not fits:
                sys.exit(f"neither {SNAPSHOT} nor {SESSION} is in both and small enough")
            name = fits[0]
            baseline = without_identity(json.loads(left.read(name)), first)
            candidate = without_identity(json.loads(right.read(name)), second)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, RecursionError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except MemoryError:
        sys.exit("they are too large")
    found, truncated = differences(baseline, candidate, int(most))
    json.dump({"compared": name, "differences": found, "truncated": truncated}, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1:])
