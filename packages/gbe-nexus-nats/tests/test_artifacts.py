"""The object bucket on a real server: large and small, damaged, replaced, left half-way."""

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import nats
import pytest

from gbe_nexus import ClosedError, Conflict, IntegrityError, NexusError, NotFound, PayloadTooLarge, StreamConflict
from gbe_nexus_nats.artifacts import CHUNK, NatsArtifactStore, open_artifact_store
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer
from gbe_nexus_nats.testing import Server, flip_byte

pytestmark = pytest.mark.server


@pytest.fixture
def bucket(unique: Callable[[str], str]) -> str:
    return unique("obj")


@pytest.fixture
async def store(jetstream: Any, bucket: str) -> NatsArtifactStore:
    return await open_artifact_store(jetstream, bucket)


async def messages(jetstream: Any, bucket: str) -> dict[str, int]:
    info = await jetstream.api(f"$JS.API.STREAM.INFO.OBJ_{bucket}", {"subjects_filter": ">"})
    found: dict[str, int] = info["state"].get("subjects") or {}
    return found


async def meta_of(jetstream: Any, bucket: str, key: str) -> dict[str, Any]:
    name = base64.urlsafe_b64encode(key.encode()).decode()
    answer = await jetstream.api(f"$JS.API.STREAM.MSG.GET.OBJ_{bucket}", {"last_by_subj": f"$O.{bucket}.M.{name}"})
    found: dict[str, Any] = msgspec.json.decode(base64.b64decode(answer["message"]["data"]))
    return found


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 64 * 1024 * 1024])
async def test_round_trip(store: NatsArtifactStore, size: int) -> None:
    data = os.urandom(size)
    artifact = await store.put("job_1/out", data, media_type="text/plain")
    assert artifact.size == size
    assert artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert await store.info("job_1/out") == artifact
    assert b"".join([chunk async for chunk in store.get("job_1/out")]) == data
    assert await store.read("job_1/out", limit=size) == data


@pytest.mark.parametrize("size", [1, 1000, 3 * CHUNK + 5])
async def test_from_pieces_of_any_size(store: NatsArtifactStore, size: int) -> None:
    data = os.urandom(size * 7)
    artifact = await store.put("a", pieces(data, size))
    assert artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert await store.read("a", limit=len(data)) == data


async def test_replacing_leaves_nothing_of_the_old(jetstream: Any, bucket: str, store: NatsArtifactStore) -> None:
    await store.put("a", os.urandom(3 * CHUNK))
    await store.put("a", b"new")
    assert await store.read("a", limit=100) == b"new"
    assert sorted((await messages(jetstream, bucket)).values()) == [1, 1]


async def test_many_writers_of_one_key_leave_one(jetstream: Any, bucket: str, store: NatsArtifactStore) -> None:
    contents = [os.urandom(CHUNK + number) for number in range(1, 11)]  # two chunks each
    await asyncio.gather(*(store.put("a", content) for content in contents))
    assert await store.read("a", limit=2 * CHUNK) in contents
    assert sorted((await messages(jetstream, bucket)).values()) == [1, 2]


async def test_missing(store: NatsArtifactStore) -> None:
    assert await store.info("none") is None
    with pytest.raises(NotFound, match="/none"):
        await store.read("none", limit=1)
    with pytest.raises(NotFound, match="/none"):
        async for _ in store.get("none"):
            pass
    await store.delete("none")


async def test_too_large_to_read(store: NatsArtifactStore) -> None:
    await store.put("a", b"12345")
    with pytest.raises(PayloadTooLarge) as caught:
        await store.read("a", limit=4)
    assert (caught.value.size, caught.value.limit) == (5, 4)


async def test_a_flipped_byte_is_found(jetstream: Any, bucket: str, store: NatsArtifactStore) -> None:
    data = os.urandom(2 * CHUNK)
    await store.put("a", data)
    await flip_byte(jetstream, bucket, "a")
    with pytest.raises(IntegrityError, match="does not match its sha256"):
        await store.read("a", limit=len(data))
    chunks = store.get("a")
    assert [await anext(chunks), len(await anext(chunks))] == [data[:CHUNK], CHUNK]
    with pytest.raises(IntegrityError):
        await anext(chunks)


async def test_a_lost_chunk_is_found(jetstream: Any, bucket: str, store: NatsArtifactStore) -> None:
    await store.put("a", os.urandom(3 * CHUNK))
    subject = f"$O.{bucket}.C.{(await meta_of(jetstream, bucket, 'a'))['nuid']}"
    await jetstream.api(f"$JS.API.STREAM.PURGE.OBJ_{bucket}", {"filter": subject, "keep": 2})
    with pytest.raises(IntegrityError, match="2 of 3 chunks"):
        await store.read("a", limit=4 * CHUNK)


async def test_a_put_that_fails_leaves_the_old_one(jetstream: Any, bucket: str, store: NatsArtifactStore) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield os.urandom(CHUNK)
        raise RuntimeError("the source dried up")

    await store.put("a", b"old")
    for key in ("a", "b"):
        with pytest.raises(RuntimeError, match="dried up"):
            await store.put(key, breaks())
    assert await store.read("a", limit=10) == b"old"
    assert await store.keys() == ["a"]
    assert sum((await messages(jetstream, bucket)).values()) == 2


async def test_a_cancelled_put_leaves_the_old_one(jetstream: Any, bucket: str, store: NatsArtifactStore) -> None:
    reached = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield os.urandom(CHUNK)
        reached.set()
        await asyncio.Event().wait()

    await store.put("a", b"old")
    task = asyncio.create_task(store.put("a", stalls()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.read("a", limit=10) == b"old"
    assert sum((await messages(jetstream, bucket)).values()) == 2


async def test_replaced_while_it_is_read(store: NatsArtifactStore) -> None:
    data = os.urandom(100 * CHUNK)
    await store.put("a", data)
    chunks = store.get("a")
    assert await anext(chunks) == data[:CHUNK]
    await store.put("a", b"new")
    with pytest.raises(Conflict, match="replaced while it was read"):
        async for _ in chunks:
            pass
    assert await store.read("a", limit=10) == b"new"


async def test_a_read_that_is_given_up_leaves_no_consumer(
    jetstream: Any, bucket: str, store: NatsArtifactStore
) -> None:
    await store.put("a", os.urandom(100 * CHUNK))
    chunks: Any = store.get("a")
    async with aclosing(chunks):
        await anext(chunks)
    async with asyncio.timeout(10):
        # Nobody waits for the answer to its deletion.
        while (await jetstream.api(f"$JS.API.STREAM.INFO.OBJ_{bucket}"))["state"]["consumer_count"]:
            await asyncio.sleep(0.01)


async def test_keys_and_delete_by_prefix(jetstream: Any, bucket: str, store: NatsArtifactStore) -> None:
    names = ["job_1/a", "job_1/b/c", "job_10/a", "job_2/é ü *.>"]
    for name in names:
        await store.put(name, name.encode())
    assert await store.keys() == sorted(names)
    assert await store.keys("job_1/") == ["job_1/a", "job_1/b/c"]
    assert await store.read(names[3], limit=100) == names[3].encode()
    assert await store.delete_prefix("job_1/") == 2
    assert await store.delete_prefix("job_1/") == 0
    with pytest.raises(ValueError, match="everything"):
        await store.delete_prefix("")
    await store.delete("job_10/a")
    assert await store.keys() == [names[3]]
    assert sum((await messages(jetstream, bucket)).values()) == 2


@pytest.mark.parametrize("key", ["", "a/../b", "..", "a\nb", "x" * 513, "é" * 400])
async def test_keys_are_checked(store: NatsArtifactStore, key: str) -> None:
    with pytest.raises(ValueError, match="artifact key"):
        await store.put(key, b"")
    with pytest.raises(ValueError, match="artifact key"):
        store.get(key)


async def test_the_longest_key(store: NatsArtifactStore) -> None:
    for key in ("x" * 512, "é" * 350):
        await store.put(key, b"1")
        assert await store.read(key, limit=1) == b"1"
        await store.delete(key)
    assert await store.keys() == []


async def test_nats_own_client_reads_it(
    nats_server: EmbeddedServer, jetstream: Any, bucket: str, store: NatsArtifactStore
) -> None:
    data = os.urandom(2 * CHUNK + 1)
    await store.put("job_1/a", data)
    options = nats_server.options
    connection = await nats.connect(nats_server.url, user=options.user, password=options.password)
    theirs = await connection.jetstream().object_store(bucket)
    assert (await theirs.get("job_1/a")).data == data
    await theirs.put("from-there", data)
    assert await store.read("from-there", limit=len(data)) == data
    await theirs.delete("from-there")
    assert await store.info("from-there") is None
    await connection.close()


async def test_a_stream_of_that_name_that_is_no_bucket(jetstream: Any, bucket: str) -> None:
    await jetstream.api(
        f"$JS.API.STREAM.CREATE.OBJ_{bucket}", {"name": f"OBJ_{bucket}", "subjects": [f"other.{bucket}"]}
    )
    with pytest.raises(StreamConflict, match="subjects is"):
        await open_artifact_store(jetstream, bucket)


async def test_closed(nats_server: Server, connected: Any, bucket: str) -> None:
    async with connected(nats_server) as jetstream:
        store = await open_artifact_store(jetstream, bucket)
    for call in (store.put("a", b"1"), store.info("a"), store.read("a", limit=1), store.keys(), store.delete("a")):
        with pytest.raises(ClosedError):
            await call


async def test_small_messages_only(connected: Any) -> None:
    async with EmbeddedServer(max_payload=10_000) as server, connected(server) as jetstream:
        store = await open_artifact_store(jetstream, "small")
        data = os.urandom(100_000)
        await store.put("a", data)
        assert await store.read("a", limit=len(data)) == data


async def test_a_crash_of_the_server_in_the_middle_of_both_ways(
    nats_server_each: EmbeddedServer, connected: Any
) -> None:
    server = nats_server_each
    data = os.urandom(200 * CHUNK)

    async def with_a_crash() -> AsyncIterator[bytes]:
        for start in range(0, len(data), CHUNK):
            if start == 100 * CHUNK:
                await server.kill()
                await server.restart()
            yield data[start : start + CHUNK]

    async with connected(server) as jetstream:
        store = await open_artifact_store(jetstream, "arts")
        await store.put("a", b"old")
        try:
            await store.put("a", with_a_crash())
        except NexusError:
            # The chunks came out of order or not at all; then the old one is there.
            assert await store.read("a", limit=10) == b"old"
            await store.put("a", data)
        received = bytearray()
        async for chunk in store.get("a"):
            received += chunk
            if len(received) == 50 * CHUNK:
                await server.kill()
                await server.restart()
        assert bytes(received) == data


@pytest.mark.cluster
async def test_on_a_cluster_a_put_is_seen_at_once(nats_cluster: EmbeddedCluster, connected: Any) -> None:
    async with connected(nats_cluster) as one, connected(nats_cluster) as other:
        writing = await open_artifact_store(one, "arts")
        reading = await open_artifact_store(other, "arts")
        for number in range(30):
            data = os.urandom(CHUNK + number)
            await writing.put("a", data)
            assert await reading.read("a", limit=2 * CHUNK) == data


async def test_what_a_killed_put_left_is_discarded(
    jetstream: Any, bucket: str, store: NatsArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chunks are there, and nothing says whose they are."""
    await store.put("kept", os.urandom(3 * CHUNK))
    await store.put("empty", b"")

    async def killed(*arguments: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(store, "_put_meta", killed)
        with pytest.raises(asyncio.CancelledError):
            await store.put("lost", os.urandom(2 * CHUNK))
    assert sorted((await messages(jetstream, bucket)).values()) == [1, 1, 2, 3]
    assert await store.discard_abandoned(3600) == 0, "it may still be going on"
    assert await store.discard_abandoned(0) == 1
    assert sorted((await messages(jetstream, bucket)).values()) == [1, 1, 3]
    assert len(await store.read("kept", limit=4 * CHUNK)) == 3 * CHUNK
    assert await store.discard_abandoned(0) == 0
