"""`ShellOperative`: runs `params.command` with `sh -c`, through the adapter of `gbe-envoy`.

| param | is |
|---|---|
| `command` | what `sh -c` gets |
| `stdin` | what it reads on standard input |
| `stdin_ref` | the artifact it reads on standard input |
| any other | an environment variable, by the adapter's rules (`gbe_envoy.adapter.build_environment`) |

It runs in a private, empty directory (`GBE_WORK_DIR`), with `GBE_TASK_ID`, `GBE_TASK_NAME`, `GBE_JOB_ID` and
`GBE_ATTEMPT` set.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from gbe_envoy.adapter import (
    DEFAULT_ALLOW,
    Command,
    CommandError,
    CommandResult,
    CommandRunner,
    Limits,
    ParamError,
    build_environment,
)
from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import FailureKind, TaskOutcome
from gbe_nexus import IntegrityError, NotFound
from gbe_operative.contract import Execution, Operative, OperativeContext, OperativeError
from gbe_operative_shell.outcome import JSON, media_type_of, outcome_of

NOT_VARIABLES = frozenset({"command", "stdin", "stdin_ref"})
"""Params that are not put into the environment."""

WRITE_BYTES = 1 << 20


class ShellOperative(Operative):
    """Serves any task types with `sh -c`."""

    def __init__(
        self,
        task_types: Sequence[str] = ("shell",),
        *,
        limits: Limits | None = None,
        allow: Collection[str] = DEFAULT_ALLOW,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._types = tuple(task_types)
        self._limits = limits or Limits()
        self._allow = allow
        base = os.environ if environment is None else environment
        # Of the host's environment only what the allow-list names is ever looked at again.
        self._base = build_environment({}, base=base, allow=allow)
        self._runner: CommandRunner | None = None

    @property
    def handles(self) -> tuple[str, ...]:
        """As given."""
        return self._types

    async def start(self, context: OperativeContext) -> None:
        """Start the guardian, which ends the commands of a worker that was killed."""
        runner = CommandRunner(spill_dir=context.work_root)
        await runner.start()
        runner.guard_path(context.work_root)
        self._runner = runner

    async def close(self) -> None:
        """End what still runs."""
        if self._runner is not None:
            await self._runner.close()
            self._runner = None

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Run the command to its end."""
        runner = self._runner
        if runner is None:
            raise RuntimeError("the ShellOperative was not started")
        command = execution.params.get("command")
        if not command:
            raise OperativeError("missing param: command", kind=FailureKind.REJECTED)
        stdin = await _stdin_of(execution)
        work_dir = runner.make_work_dir()
        try:
            environment = self._environment(execution, work_dir)
            result = await runner.run(
                Command(("/bin/sh", "-c", command), environment, str(work_dir), stdin),
                limits=self._limits,
                cancel=execution.cancelled,
                on_line=execution.line_reporter,
            )
        except ParamError as error:
            raise OperativeError(str(error), kind=FailureKind.REJECTED) from error
        except CommandError as error:
            raise OperativeError(str(error)) from error
        finally:
            await runner.remove_work_dir(work_dir)
        ref = None if result.spill is None else await _store(execution, result, result.spill)
        return outcome_of(result, ref)

    def _environment(self, execution: Execution, work_dir: Path) -> dict[str, str]:
        task = execution.task
        params = {name: value for name, value in execution.params.items() if name not in NOT_VARIABLES}
        return build_environment(
            params,
            base=self._base,
            allow=self._allow,
            extra={
                "GBE_TASK_ID": task.task_id,
                "GBE_TASK_NAME": task.task_name,
                "GBE_JOB_ID": task.job_id,
                "GBE_ATTEMPT": str(execution.attempt),
                "GBE_WORK_DIR": str(work_dir),
            },
        )


async def _stdin_of(execution: Execution) -> bytes | Path | None:
    """What the command is to read."""
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
    file = execution.work_dir / "stdin"  # beside the command's directory, not in it
    try:
        await _download(execution, ref, file)
    except (NotFound, IntegrityError) as error:
        raise OperativeError(f"stdin_ref {ref.uri}: {error}", kind=FailureKind.REJECTED) from error
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


async def _store(execution: Execution, result: CommandResult, spill: Path) -> Ref:
    """The whole output as an artifact."""
    try:
        media_type = await asyncio.to_thread(media_type_of, spill)
        name = "stdout.json" if media_type == JSON else "stdout.txt"
        return await execution.spill(spill, name, media_type)
    finally:
        await asyncio.to_thread(spill.unlink, missing_ok=True)
