"""O3, O6, O7: an Oracle dies between any two of its steps, or several work at once.

A `Mortal` bus counts what an Oracle does on it (journal appends, publishes, acknowledgements) and cuts the Oracle
off at the n-th step: that step and everything after it never reaches the bus, as with a SIGKILL. Every n is tried.
Real processes and real signals are in `tests/chaos`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.outcomes import Failed
from gbe_nexus import (
    ConsumerSpec,
    Handler,
    Message,
    Subscription,
    Transport,
)
from gbe_oracle.faults import KEEP, Fate, UnpinnedBus, inherited, mortal_oracle, outcome_counts
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import DIAMOND, FAN, LINE, Edges, Events, Script, definition, history_of, records_of


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize(
    ("edges", "failing"),
    [(LINE, None), (DIAMOND, None), (DIAMOND, "b")],
    ids=["line", "diamond", "failing"],
)
async def test_death_between_any_two_steps_loses_and_doubles_nothing(
    bus: Transport, script: Script, events: Events, edges: Edges, failing: str | None, partly: bool
) -> None:
    """O6 for every step of these jobs."""
    await script.start()
    if failing:
        script.answers[failing] = Failed("boom")
    for at in itertools.count():
        script.queued.clear()
        fate = Fate(at, partly)
        victim = await mortal_oracle(bus, fate)
        job_id = await victim.submit(definition(edges))
        async with inherited(bus, fate, victim, events.end(job_id)) as end:
            assert end == ("failed" if failing else "completed"), f"step {at}"
            summary = await history_of(bus, job_id)
            assert events.names(job_id)[0] == "created"
            assert events.names(job_id)[1:] == [summary.state], f"step {at}"
            indices = await outcome_counts(bus, job_id)
            if indices:  # the journal is still there: the heir keeps it for a minute
                assert len(indices) == len(set(indices)), f"step {at}: an outcome recorded twice"
            if not failing:
                assert [t.state for t in summary.tasks] == ["completed"] * len(edges)
                assert all(t.outcome is not None for t in summary.tasks), f"step {at}: an outcome forgotten"
                assert set(script.queued) == set(edges)
            assert max(script.queued.values()) <= 2
        if not fate.dead:
            break
    assert at >= 8, "these jobs take at least eight steps"


async def test_two_oracles_at_once_record_each_outcome_once(bus: Transport, script: Script, events: Events) -> None:
    """O7: without affinity, the swap alone keeps them apart. Both get every second message or so."""
    await script.start()
    unpinned = [BusOracle(UnpinnedBus(bus), KEEP) for _ in range(2)]  # type: ignore[arg-type]
    for role in unpinned:
        await role.start()
    jobs = [await unpinned[0].submit(definition(FAN)) for _ in range(10)]
    for job_id in jobs:
        assert await events.end(job_id) == "completed"
        assert events.names(job_id) == ["created", "completed"]
        indices = await outcome_counts(bus, job_id)
        assert sorted(indices) == list(range(len(FAN)))
    assert sum(role.load().get("conflicts", 0) for role in unpinned) > 0, "they must have met"
    for role in unpinned:
        await role.stop()


async def test_a_frozen_oracle_is_replaced_and_does_no_harm_when_it_wakes(
    bus: Transport, script: Script, events: Events
) -> None:
    """O7, SIGSTOP: it wakes with a state that others have left behind."""
    sleeper = BusOracle(FrozenBus(bus), KEEP)  # type: ignore[arg-type]
    await sleeper.start()
    script.hold = {"a", "b"}
    await script.start()
    job_id = await sleeper.submit(definition({"a": [], "b": ["a"], "c": ["b"]}))
    await script.until(lambda: "a" in script.held)
    frozen = sleeper.transport
    assert isinstance(frozen, FrozenBus)
    frozen.freeze()
    await script.release("a")  # the sleeper gets this and does nothing
    heir = BusOracle(bus, KEEP)
    await heir.start()
    await script.until(lambda: "b" in script.held)
    frozen.wake()
    await script.release("b")
    assert await events.end(job_id) == "completed"
    assert events.names(job_id) == ["created", "completed"]
    assert sorted(await outcome_counts(bus, job_id)) == [0, 1, 2]
    await sleeper.stop()
    await heir.stop()


class FrozenBus:
    """Delivers nothing while frozen, everything when it wakes; a frozen process does not renew either."""

    def __init__(self, bus: Transport) -> None:
        self._bus = bus
        self._awake = True
        self._late: list[tuple[Handler, Sequence[Message]]] = []
        self._subscriptions: list[tuple[ConsumerSpec, Handler, Subscription]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def freeze(self) -> None:
        self._awake = False

    def wake(self) -> None:
        self._awake = True
        for handler, messages in self._late:
            handler(messages)

    async def subscribe(self, spec: ConsumerSpec, handler: Handler, *, credit: int | None = None) -> Subscription:
        def deliver(messages: Sequence[Message]) -> None:
            if self._awake:
                handler(messages)
            else:
                self._late.append((handler, messages))

        shared = ConsumerSpec(spec.stream, spec.name, ack_wait=spec.ack_wait)
        return await self._bus.subscribe(shared, deliver, credit=credit)


async def test_a_stale_oracle_looks_before_it_ignores(bus: Transport, script: Script, events: Events) -> None:
    """O5: a report that reaches an Oracle which has not seen its dispatch is applied, not ignored."""
    script.hold = {"b"}
    await script.start()
    first = BusOracle(bus, KEEP)
    await first.start()
    job_id = await first.submit(definition(LINE))
    await script.until(lambda: "b" in script.held)
    await first.stop()
    assert first._engine is not None
    # An Oracle that loaded the job before b was dispatched: its state is cut back to the first record.
    stale = BusOracle(bus, KEEP)
    await stale.start()
    assert stale._engine is not None
    entries = await records_of(bus, job_id)
    loaded = await stale._engine._loader.load("test", job_id, 2048)
    assert loaded is not None
    job = loaded.job  # type: ignore[union-attr]
    fresh = type(job)(job.spec, job.outline)
    journal = await bus.journal(streams.JOURNAL)
    seqs = [entry.seq async for entry in journal.replay(subjects.journal("test", job_id))]
    fresh.replay(entries[0], seqs[0])
    from gbe_oracle.slots import Slot

    slot = stale._engine._slots[job_id] = Slot("test", job_id)
    slot.job = fresh
    slot.created_at_seq = seqs[0]
    await script.release("b")
    assert await events.end(job_id) == "completed"
    assert stale.load().get("ignored", 0) == 0
    await stale.stop()
