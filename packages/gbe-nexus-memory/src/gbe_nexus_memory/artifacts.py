"""`MemoryArtifactStore`: large values in chunks, checked by digest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable

from gbe_nexus import Artifact, ArtifactStore, IntegrityError, NotFound, PayloadTooLarge

CHUNK = 128 * 1024
"""Bytes per chunk, as handed out by `get`."""


class Held:
    """An artifact and its bytes."""

    __slots__ = ("artifact", "chunks")

    def __init__(self, artifact: Artifact, chunks: list[bytes]) -> None:
        self.artifact = artifact
        self.chunks = chunks


class MemoryArtifactStore(ArtifactStore):
    """One connection's view of a bucket of artifacts."""

    def __init__(self, name: str, held: dict[str, Held], check_open: Callable[[], None]) -> None:
        self._name = name
        self._held = held
        self._check_open = check_open

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], *, media_type: str = "application/octet-stream"
    ) -> Artifact:
        """Store, replacing what was there once all of it has come."""
        self._check(key)
        digest = hashlib.sha256()
        chunks: list[bytes] = []
        size = 0
        async for chunk in _rechunk(data):
            digest.update(chunk)
            chunks.append(chunk)
            size += len(chunk)
            await asyncio.sleep(0)  # hashing is work: others have their turn
        self._check_open()
        artifact = Artifact(self._name, key, size, digest.hexdigest(), media_type)
        self._held[key] = Held(artifact, chunks)
        return artifact

    async def info(self, key: str) -> Artifact | None:
        """What is there, or None."""
        self._check(key)
        held = self._held.get(key)
        return None if held is None else held.artifact

    def get(self, key: str) -> AsyncIterator[bytes]:
        """The bytes in chunks, the digest checked at the end."""
        self._check(key)
        return self._chunks(key)

    async def _chunks(self, key: str) -> AsyncIterator[bytes]:
        held = self._find(key)
        digest = hashlib.sha256()
        for chunk in tuple(held.chunks):
            digest.update(chunk)
            yield chunk
            await asyncio.sleep(0)
        if digest.hexdigest() != held.artifact.sha256:
            raise IntegrityError(f"artifact {self._name}/{key} does not match its sha256")

    async def read(self, key: str, *, limit: int) -> bytes:
        """All the bytes, checked."""
        self._check(key)
        size = self._find(key).artifact.size
        if size > limit:
            raise PayloadTooLarge(size, limit, f"artifact {self._name}/{key}")
        return b"".join([chunk async for chunk in self._chunks(key)])

    async def delete(self, key: str) -> None:
        """Remove it; fine where it isn't there."""
        self._check(key)
        self._held.pop(key, None)

    async def delete_prefix(self, prefix: str) -> int:
        """Remove all whose key begins with `prefix`."""
        if not prefix:
            raise ValueError("an empty prefix would delete everything")
        keys = await self.keys(prefix)
        for key in keys:
            del self._held[key]
        return len(keys)

    async def keys(self, prefix: str = "") -> list[str]:
        """Sorted keys that begin with `prefix`."""
        self._check_open()
        return sorted(key for key in self._held if key.startswith(prefix))

    def flip_byte(self, key: str, offset: int = 0) -> None:
        """Damage one stored byte without touching the digest: for tests of what reads a damaged artifact."""
        chunks = self._find(key).chunks
        index, position = divmod(offset, CHUNK)
        damaged = bytearray(chunks[index])
        damaged[position] ^= 0xFF
        chunks[index] = bytes(damaged)

    def _find(self, key: str) -> Held:
        held = self._held.get(key)
        if held is None:
            raise NotFound(f"no artifact {self._name}/{key}")
        return held

    def _check(self, key: str) -> None:
        if not 1 <= len(key) <= 512 or not key.isprintable() or ".." in key.split("/"):
            raise ValueError(f"not an artifact key: {key!r} (1 to 512 printable characters, no `..` segment)")
        self._check_open()


async def _rechunk(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in chunks of one size."""
    if isinstance(data, bytes | bytearray | memoryview):
        for start in range(0, len(data), CHUNK):
            yield bytes(data[start : start + CHUNK])
        return
    rest = bytearray()
    async for piece in data:
        rest += piece
        while len(rest) >= CHUNK:
            yield bytes(rest[:CHUNK])
            del rest[:CHUNK]
    if rest:
        yield bytes(rest)
