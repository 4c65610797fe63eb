"""`TaskCommands`: runs commands for the tasks of one Operative, through the adapter of `gbe-envoy`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gbe_envoy.adapter import (
    DEFAULT_ALLOW,
    DEFAULT_PATH,
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
from gbe_operative.contract import Execution, OperativeContext, OperativeError
from gbe_operative_command.outcome import JSON, media_type_of, outcome_of
from gbe_operative_command.stdin import stdin_of


class TaskCommands:
    """Started and closed with the Operative that owns it; serves many attempts at once.

    A command runs in a private, empty directory (`GBE_WORK_DIR`), with `GBE_TASK_ID`, `GBE_TASK_NAME`, `GBE_JOB_ID`
    and `GBE_ATTEMPT` set, in an environment of which `allow` says what comes from `environment` (default: this
    process's own).
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        allow: Collection[str] = DEFAULT_ALLOW,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._allow = allow
        base = os.environ if environment is None else environment
        # Of the host's environment only what the allow-list names is ever looked at again.
        self._base = build_environment({}, base=base, allow=allow)
        self._runner: CommandRunner | None = None

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

    @property
    def runner(self) -> CommandRunner:
        """The adapter's runner, between start and close."""
        if self._runner is None:
            raise RuntimeError("the Operative was not started")
        return self._runner

    @property
    def path(self) -> str:
        """The `PATH` that commands are looked up in."""
        return self._base.get("PATH", DEFAULT_PATH)

    async def run(
        self,
        execution: Execution,
        argv: Sequence[str],
        variables: Mapping[str, str],
        *,
        extra: Mapping[str, str] | None = None,
        work_dir: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> CommandResult:
        """Run `argv` to its end, or until the attempt is to end.

        `variables` are params that become environment variables, by the adapter's rules; `extra` are the Operative's
        own, under no rule. What it reads: `stdin_of(execution)`. `work_dir`: one of `make_work_dir`, which stays; by
        default the command has one of its own. `pass_fds` are its descriptors from 3 on. A `spill` in the result is
        the caller's (see `outcome`). Raises `OperativeError`: rejected for a param that can't be used, else for a
        command that can't be started.
        """
        runner = self.runner
        stdin = await stdin_of(execution)
        directory = runner.make_work_dir() if work_dir is None else work_dir
        try:
            environment = self._environment(execution, variables, directory, extra)
            return await runner.run(
                Command(argv, environment, str(directory), stdin, pass_fds),
                limits=self._limits,
                cancel=execution.cancelled,
                on_line=execution.line_reporter,
            )
        except ParamError as error:
            raise OperativeError(str(error), kind=FailureKind.REJECTED) from error
        except CommandError as error:
            raise OperativeError(str(error)) from error
        finally:
            if work_dir is None:
                await runner.remove_work_dir(directory)

    def make_work_dir(self) -> Path:
        """An empty directory for a command, to be given back to `remove_work_dir`."""
        return self.runner.make_work_dir()

    async def remove_work_dir(self, work_dir: Path) -> None:
        """Remove it with all in it."""
        await self.runner.remove_work_dir(work_dir)

    async def outcome(self, execution: Execution, result: CommandResult) -> TaskOutcome:
        """The outcome of a task that is this command and nothing else; a large output goes to the artifact store."""
        ref = None if result.spill is None else await store(execution, result.spill)
        if execution.masker is not None:  # before anything is cut out of it; it may begin within a secret already
            result = replace(result, stderr=execution.masker.excerpt_raw(result.stderr))
            if ref is not None:
                result = replace(result, stdout=execution.masker.excerpt_raw(result.stdout))
        return outcome_of(result, ref)

    def _environment(
        self, execution: Execution, variables: Mapping[str, str], work_dir: Path, extra: Mapping[str, str] | None
    ) -> dict[str, str]:
        task = execution.task
        own = {
            "GBE_TASK_ID": task.task_id,
            "GBE_TASK_NAME": task.task_name,
            "GBE_JOB_ID": task.job_id,
            "GBE_ATTEMPT": str(execution.attempt),
            "GBE_WORK_DIR": str(work_dir),
        }
        if extra:
            own.update(extra)
        return build_environment(variables, base=self._base, allow=self._allow, extra=own)


async def store(execution: Execution, spill: Path) -> Ref:
    """A spilled output as an artifact; the file is gone afterwards."""
    try:
        media_type = await asyncio.to_thread(media_type_of, spill)
        name = "stdout.json" if media_type == JSON else "stdout.txt"
        return await execution.spill(spill, name, media_type)
    finally:
        await asyncio.to_thread(spill.unlink, missing_ok=True)
