"""`MemoryStateStore`: a bucket of small values."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping

import msgspec

from gbe_nexus import Conflict, Entry, StateStore
from gbe_nexus_memory.timers import Timers

_KEY = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_=./-]{1,512}(?<!\.)")
_fields = msgspec.json.Decoder(dict[str, str])


class Bucket:
    """The entries, shared by all connections to the broker."""

    def __init__(self, ttl: float, clock: Callable[[], float], timers: Timers) -> None:
        self.ttl = ttl
        self._clock = clock
        self._timers = timers
        self._entries: dict[str, Entry] = {}
        self._ends: dict[str, float] = {}
        self._revision = 0

    def get(self, key: str) -> Entry | None:
        """The entry, unless its time is over."""
        if key in self._ends and self._ends[key] <= self._clock():
            self.remove(key)
        return self._entries.get(key)

    def put(self, key: str, value: bytes, ttl: float) -> int:
        """Write; returns the new revision."""
        self._revision += 1
        self._entries[key] = Entry(key, value, self._revision)
        self._ends.pop(key, None)
        if ttl or self.ttl:
            self._ends[key] = end = self._clock() + (ttl or self.ttl)
            self._timers.at(end, self._expire, key, self._revision)
        return self._revision

    def remove(self, key: str) -> None:
        """Forget the entry, if there is one."""
        self._entries.pop(key, None)
        self._ends.pop(key, None)

    def living(self) -> list[str]:
        """Keys of all entries that live."""
        now = self._clock()
        return [key for key in self._entries if self._ends.get(key, now + 1) > now]

    def _expire(self, key: str, revision: int) -> None:
        entry = self._entries.get(key)
        if entry is not None and entry.revision == revision:
            self.remove(key)


class MemoryStateStore(StateStore):
    """One connection's view of a bucket."""

    def __init__(self, bucket: Bucket, check_open: Callable[[], None]) -> None:
        self._bucket = bucket
        self._check_open = check_open

    async def _access(self, key: str) -> Entry | None:
        """The entry as it is after other tasks had a turn, as over a network; what follows is atomic."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key: {key!r} (1 to 512 of A-Za-z0-9_=./-, no dot at an edge, none twice in a row)")
        self._check_open()
        await asyncio.sleep(0)
        return self._bucket.get(key)

    async def get(self, key: str) -> Entry | None:
        """The entry, or None."""
        return await self._access(key)

    async def put(self, key: str, value: bytes, *, ttl: float = 0) -> int:
        """Write unconditionally."""
        await self._access(key)
        return self._bucket.put(key, value, ttl)

    async def create(self, key: str, value: bytes, *, ttl: float = 0) -> int:
        """Write if there is no entry."""
        entry = await self._access(key)
        if entry is not None:
            raise Conflict(f"{key} exists at revision {entry.revision}", entry.revision)
        return self._bucket.put(key, value, ttl)

    async def swap(self, key: str, value: bytes, revision: int, *, ttl: float = 0) -> int:
        """Write if the entry's revision is `revision`."""
        self._check(key, await self._access(key), revision)
        return self._bucket.put(key, value, ttl)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove (only at `revision`, where given)."""
        entry = await self._access(key)
        if revision is not None:
            self._check(key, entry, revision)
        self._bucket.remove(key)

    async def keys(self, prefix: str = "") -> list[str]:
        """Sorted keys that begin with `prefix`."""
        self._check_open()
        return sorted(key for key in self._bucket.living() if key.startswith(prefix))

    async def get_fields(self, key: str) -> dict[str, str]:
        """The entry as a mapping."""
        return _decode(await self._access(key))

    async def set_fields(self, key: str, fields: Mapping[str, str]) -> int:
        """Merge fields into the entry atomically."""
        merged = _decode(await self._access(key)) | dict(fields)
        return self._bucket.put(key, msgspec.json.encode(merged), 0)

    @staticmethod
    def _check(key: str, entry: Entry | None, revision: int) -> None:
        if entry is None:
            raise Conflict(f"{key} has no entry, expected revision {revision}")
        if entry.revision != revision:
            raise Conflict(f"{key} is at revision {entry.revision}, not {revision}", entry.revision)


def _decode(entry: Entry | None) -> dict[str, str]:
    return {} if entry is None else _fields.decode(entry.value)
