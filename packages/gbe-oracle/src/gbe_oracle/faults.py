"""For tests of an Oracle: buses on which it dies between any two of its steps, or has no place of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import structs

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
from gbe_oracle.testing import QUICK, records_of

KEEP = structs.replace(QUICK, purge_after=60.0)
HASTY = structs.replace(QUICK, stop_grace=0.0)


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


@contextlib.asynccontextmanager
async def inherited(bus: Transport, fate: Fate, victim: BusOracle, ended: Awaitable[str]) -> AsyncIterator[str]:
    """How the job ended: `victim` died of its fate before that, or didn't; another Oracle has taken its place."""
    end = asyncio.ensure_future(ended)
    died = asyncio.ensure_future(fate.died.wait())
    await asyncio.wait({end, died}, return_when=asyncio.FIRST_COMPLETED)
    await bury(victim)
    heir = BusOracle(bus, KEEP)
    await heir.start()
    try:
        yield await end
    finally:
        died.cancel()
        await heir.stop()
        await victim.stop()


async def outcome_counts(bus: Transport, job_id: str) -> list[int]:
    """How often each task index has an outcome in the journal."""
    return [outcome.index for record in await records_of(bus, job_id) for outcome in record.outcomes]


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
