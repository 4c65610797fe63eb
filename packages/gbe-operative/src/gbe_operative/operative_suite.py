"""The contract suite of Operatives: what a worker, and who submits a job, may expect of each. Every Operative runs it:

    class TestContract(OperativeContract):
        @pytest.fixture
        def subject(self) -> Subject:
            return Subject(
                "shell", lambda: ShellOperative(),
                completes={"command": "echo hello"}, rejected={}, endless={"command": "sleep 600"},
            )

It needs a fixture `transport` (a `Transport` of the test's own, `memory://` will do), and pytest with pytest-asyncio in
auto mode; it imports neither, so it can lie beside the code.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from gbe_jobs_domain.edges import Inline, Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped
from gbe_jobs_domain.payloads import Param, ProgressKind, TaskEnded, TaskQueued
from gbe_nexus import Transport
from gbe_operative.contract import Operative
from gbe_operative.settings import WorkerSettings
from gbe_operative.testing import Hall
from gbe_operative.worker import Worker

PATIENCE = 30.0

HOSTILE = ("", " ", "\0", "a\0b", "\ud7ff\ue000\U0010ffff", "../../../../etc/passwd", "{{", "[", "'", "x" * 300_000)
"""Values that somebody may put into any param."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An Operative, and params for tasks of its type.

    `completes`: these complete soon, with output. `rejected`: these can't work. `endless`: these run until they are
    ended; None where nothing of the type can.
    """

    task_type: str
    make: Callable[[], Operative]
    completes: Mapping[str, Param]
    rejected: Mapping[str, Param]
    endless: Mapping[str, Param] | None = None


class OperativeContract:
    """Subclass it in a test module under a name that begins with `Test`, and give it a fixture `subject`."""

    async def test_says_what_it_handles(self, subject: Subject) -> None:
        operative = subject.make()
        assert isinstance(operative.handles, tuple)
        assert subject.task_type in operative.handles
        assert operative.handles == operative.handles

    async def test_a_task_completes_and_is_reported_once(self, subject: Subject, transport: Transport) -> None:
        async with _hall(subject, transport) as (hall, _):
            await hall.queue(_task(hall, subject, subject.completes))
            (ended,) = await hall.ends()
            _is_success(ended)
            await hall.until(_empty(hall), PATIENCE)
            assert len(hall.ended) == 1

    async def test_many_at_once_are_told_apart(self, subject: Subject, transport: Transport) -> None:
        async with _hall(subject, transport) as (hall, _):
            tasks = [_task(hall, subject, subject.completes) for _ in range(20)]
            await hall.queue(*tasks)
            await hall.until(lambda: len(hall.ended) >= 20, PATIENCE)
            for ended in hall.ended:
                _is_success(ended)
            assert {ended.task_id for ended in hall.ended} == {task.task_id for task in tasks}

    async def test_what_can_not_work_is_rejected_and_not_tried_again(
        self, subject: Subject, transport: Transport
    ) -> None:
        async with _hall(subject, transport) as (hall, _):
            await hall.queue(replace(_task(hall, subject, subject.rejected), max_retries=3))
            (ended,) = await hall.ends()
            assert isinstance(ended.outcome, Failed), ended.outcome
            assert ended.outcome.kind is FailureKind.REJECTED, ended.outcome
            assert ended.attempt == 1
            assert ended.outcome.exit_code != 0
            assert not re.match(r"[A-Za-z]*(Error|Exception)\b", ended.outcome.error), (
                "it is told, not what Python says"
            )

    async def test_hostile_params_harm_nothing_but_their_task(self, subject: Subject, transport: Transport) -> None:
        async with _hall(subject, transport) as (hall, _):
            tasks = [
                replace(_task(hall, subject, {**subject.completes, name: value}), timeout_secs=5.0)
                for name in (*subject.completes, "unheard_of", "no-name", "PATH")
                for value in HOSTILE
            ]
            await hall.queue(*tasks)
            await hall.until(lambda: len(hall.ended) >= len(tasks), PATIENCE)
            assert all(isinstance(ended.outcome, Completed | Failed | Skipped) for ended in hall.ended)
            assert not hall.dead
            await hall.queue(_task(hall, subject, subject.completes))
            _is_success((await hall.ends(len(tasks) + 1))[-1])

    async def test_a_cancel_ends_it_and_all_it_started(self, subject: Subject, transport: Transport) -> None:
        if subject.endless is None:
            return
        async with _hall(subject, transport) as (hall, _):
            before = await _settled(hall, subject)
            task = _task(hall, subject, subject.endless)
            await _begin(hall, task)
            await hall.cancel(task)
            await hall.until(lambda: len(hall.ended) >= 2, PATIENCE)
            ended = hall.ended[-1]
            assert isinstance(ended.outcome, Failed)
            assert ended.outcome.kind is FailureKind.CANCELLED, ended.outcome
            await hall.until(lambda: _processes() <= before, PATIENCE)

    async def test_a_time_limit_ends_it_and_all_it_started(self, subject: Subject, transport: Transport) -> None:
        if subject.endless is None:
            return
        async with _hall(subject, transport) as (hall, _):
            before = await _settled(hall, subject)
            await hall.queue(replace(_task(hall, subject, subject.endless), timeout_secs=0.3))
            await hall.until(lambda: len(hall.ended) >= 2, PATIENCE)
            ended = hall.ended[-1]
            assert isinstance(ended.outcome, Failed)
            assert (ended.outcome.kind, ended.outcome.exit_code) == (FailureKind.TIMEOUT, 124), ended.outcome
            await hall.until(lambda: _processes() <= before, PATIENCE)

    async def test_a_stop_hands_it_back(self, subject: Subject, transport: Transport) -> None:
        if subject.endless is None:
            return
        async with _hall(subject, transport) as (hall, worker):
            task = _task(hall, subject, subject.endless)
            await _begin(hall, task)
            await worker.stop()
            assert not hall.ended, "it is somebody else's now"
            note = await hall.note(task)
            assert note is not None
            assert (note.handed_back, note.failed, note.lost) == (1, 0, 0)

    async def test_nothing_is_left_of_it_when_it_is_closed(
        self, subject: Subject, transport: Transport, tmp_path: Path
    ) -> None:
        before = _processes()
        async with _hall(subject, transport, tmp_path) as (hall, worker):
            tasks = [_task(hall, subject, subject.completes), _task(hall, subject, subject.rejected)]
            await hall.queue(*tasks)
            await hall.until(lambda: len(hall.ended) >= 2, PATIENCE)
            await worker.stop()
            await hall.until(lambda: _processes() <= before, PATIENCE)
            assert os.listdir(tmp_path) == []


@asynccontextmanager
async def _hall(
    subject: Subject, transport: Transport, work_root: Path | None = None
) -> AsyncIterator[tuple[Hall, Worker]]:
    settings = WorkerSettings(ack_wait=10, moment=0.02, stop_grace=0.05, interrupt_grace=10, work_root=work_root)
    async with Hall.on(transport) as hall:
        worker = hall.worker(subject.make(), settings=settings)
        await worker.start()
        yield hall, worker


def _task(hall: Hall, subject: Subject, params: Mapping[str, Param]) -> TaskQueued:
    return hall.task("task", subject.task_type, params=dict(params))


async def _begin(hall: Hall, task: TaskQueued) -> None:
    await hall.queue(task)
    said = (ProgressKind.STARTED, ProgressKind.OUTPUT)
    await hall.until(lambda: any(p.task_id == task.task_id and p.kind in said for p in hall.progress), PATIENCE)


async def _settled(hall: Hall, subject: Subject) -> set[int]:
    """The processes that are there between tasks: an Operative may keep some warm."""
    await hall.queue(_task(hall, subject, subject.completes))
    await hall.ends()
    found = _processes()
    for _ in range(100):  # what ended with the task takes a moment to be gone
        await asyncio.sleep(0.01)
        now, found = found, _processes()
        if now == found:
            break
    return found


def _empty(hall: Hall) -> Callable[[], bool]:
    """Whether the queue was empty when it was looked at last."""
    found = [1]

    async def look() -> None:
        found[0] = await hall.queued()

    looking: list[asyncio.Task[None]] = []

    def empty() -> bool:
        if not looking or looking[-1].done():
            looking.append(asyncio.ensure_future(look()))
        return found[0] == 0

    return empty


def _is_success(ended: TaskEnded) -> None:
    outcome = ended.outcome
    assert isinstance(outcome, Completed), outcome
    assert ended.attempt == 1
    assert not any("\n" in line for line in outcome.output), "lines, without their ends"
    assert isinstance(outcome.data, Inline | Ref), "dependents get something"
    if isinstance(outcome.data, Inline):
        outcome.data.decoded()


def _processes() -> set[int]:
    """The live descendants of this process; none where there is no /proc."""
    found: set[int] = set()
    pending = [os.getpid()]
    while pending:
        pid = pending.pop()
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            children = [int(word) for task in tasks for word in (task / "children").read_text().split()]
        except OSError:
            continue
        found |= {child for child in children if _runs(child)}
        pending += children
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
