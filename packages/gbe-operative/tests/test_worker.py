"""The worker, on the memory transport."""

from __future__ import annotations

from typing import Any

from gbe_jobs_domain.outcomes import Completed

Hall = Any  # of conftest.py, which can't be imported


async def test_a_task_is_run_reported_and_acknowledged(hall: Hall) -> None:
    await hall.worker().start()
    task = hall.task()
    await hall.queue(task)
    (ended,) = await hall.ends()
    assert ended.task_id == task.task_id
    assert (ended.attempt, ended.starts) == (1, 1)
    assert ended.outcome == Completed()
    await hall.until(lambda: True)
    assert await hall.note(task) is None


async def test_many_tasks_go_through_few_slots(hall: Hall) -> None:
    await hall.worker(slots=3).start()
    await hall.queue(*[hall.task(f"t{number}") for number in range(200)])
    ended = await hall.ends(200)
    assert len({end.task_id for end in ended}) == 200


async def test_retries(hall: Hall) -> None:
    from gbe_jobs_domain.payloads import RetryPolicy
    from gbe_operative.mock import Behaviour

    await hall.worker(behaviours={"flaky": Behaviour(fail_times=2, output=["ok"])}).start()
    task = hall.task("flaky", max_retries=2, retry=RetryPolicy(delay=0.05))
    await hall.queue(task)
    (ended,) = await hall.ends()
    assert ended.outcome == Completed(output=["ok"])
    assert (ended.attempt, ended.starts) == (3, 3)
