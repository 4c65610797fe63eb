"""`FunctionOperative`: serves the functions of an app, each run in a process of its own kind."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import msgspec

from gbe_envoy.adapter import DEFAULT_ALLOW, CommandResult, CommandRunner, Limits, build_environment
from gbe_jobs_domain.edges import EdgeData, Inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped, TaskOutcome
from gbe_operative.contract import Execution, Operative, OperativeContext, OperativeError
from gbe_operative_command.commands import store
from gbe_operative_command.outcome import lines_of
from gbe_operative_command.stdin import fetched
from gbe_operative_python.child import Setup
from gbe_operative_python.declaring import MARK, App, PythonTask, app_of
from gbe_operative_python.errors import DeclarationError
from gbe_operative_python.messages import Done, End, Note, Run
from gbe_operative_python.printing import NOTHING, Printed
from gbe_operative_python.processes import Ended, OnNote, ProcessBroken, ProcessPool

_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}\Z")


class FunctionOperative(Operative):
    """Serves the task types of an app.

    `location`: `module` or `module:attribute`, where the functions' processes find the app: they import it anew.
    `environment`: what the app's allow-list chooses from (default: this process's own). Raises `DeclarationError`.
    """

    def __init__(self, app: App, location: str, *, environment: Mapping[str, str] | None = None) -> None:
        if not app.tasks:
            raise DeclarationError(f"{location} has no tasks: mark a function with @task, or with @app.task")
        for task in app.tasks:
            _ = task.signature  # what can't be called is found out now
        self._app = app
        self._tasks: dict[str, PythonTask] = {task.task_type: task for task in app.tasks}
        self._location = location
        self._environment = build_environment(
            {},
            base=os.environ if environment is None else environment,
            allow=(*DEFAULT_ALLOW, *app.environment),
        )
        self._runner: CommandRunner | None = None
        self._pool: ProcessPool | None = None
        self._count = 0

    @property
    def handles(self) -> tuple[str, ...]:
        """The app's task types."""
        return tuple(self._tasks)

    @property
    def slots(self) -> Mapping[str, int]:
        """As the tasks, or the app, say."""
        asked = {task.task_type: task.slots or self._app.slots for task in self._app.tasks}
        return {task_type: slots for task_type, slots in asked.items() if slots is not None}

    async def start(self, context: OperativeContext) -> None:
        """Start the guardian and a first process. Raises `OperativeError` where the app can't be imported there."""
        self._runner = runner = CommandRunner(spill_dir=context.work_root)
        await runner.start()
        runner.guard_path(context.work_root)
        setup = Setup(self._location, self._app.recycle_after, self._app.max_memory)
        self._pool = pool = ProcessPool(runner, setup, self._environment, Limits(grace=self._app.grace))
        try:
            await pool.start()
        except ProcessBroken as error:
            raise OperativeError(str(error), kind=FailureKind.REJECTED) from error

    async def close(self) -> None:
        """End all processes."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
        if self._runner is not None:
            await self._runner.close()
            self._runner = None

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Run the function to its end."""
        pool = self._pool
        if pool is None:
            raise RuntimeError("the FunctionOperative was not started")
        params = await self._with_files(execution) if execution.refs else dict(execution.params)
        try:
            process = await pool.take()
        except ProcessBroken as error:
            raise OperativeError(str(error)) from error
        order = self._order(execution, pool, params)
        execution.when_cancelled(process.kill)
        try:
            ended = await process.run(order, _note_to(execution), lambda: execution.line_reporter)
        finally:
            execution.when_cancelled(None)
            pool.release(process)
        try:
            return await self._outcome(execution, ended)
        finally:
            if ended.done is None or ended.done.dirty:
                assert self._runner is not None
                await self._runner.remove_work_dir(Path(order.work_dir))

    async def _with_files(self, execution: Execution) -> dict[str, str]:
        """The params, with a file in place of each reference for which the function takes a path."""
        parameters = self._tasks[execution.task.task_type].signature.parameters
        params = dict(execution.params)
        for name, ref in execution.refs.items():
            if name in parameters and parameters[name].path:
                params[name] = str(await fetched(execution, name, ref, execution.work_dir / name))
        return params

    def _order(self, execution: Execution, pool: ProcessPool, params: dict[str, str]) -> Run:
        self._count += 1
        task = execution.task
        return Run(
            task.task_type,
            params,
            execution.attempt,
            task.task_id,
            task.task_name,
            task.job_id,
            f"{pool.directory}/{self._count}",
            [] if execution.masker is None else list(execution.masker.secrets),
        )

    async def _outcome(self, execution: Execution, ended: Ended) -> TaskOutcome:
        done, printed = ended.done, ended.printed
        output, result_ref = ([], None) if printed is NOTHING else await _output(execution, printed)
        stderr = printed.stderr.decode("utf-8", "replace")
        if done is None:
            return self._died(execution, ended.death, output, stderr)
        if done.end is End.DONE:
            return Completed(output, stderr, await _data(execution, done), result_ref)
        if done.end is End.SKIPPED:
            return Skipped(done.said)
        if not done.retryable or done.retry_after > 0:
            raise OperativeError(done.said, retryable=done.retryable, retry_after=done.retry_after, output=output)
        kind = FailureKind.REJECTED if done.end is End.REJECTED else FailureKind.ERROR
        return Failed(done.said, kind, done.exit_code, stderr, output)

    def _died(self, execution: Execution, death: CommandResult | None, output: list[str], stderr: str) -> Failed:
        function = self._tasks[execution.task.task_type].function.__qualname__
        if death is not None and death.cancelled:
            if execution.cancelled.is_set():
                return Failed("cancelled", FailureKind.CANCELLED, 1, stderr, output)
            return Failed(
                f"the process of {function} said what no process says, and was ended",
                FailureKind.ERROR,
                1,
                stderr,
                output,
            )
        if death is None:
            return Failed(f"the process of {function} is gone", stderr=stderr, output=output)
        how = f"exit code {death.exit_code}"
        if death.signal is not None:
            how = f"killed by {death.signal}" + (" (out of memory?)" if death.signal == "SIGKILL" else "")
        said = stderr.strip()[-1024:]
        error = f"the process of {function} ended before the function did: {how}" + (f": {said}" if said else "")
        return Failed(error, exit_code=death.exit_code or 1, stderr=stderr, output=output)


async def _output(execution: Execution, printed: Printed) -> tuple[list[str], str | None]:
    """The lines; where they were many, their end, and the reference to the whole."""
    lines = lines_of(printed.stdout)
    uri = None
    if printed.file is not None:
        uri = (await store(execution, printed.file)).uri
        left = printed.stdout_size - len(printed.stdout)
        lines.insert(0, f"[… {left} bytes omitted, all are in {uri} …]")
    if printed.problem:
        lines.append(f"[… {printed.problem} …]")
    return lines, uri


async def _data(execution: Execution, done: Done) -> EdgeData:
    if not done.file:
        return Inline(msgspec.Raw(done.data), done.items)
    suffix = Path(done.file).suffix.lower()
    name = f"data{suffix}" if _SUFFIX.match(suffix) else "data"
    ref = await execution.spill(Path(done.file), name, done.media_type)
    return msgspec.structs.replace(ref, items=done.items)


def _note_to(execution: Execution) -> OnNote:
    def note(said: Note) -> None:
        execution.progress(said.message, data=msgspec.json.decode(said.data) if said.data else None)

    return note


def operative_of(what: object, location: str) -> Operative | None:
    """For `gbe-operative --app`: the Operative of what was found at the location; None where it has no such tasks.

    Raises `DeclarationError` for tasks that can't be served.
    """
    if not (isinstance(what, App | ModuleType) or hasattr(what, MARK)):
        return None
    app = app_of(what)
    return None if isinstance(what, ModuleType) and not app.tasks else FunctionOperative(app, location)
