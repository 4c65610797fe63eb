"""The key-value bucket on a real server: what its layout and the server's markers must not spoil."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import nats
import pytest

from gbe_nexus import ClosedError, Conflict, IntegrityError, PubAck, StreamConflict
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer
from gbe_nexus_nats.state import NatsStateStore, open_state_store
from gbe_nexus_nats.testing import Server

pytestmark = pytest.mark.server


@pytest.fixture
async def store(jetstream: Any, unique: Callable[[str], str]) -> NatsStateStore:
    return await open_state_store(jetstream, unique("kv"))


async def test_put_get_delete(store: NatsStateStore) -> None:
    assert await store.get("a") is None
    first = await store.put("a", b"1")
    second = await store.put("a", b"\x00\xff")
    entry = await store.get("a")
    assert entry is not None
    assert (entry.key, entry.value, entry.revision) == ("a", b"\x00\xff", second)
    assert second > first
    await store.delete("a")
    await store.delete("a")
    assert await store.get("a") is None
    assert await store.keys() == []


async def test_create_only_where_there_is_none(store: NatsStateStore) -> None:
    revision = await store.create("a", b"1")
    with pytest.raises(Conflict) as caught:
        await store.create("a", b"2")
    assert caught.value.current == revision
    await store.delete("a")
    assert await store.create("a", b"3") > revision


async def test_swap_hits_and_misses(store: NatsStateStore) -> None:
    revision = await store.put("a", b"1")
    swapped = await store.swap("a", b"2", revision)
    with pytest.raises(Conflict) as caught:
        await store.swap("a", b"3", revision)
    assert caught.value.current == swapped
    for wrong in (0, 7):
        with pytest.raises(Conflict):
            await store.swap("none", b"", wrong)
    entry = await store.get("a")
    assert entry is not None
    assert entry.value == b"2"


async def test_delete_at_a_revision(store: NatsStateStore) -> None:
    old = await store.put("a", b"1")
    new = await store.put("a", b"2")
    for wrong in (old, 0):
        with pytest.raises(Conflict) as caught:
            await store.delete("a", revision=wrong)
        assert caught.value.current == new
    await store.delete("a", revision=new)
    assert await store.get("a") is None
    assert await store.keys() == []
    with pytest.raises(Conflict, match="no entry"):
        await store.delete("a", revision=new)


async def test_one_of_a_hundred_writers_wins(store: NatsStateStore) -> None:
    async def attempt(write: Any) -> bool:
        try:
            await write
        except Conflict:
            return False
        return True

    created = await asyncio.gather(*(attempt(store.create("a", b"%d" % number)) for number in range(100)))
    assert created.count(True) == 1
    entry = await store.get("a")
    assert entry is not None
    assert entry.value == b"%d" % created.index(True)
    swapped = await asyncio.gather(*(attempt(store.swap("a", b"%d" % number, entry.revision)) for number in range(100)))
    assert swapped.count(True) == 1
    entry = await store.get("a")
    assert entry is not None
    assert entry.value == b"%d" % swapped.index(True)


async def test_fields_of_many_writers_are_all_kept(store: NatsStateStore) -> None:
    assert await store.get_fields("a") == {}
    await asyncio.gather(*(store.set_fields("a", {f"n{number}": "é"}) for number in range(30)))
    assert await store.get_fields("a") == {f"n{number}": "é" for number in range(30)}
    await store.set_fields("a", {"n0": "new"})
    assert (await store.get_fields("a"))["n0"] == "new"
    await store.put("a", b"not fields")
    with pytest.raises(IntegrityError, match="something else than fields"):
        await store.get_fields("a")


async def test_keys_by_prefix(store: NatsStateStore) -> None:
    names = ["a", "a.b", "a.b.c", "a.bc", "ab", "b/x=1", "job_1.note"]
    for name in names:
        await store.put(name, b"")
    for prefix in ("", "a", "a.", "a.b", "a.b.", "ab", "b/", "zzz", "a..", ".", "*", ">", "a.*."):
        assert await store.keys(prefix) == sorted(name for name in names if name.startswith(prefix)), prefix


@pytest.mark.parametrize("key", ["", ".a", "a.", "a..b", "a b", "a*", ">", "ä", "a\n", "x" * 513])
async def test_keys_are_checked(store: NatsStateStore, key: str) -> None:
    for call in (store.get(key), store.put(key, b""), store.create(key, b""), store.swap(key, b"", 1)):
        with pytest.raises(ValueError, match="not a key"):
            await call
    with pytest.raises(ValueError, match="not a key"):
        await store.delete(key)


async def test_an_entry_ends_by_itself(store: NatsStateStore) -> None:
    revision = await store.put("a", b"1", ttl=1)
    await store.create("b", b"1", ttl=0.2)
    await store.put("c", b"stays")
    await store.swap("c", b"stays too", (await store.put("c", b"")), ttl=100)
    assert await store.keys() == ["a", "b", "c"]
    async with asyncio.timeout(10):
        while await store.get("a") is not None or await store.get("b") is not None:
            await asyncio.sleep(0.05)
    assert await store.keys() == ["c"]
    with pytest.raises(Conflict, match="no entry"):
        await store.swap("a", b"", revision)
    await store.create("a", b"again")


async def test_a_bucket_with_a_time_to_live(jetstream: Any, unique: Callable[[str], str]) -> None:
    bucket = unique("kv")
    store = await open_state_store(jetstream, bucket, ttl=1)
    await store.put("a", b"1")
    async with asyncio.timeout(10):
        while await store.keys():
            await asyncio.sleep(0.05)
    with pytest.raises(StreamConflict, match="max_age is 1000000000, not 0"):
        await open_state_store(jetstream, bucket)


async def test_markers_of_other_clients_are_no_entries(jetstream: Any, unique: Callable[[str], str]) -> None:
    bucket = unique("kv")
    store = await open_state_store(jetstream, bucket)
    markers: list[Mapping[str, str]] = [
        {"KV-Operation": "DEL"},
        {"KV-Operation": "PURGE", "Nats-Rollup": "sub"},
        {"Nats-Marker-Reason": "MaxAge"},
    ]
    for number, headers in enumerate(markers):
        key = f"k{number}"
        ack = await jetstream.publish(f"$KV.{bucket}.{key}", b"", headers=headers)
        assert await store.get(key) is None
        with pytest.raises(Conflict):
            await store.swap(key, b"", ack.seq + 100)
        assert await store.create(key, b"new") > ack.seq
        entry = await store.get(key)
        assert entry is not None
        assert entry.value == b"new"


async def test_nats_own_client_reads_it(
    nats_server: EmbeddedServer, jetstream: Any, unique: Callable[[str], str]
) -> None:
    bucket = unique("kv")
    store = await open_state_store(jetstream, bucket)
    revision = await store.put("a.b", b"value")
    options = nats_server.options
    connection = await nats.connect(nats_server.url, user=options.user, password=options.password)
    theirs = await connection.jetstream().key_value(bucket)
    entry = await theirs.get("a.b")
    assert (entry.value, entry.revision) == (b"value", revision)
    await theirs.delete("a.b")
    assert await store.get("a.b") is None
    await store.create("a.b", b"back")
    assert (await theirs.get("a.b")).value == b"back"
    await connection.close()


class ForgetfulJetStream:
    """Stores the first write and loses its ack; the server was killed then and does not know the id any more."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def publish(self, *args: Any, **options: Any) -> PubAck:
        ack: PubAck = await self._real.publish(*args, **options)
        if not self.lost:
            self.lost = ack.seq
            raise Conflict(f"wrong last sequence: {ack.seq}", ack.seq)
        return ack


async def test_no_conflict_with_oneself(jetstream: Any, unique: Callable[[str], str]) -> None:
    bucket = unique("kv")
    revision = await (await open_state_store(jetstream, bucket)).put("a", b"1")
    for attempt in ("swap", "create", "delete"):
        forgetful = ForgetfulJetStream(jetstream)
        store = await open_state_store(forgetful, bucket)
        if attempt == "swap":
            revision = await store.swap("a", b"2", revision)
            assert revision == forgetful.lost
        elif attempt == "create":
            assert await store.create("b", b"1") == forgetful.lost
        else:
            await store.delete("a", revision=revision)
            assert await store.get("a") is None


async def test_closed(nats_server: Server, connected: Any, unique: Callable[[str], str]) -> None:
    async with connected(nats_server) as jetstream:
        store = await open_state_store(jetstream, unique("kv"))
    for call in (store.get("a"), store.put("a", b""), store.keys(), store.delete("a"), store.set_fields("a", {})):
        with pytest.raises(ClosedError):
            await call


async def test_a_crash_of_the_server_keeps_what_was_acknowledged(
    nats_server_each: EmbeddedServer, connected: Callable[[Server], AbstractAsyncContextManager[Any]]
) -> None:
    async with connected(nats_server_each) as jetstream:
        store = await open_state_store(jetstream, "kv")
        revisions = {f"k{number}": await store.put(f"k{number}", b"%d" % number) for number in range(50)}
        await store.delete("k0")
        await nats_server_each.kill()
        await nats_server_each.restart()
        async with asyncio.timeout(20):
            while not jetstream.client.live:
                await asyncio.sleep(0.01)
        assert len(await store.keys()) == 49
        for key, revision in revisions.items():
            entry = await store.get(key)
            assert key == "k0" if entry is None else entry.revision == revision


@pytest.mark.cluster
async def test_on_a_cluster_one_wins_and_reads_are_not_stale(nats_cluster: EmbeddedCluster, connected: Any) -> None:
    async with connected(nats_cluster) as one, connected(nats_cluster) as other:
        first = await open_state_store(one, "kv")
        second = await open_state_store(other, "kv")
        revision = await first.create("counter", b"0")
        for number in range(30):
            results = await asyncio.gather(
                *(store.swap("counter", b"%d" % number, revision) for store in (first, second) for _ in range(10)),
                return_exceptions=True,
            )
            won = [result for result in results if isinstance(result, int)]
            assert len(won) == 1
            assert all(isinstance(result, Conflict | int) for result in results)
            revision = won[0]
            entry = await second.get("counter")
            assert entry is not None
            assert entry.revision == revision
