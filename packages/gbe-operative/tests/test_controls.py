"""Pause, resume and step: who is told what, when, and how often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from gbe_jobs_domain.edges import ARTIFACT_STORE, inline
from gbe_jobs_domain.outcomes import Completed, Failed, TaskOutcome
from gbe_jobs_domain.payloads import ControlKind, RetryPolicy, TaskControl
from gbe_nexus import Transport
from gbe_operative.composite import CompositeOperative
from gbe_operative.contract import Execution, Operative
from gbe_operative.controls import REMEMBERED, WAITING, Controls
from gbe_operative.mock import Behaviour, MockOperative
from gbe_operative.testing import Hall
from gbe_operative.worker import Worker

PAUSE, RESUME, STEP = ControlKind.PAUSE, ControlKind.RESUME, ControlKind.STEP
STEERABLE = frozenset({PAUSE, RESUME, STEP})


class Machine(Operative):
    """Notes what it is told until it is told to resume."""

    def __init__(self, task_types: Sequence[str] = ("machine",), served: frozenset[ControlKind] = STEERABLE) -> None:
        self._types = tuple(task_types)
        self.served = served
        self.told: dict[str, list[str]] = {}
        self.look = asyncio.Event()
        """Set: it looks at what it is told; cleared: it is busy."""
        self.look.set()
        self.closed: list[str] = []

    @property
    def handles(self) -> tuple[str, ...]:
        return self._types

    def controls(self, task_type: str) -> frozenset[ControlKind]:
        return self.served

    async def execute(self, execution: Execution) -> TaskOutcome:
        told = self.told.setdefault(execution.task.task_name, [])
        await self.look.wait()
        execution.cancelled  # noqa: B018 - asked for: it is given time to clean up
        async for control in execution.controls:
            told.append(f"{execution.attempt}:{control.kind}")
            if control.kind is RESUME:
                return Failed("again") if execution.attempt <= execution.task.max_retries else Completed()
        self.closed.append(execution.task.task_name)
        return Completed()


def on_hand(worker: Worker, count: int = 1) -> bool:
    return sum(len(lane.attempts) for lane in worker._lanes.values()) >= count


async def test_a_task_hears_what_is_meant_for_it_in_order_and_each_once(hall: Hall) -> None:
    machine = Machine()
    await hall.worker(machine).start()
    one, other = hall.task("one", "machine"), hall.task("other", "machine")
    await hall.queue(one, other)
    await hall.until(lambda: len(machine.told) == 2)
    for kind, control_id in ((PAUSE, "p"), (STEP, "s1"), (STEP, "s1"), (STEP, "s2"), (PAUSE, "p"), (RESUME, "r")):
        await hall.control(one, kind, control_id)
    await hall.ends(1)
    assert machine.told == {"one": ["1:pause", "1:step", "1:step", "1:resume"], "other": []}
    await hall.control(other, RESUME)
    await hall.ends(2)


async def test_a_control_without_task_ids_is_for_all_tasks_of_the_job(hall: Hall) -> None:
    machine = Machine()
    await hall.worker(machine).start()
    await hall.queue(hall.task("a", "machine"), hall.task("b", "machine"))
    await hall.until(lambda: len(machine.told) == 2)
    await hall.control(None, RESUME, task_type="machine")
    await hall.ends(2)
    assert machine.told == {"a": ["1:resume"], "b": ["1:resume"]}


async def test_another_job_is_not_meant(hall: Hall) -> None:
    machine = Machine()
    await hall.worker(machine).start()
    task = hall.task("a", "machine")
    await hall.queue(task)
    await hall.until(lambda: "a" in machine.told)
    mine, hall.job_id = hall.job_id, "job_other"
    await hall.control(None, RESUME, task_type="machine")
    hall.job_id = mine
    await hall.control(task, PAUSE)
    await hall.until(lambda: machine.told["a"])
    assert machine.told["a"] == ["1:pause"]


async def test_what_comes_before_the_operative_looks_is_kept(hall: Hall) -> None:
    machine = Machine()
    machine.look.clear()
    worker = hall.worker(machine)
    await worker.start()
    task = hall.task("busy", "machine")
    await hall.queue(task)
    await hall.until(lambda: on_hand(worker) and "busy" in machine.told)
    for kind in (PAUSE, STEP, RESUME):
        await hall.control(task, kind)
    machine.look.set()
    await hall.ends()
    assert machine.told["busy"] == ["1:pause", "1:step", "1:resume"]


async def test_what_comes_while_the_inputs_are_fetched_is_kept(
    hall: Hall, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no execution yet: the message waits for it."""
    store = await transport.artifact_store(ARTIFACT_STORE)
    fetching, fetch = asyncio.Event(), asyncio.Event()
    put = type(store).put

    async def slow_put(*args: object, **options: object) -> object:
        fetching.set()
        await fetch.wait()
        return await put(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store), "put", slow_put)
    machine = Machine()
    await hall.worker(machine).start()
    task = hall.task("t", "machine", input_from={"x_ref": "up"}, inputs={"up": inline({"a": 1})})
    await hall.queue(task)
    await asyncio.wait_for(fetching.wait(), 5)
    await hall.control(task, PAUSE)
    await hall.control(task, RESUME)
    fetch.set()
    await hall.ends()
    assert machine.told["t"] == ["1:pause", "1:resume"]


async def test_the_next_attempt_starts_afresh(hall: Hall) -> None:
    machine = Machine()
    await hall.worker(machine).start()
    task = hall.task("t", "machine", max_retries=1, retry=RetryPolicy(delay=0.01))
    await hall.queue(task)
    await hall.until(lambda: "t" in machine.told)
    await hall.control(task, PAUSE, "p")
    await hall.control(task, RESUME, "r")
    await hall.until(lambda: any(said.kind == "retry" for said in hall.progress))
    assert machine.told["t"] == ["1:pause", "1:resume"]
    while not hall.ended:  # as a sender does: the same again until the effect is there
        await hall.control(task, RESUME, "r")
        await asyncio.sleep(0.01)
    assert machine.told["t"] == ["1:pause", "1:resume", "2:resume"]


async def test_what_a_task_type_cannot_do_is_ignored_and_said_once(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    operative = MockOperative(behaviours={"slow": Behaviour(hang=True)})
    await hall.worker(operative).start()
    task = hall.task("slow")
    await hall.queue(task)
    await asyncio.wait_for(operative.started.wait(), 5)
    with caplog.at_level(logging.WARNING, "gbe_operative"):
        for _ in range(3):
            await hall.control(task, PAUSE)
        await hall.control(task, STEP)
        await hall.until(lambda: len(caplog.records) >= 2)
    assert [record.getMessage() for record in caplog.records] == [
        f"{kind} of task {task.task_id} ignored: tasks of type mock can't do that (not said again)"
        for kind in ("pause", "step")
    ]
    await hall.cancel(task)
    await hall.ends()


async def test_only_the_kinds_that_are_promised(hall: Hall) -> None:
    machine = Machine(served=frozenset({RESUME}))
    await hall.worker(machine).start()
    task = hall.task("t", "machine")
    await hall.queue(task)
    await hall.until(lambda: "t" in machine.told)
    await hall.control(task, PAUSE)
    await hall.control(task, RESUME)
    await hall.ends()
    assert machine.told["t"] == ["1:resume"]


async def test_the_controls_end_with_a_cancel(hall: Hall) -> None:
    """Who waits for the next one while paused is not left waiting."""
    machine = Machine()
    await hall.worker(machine).start()
    task = hall.task("t", "machine")
    await hall.queue(task)
    await hall.until(lambda: "t" in machine.told)
    await hall.control(task, PAUSE)
    await hall.until(lambda: machine.told["t"])
    await hall.cancel(task)
    (ended,) = await hall.ends()
    assert isinstance(ended.outcome, Failed)
    assert machine.closed == ["t"]


async def test_a_composite_asks_the_member(hall: Hall) -> None:
    machine = Machine()
    both = CompositeOperative([machine, MockOperative(("mock",))])
    assert both.controls("machine") == STEERABLE
    assert both.controls("mock") == frozenset()
    await hall.worker(both).start()
    task = hall.task("t", "machine")
    await hall.queue(task)
    await hall.until(lambda: "t" in machine.told)
    await hall.control(task, RESUME)
    await hall.ends()


async def test_an_operative_that_does_not_look_fills_no_memory(hall: Hall, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.look.clear()
    await hall.worker(machine).start()
    task = hall.task("t", "machine")
    await hall.queue(task)
    await hall.until(lambda: "t" in machine.told)
    for _ in range(WAITING):
        await hall.control(task, STEP)
    await hall.control(task, PAUSE, "p")
    await hall.until(lambda: "dropped: too many wait" in caplog.text)
    machine.look.set()
    await hall.until(lambda: len(machine.told["t"]) == WAITING)
    await hall.control(task, PAUSE, "p")  # dropped ones were not heard: the same again is heard
    await hall.control(task, RESUME)
    await hall.ends()
    assert machine.told["t"] == ["1:step"] * WAITING + ["1:pause", "1:resume"]


async def test_take_gives_what_is_there() -> None:
    controls = Controls()
    assert controls.take() == []
    controls.tell("a", TaskControl(PAUSE, "job_1"))
    controls.tell("b", TaskControl(STEP, "job_1"))
    assert [control.kind for control in controls.take()] == [PAUSE, STEP]
    for number in range(REMEMBERED):
        controls.tell(str(number), TaskControl(STEP, "job_1"))
        controls.take()
    controls.tell("b", TaskControl(STEP, "job_1"))  # forgotten by now
    assert len(controls.take()) == 1
    controls.end()
    controls.tell("c", TaskControl(STEP, "job_1"))
    assert controls.take() == []
