"""`StateStoreContract`: small values, compare-and-swap, times to live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from gbe_conformance.contract import Bus, Contract
from gbe_conformance.inbox import until
from gbe_nexus import ClosedError, Conflict, Entry, StateStore, Transport

ODD_KEYS = ["a", "A=b", "with/slash", "a.b-c_d=/e", "_", "=", "-x-", "/lead", "trail/", "0" * 512, "task_1/note.v2"]
BAD_KEYS = ["", ".", ".a", "a.", "a..b", "a b", "a*", "a>b", "ä", "a\n", "a:b", "x" * 513]


async def refused(call: Awaitable[object]) -> bool:
    """Whether a call's key is refused as none, before anything else."""
    try:
        await call
    except ValueError:
        return True
    return False


class StateStoreContract(Contract):
    """N9. Subclass it as `Test…` and give the fixture `connect`."""

    @pytest.fixture
    async def store(self, bus: Bus) -> StateStore:
        """A bucket of this test's own."""
        return await bus.transport.state_store(bus.token)

    @pytest.fixture
    async def rival(self, bus: Bus, store: StateStore, second: Transport) -> StateStore:
        """The same bucket over another connection."""
        return await second.state_store(bus.token)

    async def test_put_get_delete(self, store: StateStore) -> None:
        """N9: put → get gives value and revision; delete → None; deleting again is fine."""
        assert await store.get("key") is None
        first = await store.put("key", b"1")
        assert await store.get("key") == Entry("key", b"1", first)
        second = await store.put("key", b"2")
        assert second > first
        assert await store.get("key") == Entry("key", b"2", second)
        await store.delete("key")
        assert await store.get("key") is None
        await store.delete("key")
        await store.delete("never")

    async def test_values_are_bytes(self, store: StateStore) -> None:
        """Any bytes, none at all included: an empty value is not a missing one."""
        await store.put("all", bytes(range(256)))
        revision = await store.put("none", b"")
        everything = await store.get("all")
        assert everything is not None
        assert everything.value == bytes(range(256))
        assert await store.get("none") == Entry("none", b"", revision)

    async def test_reads_see_acknowledged_writes(self, store: StateStore, rival: StateStore) -> None:
        """A write that was acknowledged is seen by every read that follows, from anywhere."""
        for n in range(30):
            revision = await store.put("key", b"%d" % n)
            assert await rival.get("key") == Entry("key", b"%d" % n, revision)

    async def test_create(self, store: StateStore) -> None:
        """N9: create → written where there is no entry, else `Conflict`; a deleted one is none."""
        await store.create("key", b"1")
        with pytest.raises(Conflict):
            await store.create("key", b"2")
        await store.delete("key")
        revision = await store.create("key", b"3")
        assert await store.get("key") == Entry("key", b"3", revision)

    async def test_swap(self, store: StateStore) -> None:
        """N9: compare-and-swap hit and miss."""
        first = await store.put("key", b"1")
        second = await store.swap("key", b"2", first)
        assert second > first
        with pytest.raises(Conflict):
            await store.swap("key", b"3", first)
        with pytest.raises(Conflict):
            await store.swap("key", b"3", second + 1)
        assert await store.get("key") == Entry("key", b"2", second)

    async def test_swap_needs_an_entry(self, store: StateStore) -> None:
        """N9: swap where there is no entry, or none any more → `Conflict`, whatever revision is remembered."""
        with pytest.raises(Conflict):
            await store.swap("never", b"1", 1)
        revision = await store.put("key", b"1")
        await store.delete("key")
        for guess in (revision, revision + 1):
            with pytest.raises(Conflict):
                await store.swap("key", b"2", guess)
        assert await store.get("key") is None

    async def test_delete_at_a_revision(self, store: StateStore) -> None:
        """N9: delete at the entry's revision → gone; at another one, or without an entry → `Conflict`."""
        first = await store.put("key", b"1")
        second = await store.put("key", b"2")
        with pytest.raises(Conflict):
            await store.delete("key", revision=first)
        assert await store.get("key") == Entry("key", b"2", second)
        await store.delete("key", revision=second)
        assert await store.get("key") is None
        with pytest.raises(Conflict):
            await store.delete("key", revision=second)

    async def test_a_hundred_racing_swaps(self, store: StateStore, rival: StateStore) -> None:
        """N9: a hundred racing writers → exactly one wins."""
        revision = await store.put("key", b"start")
        results = await asyncio.gather(
            *((store, rival)[n % 2].swap("key", b"%d" % n, revision) for n in range(100)), return_exceptions=True
        )
        winners = [n for n, result in enumerate(results) if isinstance(result, int)]
        assert len(winners) == 1
        assert all(isinstance(result, Conflict) for n, result in enumerate(results) if n not in winners)
        entry = await store.get("key")
        assert entry is not None
        assert entry.value == b"%d" % winners[0]

    async def test_racing_creates(self, store: StateStore, rival: StateStore) -> None:
        """N9: twenty racing creates → exactly one wins."""
        results = await asyncio.gather(
            *((store, rival)[n % 2].create("key", b"%d" % n) for n in range(20)), return_exceptions=True
        )
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 19

    async def test_keys(self, store: StateStore) -> None:
        """N9: scan by prefix: sorted, only what begins with it, nothing that was deleted."""
        assert await store.keys() == []
        for key in ("b", "a.2", "a.1", "ab", "c/x"):
            await store.put(key, b"")
        await store.put("a.3", b"")
        await store.delete("a.3")
        assert await store.keys() == ["a.1", "a.2", "ab", "b", "c/x"]
        assert await store.keys("a") == ["a.1", "a.2", "ab"]
        assert await store.keys("a.") == ["a.1", "a.2"]
        assert await store.keys("a.1") == ["a.1"]
        assert await store.keys("nothing") == []

    async def test_many_keys(self, store: StateStore) -> None:
        """A thousand keys are all listed."""
        await asyncio.gather(*(store.put(f"k.{n:04}", b"x") for n in range(1000)))
        assert await store.keys("k.") == [f"k.{n:04}" for n in range(1000)]

    async def test_odd_keys(self, store: StateStore) -> None:
        """Every key the contract allows is a key, and they are all different ones."""
        for key in ODD_KEYS:
            await store.put(key, key.encode())
        for key in ODD_KEYS:
            entry = await store.get(key)
            assert entry is not None
            assert (entry.key, entry.value) == (key, key.encode())
        assert await store.keys() == sorted(ODD_KEYS)

    async def test_bad_keys(self, store: StateStore) -> None:
        """Everything else is a `ValueError`, whatever is asked."""
        for key in BAD_KEYS:
            for call in (
                store.get(key),
                store.put(key, b""),
                store.create(key, b""),
                store.swap(key, b"", 1),
                store.delete(key),
                store.get_fields(key),
                store.set_fields(key, {}),
            ):
                assert await refused(call), f"{key!r}: {call}"

    async def test_fields(self, store: StateStore) -> None:
        """N9: fields merge into what is there; an entry that isn't is an empty mapping."""
        assert await store.get_fields("key") == {}
        first = await store.set_fields("key", {"a": "1", "b": "2"})
        second = await store.set_fields("key", {"b": "zwei ✓", "c": ""})
        assert second > first
        assert await store.get_fields("key") == {"a": "1", "b": "zwei ✓", "c": ""}
        await store.delete("key")
        assert await store.get_fields("key") == {}
        await store.set_fields("key", {"d": "4"})
        assert await store.get_fields("key") == {"d": "4"}

    async def test_racing_fields(self, store: StateStore, rival: StateStore) -> None:
        """N9: twenty writers merge a field each → all of them are there."""
        await asyncio.gather(*((store, rival)[n % 2].set_fields("key", {f"f{n}": str(n)}) for n in range(20)))
        assert await store.get_fields("key") == {f"f{n}": str(n) for n in range(20)}

    async def test_time_to_live(self, bus: Bus, store: StateStore) -> None:
        """N9: an entry with a time to live ends by itself, not before; all others stay; its key is free again.

        A later write without one ends the time of the earlier write. In a bucket with a time to live every entry ends.
        """
        loop = asyncio.get_running_loop()
        ttl = max(self.capabilities.ttl_resolution, 0.2)
        brief = await bus.transport.state_store(bus.token + "T", ttl=ttl)
        start = loop.time()
        await store.put("stays", b"1")
        await store.put("put", b"1", ttl=ttl)
        await store.create("created", b"1", ttl=ttl)
        await store.swap("swapped", b"2", await store.put("swapped", b"1"), ttl=ttl)
        kept = await store.swap("kept", b"2", await store.put("kept", b"1", ttl=ttl))
        await brief.put("any", b"1")
        assert await store.keys() == ["created", "kept", "put", "stays", "swapped"]
        assert await brief.keys() == ["any"]

        async def ended() -> bool:
            gone = [await store.get(key) is None for key in ("put", "created", "swapped")]
            if any(gone):
                assert loop.time() - start >= ttl * 0.9
            return all(gone) and await brief.get("any") is None

        await until(ended, ttl + self.capabilities.ttl_resolution + self.patience / 2)
        assert await store.keys() == ["kept", "stays"]
        assert await brief.keys() == []
        assert await store.get("kept") == Entry("kept", b"2", kept)
        await store.create("put", b"2")

    async def test_buckets_are_apart(self, bus: Bus, store: StateStore) -> None:
        """The same key in two buckets is two entries."""
        other = await bus.transport.state_store(bus.token + "B")
        await store.put("key", b"1")
        assert await other.get("key") is None
        await other.put("key", b"2")
        assert (await store.get_fields("nothing"), await other.keys()) == ({}, ["key"])

    async def test_closed(self, bus: Bus, store: StateStore) -> None:
        """N9: closed store → `ClosedError`."""
        await bus.transport.close()
        for call in (
            store.get("key"),
            store.put("key", b""),
            store.create("key", b""),
            store.swap("key", b"", 1),
            store.delete("key"),
            store.keys(),
            store.get_fields("key"),
            store.set_fields("key", {"a": "b"}),
        ):
            with pytest.raises(ClosedError):
                await call
