"""An Operative may let go of a task: another job does its work, and the Oracle that ends that reports it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest

from gbe_jobs_domain.payloads import OnLost, ProgressKind, RetryPolicy, TaskNote
from gbe_operative.contract import Delegated, Execution, Operative, Result
from gbe_operative.settings import WorkerSettings

Hall = Any


class Delegating(Operative):
    """Lets go of every task, at once or after a while."""

    def __init__(self, delay: float = 0.0, *, plainly: bool = False) -> None:
        self.attempts: list[int] = []
        self.began = asyncio.Event()
        self._delay = delay
        self._plainly = plainly

    @property
    def handles(self) -> tuple[str, ...]:
        return ("mock",)

    def execute(self, execution: Execution) -> Awaitable[Result] | Result:
        self.attempts.append(execution.attempt)
        self.began.set()
        return Delegated("job_child") if self._plainly else self._slowly(execution)

    async def _slowly(self, execution: Execution) -> Result:
        _ = execution.cancelled  # whoever submits something is not to be cut off in the middle
        await asyncio.sleep(self._delay)
        return Delegated("job_child")


async def empty(hall: Hall) -> None:
    async with asyncio.timeout(5):
        while await hall.queued():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("plainly", [False, True])
async def test_the_message_is_acknowledged_and_nothing_reported(hall: Hall, plainly: bool) -> None:
    worker = hall.worker(Delegating(plainly=plainly), slots=1)
    await worker.start()
    tasks = [hall.task(f"t{n}") for n in range(5)]
    await hall.queue(*tasks)
    await empty(hall)
    assert hall.ended == []
    assert worker.metrics.counter("tasks_delegated").value == 5


@pytest.mark.parametrize("end", ["cancel", "time limit", "stop"])
async def test_what_was_let_go_is_not_ended_as_well(hall: Hall, end: str) -> None:
    """Its submit is accepted: whoever wants its end has to say so to that job."""
    operative = Delegating(0.2)
    settings = WorkerSettings(ack_wait=5, stop_grace=0.01, interrupt_grace=5)
    worker = hall.worker(operative, settings=settings)
    await worker.start()
    task = hall.task(timeout_secs=0.05 if end == "time limit" else None)
    await hall.queue(task)
    await asyncio.wait_for(operative.began.wait(), 5)
    if end == "cancel":
        await hall.cancel(task)
    elif end == "stop":
        await worker.stop()
    await empty(hall)
    assert hall.ended == []
    assert await hall.note(task) is None


async def test_a_task_whose_child_failed_waits_for_its_next_attempt(hall: Hall) -> None:
    operative = Delegating()
    await hall.worker(operative).start()
    task = hall.task(retry_count=2, max_retries=3, retry=RetryPolicy(delay=0.05, factor=1, max_delay=0.05))
    await hall.queue(task)
    await hall.until(lambda: operative.attempts)
    assert operative.attempts == [3]
    await hall.until(lambda: hall.progress)
    assert hall.progress[0].kind is ProgressKind.RETRY
    assert hall.progress[0].message.startswith("attempt 2 failed, next in ")
    await empty(hall)
    assert await hall.note(task) is None


async def test_one_that_comes_twice_is_put_off_once(hall: Hall) -> None:
    operative = Delegating()
    await hall.worker(operative).start()
    task = hall.task(retry_count=1, max_retries=3, retry=RetryPolicy(delay=0.2, factor=1, max_delay=0.2))
    await hall.queue(task, task)
    await empty(hall)
    assert set(operative.attempts) == {2}
    assert Counter(progress.kind for progress in hall.progress)[ProgressKind.RETRY] >= 1


async def test_the_note_of_a_task_that_must_not_run_twice_stays(hall: Hall) -> None:
    await hall.worker(Delegating()).start()
    task = hall.task(on_lost=OnLost.FAIL)
    await hall.queue(task)
    await empty(hall)
    async with asyncio.timeout(5):
        while (await hall.note(task)) != TaskNote(starts=1, running=True):
            await asyncio.sleep(0.01)
