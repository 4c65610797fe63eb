"""`gbe logs`: what tasks wrote: the whole of it for those that are over, what was heard so far for those that run."""

from __future__ import annotations

import sys

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import ARTIFACT_STORE
from gbe_jobs_domain.outcomes import Completed, Failed
from gbe_jobs_domain.states import TaskState
from gbe_jobs_domain.streams import PROGRESS
from gbe_nexus import NotFound, UndecodableMessage, UnknownVersion
from gbe_overseer import records
from gbe_overseer.client import JobClient
from gbe_overseer.errors import NoEcumene, OverseerError
from gbe_overseer.escape import one_line
from gbe_overseer.show import write
from gbe_overseer.view import JobView, TaskChanged, TaskView, TaskWrote

_STORE = f"store://{ARTIFACT_STORE}/"


async def print_logs(client: JobClient, job_id: str, task: str | None, *, follow: bool) -> None:
    """Print them; with `follow`, also what comes, until the job is over. Prefixed by the task unless it is one."""
    view = await client.find(job_id, unfold=True)
    if task is not None and view.tasks and view.task(task) is None:
        names = ", ".join(known.title for known in list(view.unfolded())[:20])
        raise OverseerError(f"{job_id} has no task {one_line(task)}; its tasks: {names}")
    printer = _Printer(client, task)
    if not follow or view.over:
        await printer.print_all(view)
        return
    async with client.watch(job_id, look_back=True, unfold=True) as watch:
        # Lines heard from here on; those from before are read back once.
        first = True
        async for changes in watch:
            printed = first and bool(watch.view.tasks)
            if printed:
                first = False
                await printer.print_all(watch.view)
            for change in changes:
                if isinstance(change, TaskWrote):
                    printer.heard(change)
                elif isinstance(change, TaskChanged) and change.state.terminal and not printed:
                    await printer.print_rest(change.task)


class _Printer:
    """Lines to stdout. A task's output is printed when it is heard, else when it is over."""

    def __init__(self, client: JobClient, task: str | None) -> None:
        self._client = client
        self._only = task
        self._heard: set[str] = set()

    async def print_all(self, view: JobView) -> None:
        """What there is now."""
        for task in view.unfolded():
            if task.state.terminal:
                await self.print_rest(task)
        running = {task.name: task for task in view.tasks if task.state in (TaskState.PENDING, TaskState.RUNNING)}
        if running:
            await self._print_heard(view, running)

    async def print_rest(self, task: TaskView) -> None:
        """A task's output after its end, unless its lines were printed as they came."""
        if self._unwanted(task.title) or task.title in self._heard:
            return
        outcome = task.outcome
        if isinstance(outcome, Completed) and outcome.result_ref and outcome.result_ref.startswith(_STORE):
            await self._print_stored(task.title, outcome.result_ref)
        elif isinstance(outcome, Completed | Failed):
            self._print(task.title, outcome.output)
        if isinstance(outcome, Completed | Failed) and outcome.stderr:
            self._print(task.title, outcome.stderr.removesuffix("\n").split("\n"), stderr=True)

    def heard(self, change: TaskWrote) -> None:
        """Lines as they come."""
        name = change.task.title
        if self._unwanted(name):
            return
        self._heard.add(name)
        if change.omitted:
            print(f"gbe: {change.omitted} lines of {name} were not sent along", file=sys.stderr)
        self._print(name, list(change.lines), stderr=change.stream == "stderr")

    async def _print_heard(self, view: JobView, running: dict[str, TaskView]) -> None:
        try:
            stream = await self._client.log(PROGRESS)
        except NoEcumene:
            return
        job = view.job_id.encode()
        for task_type in sorted({task.task_type for task in running.values()}):
            async for entry in stream.replay(subjects.progress(task_type)):
                if job not in entry.payload:
                    continue
                try:
                    said = records.PROGRESS.decode(entry.payload).data
                except (UndecodableMessage, UnknownVersion):
                    continue
                if said.job_id == view.job_id and said.lines and said.task_name in running:
                    self.heard(TaskWrote(running[said.task_name], said.stream, said.lines, said.omitted))

    async def _print_stored(self, name: str, uri: str) -> None:
        """Output that was too large for the bus: passed on in pieces, however large it is."""
        store = await self._client.transport.artifact_store(ARTIFACT_STORE)
        left = b""
        try:
            async for chunk in store.get(uri.removeprefix(_STORE)):
                *whole, left = (left + chunk).split(b"\n")
                self._print(name, [line.decode(errors="replace") for line in whole])
        except NotFound:
            print(f"gbe: the output of {name} is gone from the artifact store ({uri})", file=sys.stderr)
            return
        if left:
            self._print(name, [left.decode(errors="replace")])

    def _unwanted(self, name: str) -> bool:
        return self._only is not None and name != self._only

    def _print(self, name: str, lines: list[str], *, stderr: bool = False) -> None:
        prefix = "" if self._only is not None else f"{name} {'!' if stderr else '|'} "
        # A terminal is protected from what tasks write; a file or a pipe gets it as it is.
        safe = one_line if sys.stdout.isatty() else str
        write("".join(f"{prefix}{safe(line)}\n" for line in lines))
