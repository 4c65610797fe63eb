"""`StateStore`: small values under keys, with revisions and compare-and-swap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """A value and its revision (increases with each write of the bucket)."""

    key: str
    value: bytes
    revision: int


class StateStore(ABC):
    """A bucket. Keys: `[A-Za-z0-9_=./-]{1,512}`, no dot at an edge, none twice in a row (`ValueError` otherwise).

    Reads see all writes acknowledged before them. Raises `ClosedError` after the transport was closed.
    """

    @abstractmethod
    async def get(self, key: str) -> Entry | None:
        """The entry, or None where there is none, it was deleted, or its time is over."""

    @abstractmethod
    async def put(self, key: str, value: bytes, *, ttl: float = 0) -> int:
        """Write unconditionally; returns the revision. `ttl` in seconds: the entry ends by itself (0 = bucket's)."""

    @abstractmethod
    async def create(self, key: str, value: bytes, *, ttl: float = 0) -> int:
        """Write if there is no entry, else raise `Conflict`."""

    @abstractmethod
    async def swap(self, key: str, value: bytes, revision: int, *, ttl: float = 0) -> int:
        """Write if the entry's revision is `revision`, else raise `Conflict`."""

    @abstractmethod
    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove (only at `revision`, where given, else `Conflict`). A key that isn't there is fine without one.

        Not proof against the death of a server: with nats-server 2.15, a key deleted within minutes of the server's
        SIGKILL was seen to come back with its previous value. What must not come back needs a TTL.
        """

    @abstractmethod
    async def keys(self, prefix: str = "") -> list[str]:
        """Sorted keys that begin with `prefix`."""

    @abstractmethod
    async def get_fields(self, key: str) -> dict[str, str]:
        """The entry as a mapping; empty where there is none."""

    @abstractmethod
    async def set_fields(self, key: str, fields: Mapping[str, str]) -> int:
        """Merge fields into the entry atomically, whoever else does the same; returns the revision."""
