"""O3, O6, O7: an Oracle dies between any two of its steps, or several work at once.

A `Mortal` bus counts what an Oracle does on it (journal appends, publishes, acknowledgements) and cuts the Oracle
off at the n-th step: that step and everything after it never reaches the bus, as with a SIGKILL. Every n is tried.
Real processes and real signals are in `tests/chaos`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from msgspec import structs

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.outcomes import Failed
from gbe_nexus import (
    Answers,
    Append,
    ConsumerSpec,
    Handler,
    Journal,
    Message,
    NexusError,
    Outgoing,
    PubAck,
    Subscription,
    Transport,
)
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import DIAMOND, FAN, LINE, QUICK, Edges, Events, Script, definition, history_of, records_of


class Fate:
    """When it happens. `partly`: of the fatal publish the first half still gets through."""

    def __init__(self, at: int, partly: bool = False) -> None:
        self.left = at
        self.partly = partly
        self.died = asyncio.Event()

    @property
    def dead(self) -> bool:
        return self.died.is_set()

    def step(self) -> bool:
        """Whether this step still happens."""
        if self.dead:
            return False
        self.left -= 1
        if self.left < 0:
            self.died.set()
        return not self.dead


def never() -> Answers[Any]:
    return Answers()


class MortalMessage:
    """Acknowledgements of a dead Oracle do not reach the bus."""

    def __init__(self, message: Message, fate: Fate) -> None:
        self._message = message
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def ack(self) -> None:
        if self._fate.step():
            self._message.ack()

    def nak(self, delay: float = 0.0) -> None:
        if not self._fate.dead:
            self._message.nak(delay)

    def in_progress(self) -> None:
        if not self._fate.dead:
            self._message.in_progress()


class MortalJournal:
    def __init__(self, journal: Journal, fate: Fate) -> None:
        self._journal = journal
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def append_many(self, records: Sequence[Append]) -> Answers[int | NexusError]:
        if not self._fate.step():
            if self._fate.partly and records:
                self._journal.append_many(records[: (len(records) + 1) // 2])
            return never()
        return self._journal.append_many(records)


class MortalBus:
    """What the Oracle gets for its transport."""

    def __init__(self, bus: Transport, fate: Fate) -> None:
        self._bus = bus
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> PubAck:
        return await self._bus.publish(subject, payload, msg_id=msg_id, headers=headers)

    def publish_many(self, messages: Sequence[Outgoing]) -> Answers[PubAck | NexusError]:
        if not self._fate.step():
            if self._fate.partly:
                self._bus.publish_many(messages[: len(messages) // 2])
                self._fate.partly = False
            return never()
        return self._bus.publish_many(messages)

    async def journal(self, stream: str) -> Journal:
        return MortalJournal(await self._bus.journal(stream), self._fate)  # type: ignore[return-value]

    async def subscribe(self, spec: ConsumerSpec, handler: Handler, *, credit: int | None = None) -> Subscription:
        def mortal(messages: Sequence[Message]) -> None:
            if not self._fate.dead:
                handler([MortalMessage(message, self._fate) for message in messages])

        return await self._bus.subscribe(spec, mortal, credit=credit)


async def mortal_oracle(bus: Transport, fate: Fate) -> BusOracle:
    role = BusOracle(MortalBus(bus, fate), HASTY)  # type: ignore[arg-type]
    await role.start()
    return role


async def bury(role: BusOracle) -> None:
    """Take a dead Oracle's subscription away without a word, as the end of its process does."""
    assert role._subscription is not None
    await role._subscription.stop()


async def outcome_counts(bus: Transport, job_id: str) -> list[int]:
    """How often each task index has an outcome in the journal."""
    return [outcome.index for record in await records_of(bus, job_id) for outcome in record.outcomes]


KEEP = structs.replace(QUICK, purge_after=60.0)
HASTY = structs.replace(QUICK, stop_grace=0.0)


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
        ended = asyncio.ensure_future(events.end(job_id))
        died = asyncio.ensure_future(fate.died.wait())
        await asyncio.wait({ended, died}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        await bury(victim)
        heir = BusOracle(bus, KEEP)
        await heir.start()
        assert await ended == ("failed" if failing else "completed"), f"step {at}"
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
        died.cancel()
        await heir.stop()
        await victim.stop()
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


class UnpinnedBus:
    """A bus whose Oracles share the inbox instead of taking turns."""

    def __init__(self, bus: Transport) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def subscribe(self, spec: ConsumerSpec, handler: Handler, *, credit: int | None = None) -> Subscription:
        shared = ConsumerSpec(spec.stream, "oracle-shared", ack_wait=spec.ack_wait)
        subscription = await self._bus.subscribe(shared, one_by_one(handler, lambda: subscription.grant(1)), credit=1)
        return subscription


def one_by_one(handler: Handler, more: Callable[[], None]) -> Handler:
    def handle(messages: Sequence[Message]) -> None:
        handler(messages)
        more()

    return handle


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
