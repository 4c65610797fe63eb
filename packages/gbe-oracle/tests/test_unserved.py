"""Queued tasks of jobs that are over go, where no Operative will come to drop them."""

from __future__ import annotations

import asyncio

import pytest

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.payloads import JobCancelRequested
from gbe_nexus import ConsumerSpec, Message, Transport, encode_payload
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import QUICK, Events, Script
from gbe_oracle.unserved import Unserved


async def sweeper(bus: Transport) -> Unserved:
    return Unserved(bus, await bus.journal(streams.QUEUE), await bus.journal(streams.JOURNAL))


async def queued(bus: Transport) -> int:
    return (await bus.stream_state(streams.QUEUE)).messages


async def submit(oracle: BusOracle, task_type: str, count: int = 3) -> str:
    tasks = [TaskDefinition(f"t{number}", task_type) for number in range(count)]
    return await oracle.submit(JobDefinition("test", "test", tasks))


async def cancel(bus: Transport, events: Events, job_id: str) -> None:
    await bus.publish(subjects.cancel("test"), encode_payload(f"{job_id}:cancel", JobCancelRequested(job_id)))
    assert await events.end(job_id) == "cancelled"


async def until_queued(bus: Transport, count: int) -> None:
    async with asyncio.timeout(5):
        while await queued(bus) != count:
            await asyncio.sleep(0.01)


@pytest.fixture
async def oracle(bus: Transport) -> BusOracle:
    """One that leaves the sweeping to the test."""
    role = BusOracle(bus, QUICK)
    await role.start()
    assert role._housekeeping is not None
    role._housekeeping._next_unserved = float("inf")
    return role


async def test_of_a_cancelled_job_nothing_stays(bus: Transport, oracle: BusOracle, events: Events) -> None:
    gone, alive = await submit(oracle, "nobody"), await submit(oracle, "nobody", 2)
    await until_queued(bus, 5)
    sweep = await sweeper(bus)
    assert await sweep.sweep() == 0
    await cancel(bus, events, gone)
    assert await sweep.sweep() == 3
    assert await queued(bus) == 2
    await cancel(bus, events, alive)
    async with asyncio.timeout(5):  # its journal is purged: the job is in the history alone
        while await (await bus.journal(streams.JOURNAL)).subjects("gbe.journal.>"):
            await asyncio.sleep(0.01)
    assert await sweep.sweep() == 2
    assert await queued(bus) == 0
    await oracle.stop()


async def test_what_somebody_serves_is_theirs(bus: Transport, oracle: BusOracle, events: Events) -> None:
    """They drop it themselves; deleting it below them would only be a race."""
    job_id = await submit(oracle, "slow")
    held: list[Message] = []
    spec = ConsumerSpec(streams.QUEUE, subjects.operative_consumer("slow"), (subjects.queue("slow"),))
    subscription = await bus.subscribe(spec, held.extend, credit=1)
    await until_queued(bus, 3)
    async with asyncio.timeout(5):
        while not held:
            await asyncio.sleep(0.01)
    await cancel(bus, events, job_id)
    sweep = await sweeper(bus)
    assert await sweep.sweep() == 0, "it has one in hand"
    held[0].ack()
    await subscription.stop()
    await until_queued(bus, 2)
    assert await sweep.sweep() == 2, "it has gone"
    await oracle.stop()


async def test_what_cannot_be_read_is_left(bus: Transport, oracle: BusOracle) -> None:
    await bus.publish(subjects.queue("nobody"), b"not a task")
    assert await (await sweeper(bus)).sweep() == 0
    assert await queued(bus) == 1
    await oracle.stop()


async def test_many_are_gone_through_in_rounds(
    bus: Transport, oracle: BusOracle, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live ones at the head don't keep those behind them from being seen."""
    monkeypatch.setattr("gbe_oracle.unserved.MESSAGES_AT_ONCE", 4)
    await submit(oracle, "nobody", 6)
    await until_queued(bus, 6)
    gone = await submit(oracle, "nobody", 3)
    await until_queued(bus, 9)
    await cancel(bus, events, gone)
    sweep = await sweeper(bus)
    assert [await sweep.sweep() for _ in range(4)] == [0, 2, 1, 0]
    assert await queued(bus) == 6
    await oracle.stop()


async def test_the_oracle_does_it_by_itself(bus: Transport, script: Script, events: Events) -> None:
    quick = type(QUICK)(**{name: getattr(QUICK, name) for name in QUICK.__struct_fields__} | {"tidy_after": 0.1})
    oracle = BusOracle(bus, quick)
    await oracle.start()
    job_id = await submit(oracle, "nobody")
    await until_queued(bus, 3)
    await cancel(bus, events, job_id)
    await until_queued(bus, 0)
    await oracle.stop()
