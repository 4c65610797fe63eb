"""`ArtifactStoreContract`: large values, checked by digest."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest

from gbe_conformance.contract import Bus, Contract
from gbe_conformance.state import refused
from gbe_nexus import Artifact, ArtifactStore, ClosedError, IntegrityError, NotFound, PayloadTooLarge, Transport

ODD_KEYS = [
    "a",
    "job_1/out put.txt",
    "a/b/c",
    "Käse/📦",
    "a.b",
    "...",
    "a/..b/c..",
    "*",
    ">",
    "a=b&c?d#e%20",
    "x" * 512,
]
BAD_KEYS = ["", "..", "../a", "a/../b", "a/..", "a\nb", "a\x00b", "x" * 513]


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """Bytes as they come from elsewhere."""
    for part in parts:
        yield part


class ArtifactStoreContract(Contract):
    """N10. Subclass it as `Test…` and give the fixture `connect`; with the capability `flip_byte`, that as well."""

    @pytest.fixture
    async def store(self, bus: Bus) -> ArtifactStore:
        """A bucket of this test's own."""
        return await bus.transport.artifact_store(bus.token)

    async def test_round_trip(self, bus: Bus, store: ArtifactStore) -> None:
        """N10: 0 bytes, 1 byte, several chunks → the same bytes with size and sha256, in chunks and whole."""
        for size in (0, 1, 1000, 128 * 1024, 128 * 1024 + 1, 3_000_000):
            data = (bytes(range(251)) * (size // 251 + 1))[:size]
            key = f"key{size}"
            artifact = await store.put(key, data, media_type="text/plain")
            assert artifact == Artifact(bus.token, key, size, hashlib.sha256(data).hexdigest(), "text/plain")
            assert await store.info(key) == artifact
            assert b"".join([chunk async for chunk in store.get(key)]) == data
            assert await store.read(key, limit=size) == data

    async def test_large(self, store: ArtifactStore) -> None:
        """N10: 64 MiB, put and read in pieces, the sha256 checked."""
        piece = bytes(range(256)) * 4096
        count = self.capabilities.big // len(piece)
        digest = hashlib.sha256()

        async def source() -> AsyncIterator[bytes]:
            for n in range(count):
                part = n.to_bytes(8, "big") + piece[8:]
                digest.update(part)
                yield part

        artifact = await store.put("big", source())
        assert (artifact.size, artifact.sha256) == (count * len(piece), digest.hexdigest())
        back, size, largest = hashlib.sha256(), 0, 0
        async for chunk in store.get("big"):
            back.update(chunk)
            size += len(chunk)
            largest = max(largest, len(chunk))
        assert (size, back.hexdigest()) == (artifact.size, artifact.sha256)
        assert largest <= 4 * 1024 * 1024, "chunks, not the whole"
        await store.delete("big")

    async def test_pieces_of_any_size(self, store: ArtifactStore) -> None:
        """An iterator may give any pieces, empty ones too; what comes back is their sum."""
        parts = [b"", b"a", b"b" * 200_000, b"", b"c" * 131_072, b"d"]
        artifact = await store.put("key", pieces(*parts))
        assert artifact.size == sum(map(len, parts))
        assert await store.read("key", limit=1_000_000) == b"".join(parts)
        assert (await store.put("empty", pieces())).size == 0

    async def test_flipped_byte(self, bus: Bus, store: ArtifactStore) -> None:
        """N10: a flipped byte → an integrity error, not wrong data."""
        self.need("flip_byte")
        await store.put("key", b"x" * 1000)
        await self.flip_byte(bus.transport, bus.token, "key")
        with pytest.raises(IntegrityError):
            await store.read("key", limit=1000)
        with pytest.raises(IntegrityError):
            async for _ in store.get("key"):
                pass

    async def test_missing(self, store: ArtifactStore) -> None:
        """N10: missing key → not found; `info` says None; deleting it is fine."""
        assert await store.info("missing") is None
        with pytest.raises(NotFound):
            await store.read("missing", limit=10)
        with pytest.raises(NotFound):
            async for _ in store.get("missing"):
                pass
        await store.delete("missing")

    async def test_read_has_a_limit(self, store: ArtifactStore) -> None:
        """`read` above its limit → `PayloadTooLarge` with size and limit."""
        await store.put("key", b"x" * 1001)
        with pytest.raises(PayloadTooLarge) as refusal:
            await store.read("key", limit=1000)
        assert (refusal.value.size, refusal.value.limit) == (1001, 1000)

    async def test_replace(self, store: ArtifactStore) -> None:
        """A put replaces what was there, shorter or longer."""
        for data in (b"first" * 100_000, b"second", b"third" * 50_000, b""):
            artifact = await store.put("key", data)
            assert await store.info("key") == artifact
            assert await store.read("key", limit=1_000_000) == data
        assert await store.keys() == ["key"]

    async def test_put_that_fails(self, store: ArtifactStore) -> None:
        """A put that fails half-way leaves the old artifact, or none."""

        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * 300_000
            raise RuntimeError("the source broke")

        await store.put("old", b"old")
        for key in ("old", "new"):
            with pytest.raises(RuntimeError, match="the source broke"):
                await store.put(key, broken())
        assert await store.read("old", limit=10) == b"old"
        assert await store.info("new") is None
        assert await store.keys() == ["old"]

    async def test_delete(self, store: ArtifactStore) -> None:
        """Deleted → as if it had never been; a new one may come."""
        await store.put("key", b"1")
        await store.delete("key")
        assert await store.info("key") is None
        assert await store.keys() == []
        with pytest.raises(NotFound):
            await store.read("key", limit=10)
        await store.put("key", b"2")
        assert await store.read("key", limit=10) == b"2"

    async def test_keys_and_delete_prefix(self, store: ArtifactStore) -> None:
        """`keys`: sorted, by prefix; `delete_prefix`: those and no others, an empty prefix never."""
        assert await store.keys() == []
        for key in ("job_1/b", "job_1/a", "job_10/a", "job_2/a"):
            await store.put(key, key.encode())
        assert await store.keys() == ["job_1/a", "job_1/b", "job_10/a", "job_2/a"]
        assert await store.keys("job_1/") == ["job_1/a", "job_1/b"]
        assert await store.delete_prefix("job_1/") == 2
        assert await store.delete_prefix("job_1/") == 0
        assert await store.keys() == ["job_10/a", "job_2/a"]
        with pytest.raises(ValueError):  # noqa: PT011 - its text is the implementation's
            await store.delete_prefix("")
        assert await store.read("job_10/a", limit=100) == b"job_10/a"

    async def test_odd_keys(self, store: ArtifactStore) -> None:
        """Every key the contract allows is a key, and they are all different ones."""
        for key in ODD_KEYS:
            await store.put(key, key.encode())
        for key in ODD_KEYS:
            assert await store.read(key, limit=10_000) == key.encode()
        assert await store.keys() == sorted(ODD_KEYS)

    async def test_bad_keys(self, store: ArtifactStore) -> None:
        """Everything else is a `ValueError`, whatever is asked."""
        for key in BAD_KEYS:
            for call in (store.put(key, b""), store.info(key), store.read(key, limit=1), store.delete(key)):
                assert await refused(call), f"{key!r}: {call}"
            with pytest.raises(ValueError):  # noqa: PT011 - its text is the implementation's
                async for _ in store.get(key):
                    pass

    async def test_connections_share(self, bus: Bus, store: ArtifactStore, second: Transport) -> None:
        """What one connection stored another one reads."""
        artifact = await store.put("key", b"x" * 300_000)
        other = await second.artifact_store(bus.token)
        assert await other.info("key") == artifact
        assert await other.read("key", limit=300_000) == b"x" * 300_000

    async def test_buckets_are_apart(self, bus: Bus, store: ArtifactStore) -> None:
        """The same key in two buckets is two artifacts."""
        other = await bus.transport.artifact_store(bus.token + "B")
        await store.put("key", b"1")
        assert await other.info("key") is None
        assert await other.keys() == []

    async def test_closed(self, bus: Bus, store: ArtifactStore) -> None:
        """After close of its transport → `ClosedError`."""
        await store.put("key", b"1")
        await bus.transport.close()
        for call in (
            store.put("key", b""),
            store.info("key"),
            store.read("key", limit=1),
            store.delete("key"),
            store.delete_prefix("k"),
            store.keys(),
        ):
            with pytest.raises(ClosedError):
                await call
        with pytest.raises(ClosedError):
            async for _ in store.get("key"):
                pass
