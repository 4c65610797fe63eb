"""The suites notice: each scenario here is run on a bus that breaks the clause it is about, and has to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gbe_conformance import (
    ArtifactStoreContract,
    Bus,
    Capabilities,
    ConnectionContract,
    CreditContract,
    DeliveryContract,
    JournalContract,
    PinnedContract,
    PublishingContract,
    StateStoreContract,
    StreamsContract,
)
from gbe_nexus import Transport
from gbe_nexus_memory import Broker, MemoryArtifactStore, MemoryTransport
from gbe_nexus_memory.consumer import Group, MemorySubscription
from gbe_nexus_memory.listener import Listener
from gbe_nexus_memory.message import MemoryMessage
from gbe_nexus_memory.state import Bucket, MemoryStateStore
from gbe_nexus_memory.stream import MemoryStream

QUICK = Capabilities(flip_byte=True, ttl_resolution=0.05, patience=0.4, quiet=0.02, tick=0.05)

Break = Callable[[pytest.MonkeyPatch], None]


def no_duplicates(patch: pytest.MonkeyPatch) -> None:
    """Message ids are ignored."""
    patch.setattr(MemoryStream, "_known", lambda *_: None)


def nothing_is_full(patch: pytest.MonkeyPatch) -> None:
    """Limits are ignored."""
    patch.setattr(MemoryStream, "_make_room", lambda *_: None)


def renewals_are_lost(patch: pytest.MonkeyPatch) -> None:
    """`in_progress` does nothing."""
    patch.setattr(Group, "renew", lambda *_: None)


def delays_are_lost(patch: pytest.MonkeyPatch) -> None:
    """A delayed nak is one without delay."""
    give_back = Group.give_back
    patch.setattr(Group, "give_back", lambda group, lease, _: give_back(group, lease, 0))


def expiry_is_lost(patch: pytest.MonkeyPatch) -> None:
    """What a dead consumer held stays where it is."""
    patch.setattr(Group, "_expire", lambda *_: None)


def credit_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """More comes than was granted."""
    patch.setattr(MemorySubscription, "has_room", property(lambda _: True))


def pins_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """Every member of a pinned group gets something."""
    takers = Group._takers

    def unpinned(group: Group) -> Any:
        group._pin = None
        group._members.rotate(1)
        return takers(group)

    patch.setattr(Group, "_takers", unpinned)


def the_last_word_counts(patch: pytest.MonkeyPatch) -> None:
    """A message can be settled again and again."""
    patch.setattr(MemoryMessage, "settled", property(lambda _: False, lambda *_: None))


def order_is_lost(patch: pytest.MonkeyPatch) -> None:
    """Batches arrive backwards."""
    hand_over = Group._hand_over
    patch.setattr(Group, "_hand_over", lambda group, taker, batch: hand_over(group, taker, batch[::-1]))


def listeners_stay(patch: pytest.MonkeyPatch) -> None:
    """A stopped listener goes on."""

    async def ignored(_: Listener) -> None: ...

    patch.setattr(Listener, "stop", ignored)


def swaps_always_succeed(patch: pytest.MonkeyPatch) -> None:
    """The expectation is ignored."""
    store: Any = MemoryStream.store
    patch.setattr(MemoryStream, "store", lambda stream, *rest: store(stream, *rest[:5], None))
    patch.setattr(MemoryStateStore, "_check", staticmethod(lambda *_: None))


def time_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Entries live for ever."""
    put = Bucket.put

    def forever(bucket: Bucket, key: str, value: bytes, _: float) -> int:
        bucket.ttl = 0
        return put(bucket, key, value, 0)

    patch.setattr(Bucket, "put", forever)


def digests_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """A damaged artifact is handed out."""

    async def unchecked(store: MemoryArtifactStore, key: str) -> AsyncIterator[bytes]:
        for chunk in store._find(key).chunks:
            yield chunk

    patch.setattr(MemoryArtifactStore, "_chunks", unchecked)


Scenario = Callable[[Bus, Transport], Awaitable[None]]


def publishing(name: str) -> Scenario:
    return lambda bus, _: getattr(suite(PublishingContract), name)(bus)


def suite(contract: type[Any]) -> Any:
    """The suite with quick times, and damage done the memory store's way."""

    class Quick(contract):  # type: ignore[misc]
        capabilities = QUICK

        async def flip_byte(self, transport: Transport, bucket: str, key: str) -> None:
            store = await transport.artifact_store(bucket)
            assert isinstance(store, MemoryArtifactStore)
            store.flip_byte(key)

    return Quick()


async def journal_race(bus: Bus, second: Transport) -> None:
    await bus.ensure()
    journals = [await transport.journal(bus.stream) for transport in (bus.transport, second)]
    await suite(JournalContract).test_two_writers_race(bus, *journals)


async def state_race(bus: Bus, second: Transport) -> None:
    stores = [await transport.state_store(bus.token) for transport in (bus.transport, second)]
    await suite(StateStoreContract).test_a_hundred_racing_swaps(*stores)


async def time_to_live(bus: Bus, _: Transport) -> None:
    await suite(StateStoreContract).test_time_to_live(bus, await bus.transport.state_store(bus.token))


async def flipped_byte(bus: Bus, _: Transport) -> None:
    await suite(ArtifactStoreContract).test_flipped_byte(bus, await bus.transport.artifact_store(bus.token))


SCENARIOS: list[tuple[Break, Scenario]] = [
    (no_duplicates, publishing("test_same_message_id_is_stored_once")),
    (nothing_is_full, publishing("test_stream_full_for_some_of_many")),
    (order_is_lost, publishing("test_many_are_stored_in_order")),
    (nothing_is_full, lambda bus, _: suite(StreamsContract).test_newest_per_subject_stay(bus)),
    (renewals_are_lost, lambda bus, _: suite(DeliveryContract).test_in_progress_starts_the_wait_anew(bus)),
    (delays_are_lost, lambda bus, _: suite(DeliveryContract).test_delayed_nak(bus)),
    (expiry_is_lost, lambda bus, second: suite(DeliveryContract).test_dead_consumer_with_a_full_window(bus, second)),
    (the_last_word_counts, lambda bus, _: suite(DeliveryContract).test_the_first_word_counts(bus)),
    (credit_is_ignored, lambda bus, _: suite(CreditContract).test_never_more_than_granted(bus)),
    (pins_are_ignored, lambda bus, second: suite(PinnedContract).test_one_gets_everything(bus, second)),
    (listeners_stay, lambda bus, _: suite(ConnectionContract).test_stopped_listeners_hear_nothing(bus)),
    (swaps_always_succeed, journal_race),
    (swaps_always_succeed, state_race),
    (time_is_ignored, time_to_live),
    (digests_are_ignored, flipped_byte),
]


@pytest.mark.parametrize(
    ("broken", "scenario"), SCENARIOS, ids=[f"{n}-{one[0].__name__}" for n, one in enumerate(SCENARIOS)]
)
async def test_a_broken_bus_is_noticed(broken: Break, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario passes on a bus that holds the contract, and fails on one that does not."""
    await scenario(*make_bus())
    broken(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError)):
        await scenario(*make_bus())


def make_bus() -> tuple[Bus, Transport]:
    broker = Broker(asyncio.get_running_loop())
    return Bus(MemoryTransport(broker), QUICK.patience), MemoryTransport(broker)
