"""`ArtifactStore`: large values under keys, checked by digest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator

import msgspec


class Artifact(msgspec.Struct, frozen=True):
    """What is stored under a key. `size` in bytes; `sha256` in lower-case hex."""

    store: str
    key: str
    size: int
    sha256: str
    media_type: str = "application/octet-stream"


class ArtifactStore(ABC):
    """A bucket of artifacts. Keys: 1 to 512 printable characters, `/` as separator, no `..` segment (`ValueError`).

    A put that fails half-way leaves the old artifact, or none.
    """

    @abstractmethod
    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], *, media_type: str = "application/octet-stream"
    ) -> Artifact:
        """Store, replacing what was there; memory use is bounded whatever the size."""

    @abstractmethod
    async def info(self, key: str) -> Artifact | None:
        """What is there, or None."""

    @abstractmethod
    def get(self, key: str) -> AsyncIterator[bytes]:
        """The bytes in chunks. Raises `NotFound`; `IntegrityError` at the end where the digest differs."""

    @abstractmethod
    async def read(self, key: str, *, limit: int) -> bytes:
        """All the bytes, digest checked before anything is returned. Raises `PayloadTooLarge` above `limit` bytes."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove it; fine where it isn't there."""

    @abstractmethod
    async def delete_prefix(self, prefix: str) -> int:
        """Remove all whose key begins with `prefix` (not empty); returns how many."""

    async def discard_abandoned(self, older_than: float) -> int:
        """Remove the bytes of puts whose process died before their end, and wrote last so many seconds ago or more;
        returns of how many. Nobody sees those bytes; where a dead put leaves none, there is nothing to do.
        """
        return 0

    @abstractmethod
    async def keys(self, prefix: str = "") -> list[str]:
        """Sorted keys that begin with `prefix`."""
