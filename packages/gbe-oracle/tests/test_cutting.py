"""Journals of ended jobs are cut off together, and never a record that is still needed."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from gbe_jobs_domain import streams, subjects
from gbe_nexus import Transport
from gbe_oracle import housekeeping
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import DIAMOND, LINE, QUICK, Events, Script, definition, records_of

LAZY = structs.replace(QUICK, tick_interval=3600.0)
MANY = 20


async def run(oracle: BusOracle, events: Events, count: int) -> list[str]:
    jobs = [await oracle.submit(definition(DIAMOND)) for _ in range(count)]
    for job_id in jobs:
        await events.end(job_id)
    async with asyncio.timeout(10):
        while oracle.load()["live_jobs"] > len(oracle_held(oracle)):
            await asyncio.sleep(0)
    return jobs


def oracle_held(oracle: BusOracle) -> list[str]:
    assert oracle._engine is not None
    return [key for key, slot in oracle._engine._slots.items() if slot.job is not None and not slot.job.decided]


async def journals(bus: Transport) -> dict[str, int]:
    return await (await bus.journal(streams.JOURNAL)).subjects("gbe.journal.>")


async def test_when_all_have_ended_nothing_is_left(bus: Transport, script: Script, events: Events) -> None:
    oracle = BusOracle(bus, LAZY)
    await oracle.start()
    await script.start()
    await run(oracle, events, MANY)
    await oracle.tick()
    assert await journals(bus) == {}
    assert oracle._engine is not None
    assert oracle._engine.purgeable == []
    await oracle.stop()


async def test_a_live_job_keeps_its_records_and_those_after_it_for_a_while(
    bus: Transport, script: Script, events: Events
) -> None:
    oracle = BusOracle(bus, LAZY)
    await oracle.start()
    script.hold = {"held"}
    await script.start()
    before = await run(oracle, events, MANY)
    live = await oracle.submit(definition({"held": []}))
    await script.until(lambda: "held" in script.held)
    after = await run(oracle, events, 3)
    await oracle.tick()
    left = {subject.rsplit(".", 1)[1] for subject in await journals(bus)}
    assert left == {live, *after}
    assert left.isdisjoint(before)
    assert len(await records_of(bus, live)) == 1
    await script.release("held")
    assert await events.end(live) == "completed"
    await oracle.stop()


async def test_a_journal_another_oracle_writes_is_as_good_as_live(
    bus: Transport, script: Script, events: Events
) -> None:
    oracle = BusOracle(bus, LAZY)
    await oracle.start()
    foreign = subjects.journal("test", "job_foreign")
    await bus.publish(foreign, b"{}")
    await script.start()
    await run(oracle, events, MANY)
    await oracle.tick()
    assert foreign in await journals(bus)
    await oracle.stop()


async def test_with_many_live_jobs_nothing_is_cut(
    bus: Transport, script: Script, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then they are purged one by one, a little later."""
    oracle = BusOracle(bus, LAZY)
    await oracle.start()
    script.hold = {"a"}
    await script.start()
    for _ in range(housekeeping.LIVE_AT_ONCE + 1):
        await oracle.submit(definition(LINE))
    await script.until(lambda: script.queued["a"] > housekeeping.LIVE_AT_ONCE)
    script.hold = set()
    ended = [await oracle.submit(definition({"x": []})) for _ in range(MANY)]
    for job_id in ended:
        await events.end(job_id)
    count = len(await journals(bus))
    await oracle.tick()
    assert len(await journals(bus)) == count
    monkeypatch.setattr(housekeeping, "STRAGGLER_AGE", 0.0)
    await oracle.tick()
    assert len(await journals(bus)) == count - MANY
    await oracle.stop()
