"""`Journal`: an append-only log per subject, written with compare-and-swap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

import msgspec

from gbe_nexus.answers import Answers
from gbe_nexus.errors import NexusError


class JournalEntry(msgspec.Struct, frozen=True, gc=False):
    """One record and its sequence (of the stream: increasing along a subject, not contiguous)."""

    subject: str
    seq: int
    payload: bytes


class Append(msgspec.Struct, frozen=True, gc=False):
    """One record to append: `expected` is the subject's last sequence as the writer knows it (0: none)."""

    subject: str
    payload: bytes
    expected: int


class Journal(ABC):
    """Subjects of one stream as logs. Reads are from the stream's leader: never stale."""

    @abstractmethod
    async def append(self, subject: str, payload: bytes, expected: int) -> int:
        """Append if `expected` is the subject's last sequence (0: it has none); returns the new sequence.

        A lost answer is resolved by the writer's own nonce, so success is reported once and a conflict only
        where another writer was first. Raises `Conflict` (somebody else wrote), `PayloadTooLarge`,
        `StreamFull`, `Unavailable` (the outcome could not be found out: read again before the next append).
        """

    @abstractmethod
    def append_many(self, records: Sequence[Append]) -> Answers[int | NexusError]:
        """Append to several subjects at once, pipelined: written at the call, before anything is awaited.

        Each subject at most once in `records`. One result per record, in order: its sequence, or the error that
        `append` would have raised. Never raises for a single record.
        """

    @abstractmethod
    async def last_many(self, subjects: Sequence[str]) -> dict[str, JournalEntry]:
        """The newest record of each of many subjects (no wildcards); those without one are missing.

        May lag behind the leader by a moment on a cluster: only for what an older answer can't harm.
        """

    @abstractmethod
    async def last(self, subject: str) -> JournalEntry | None:
        """The newest record of the subject (wildcards allowed), or None."""

    @abstractmethod
    async def read(self, seq: int) -> JournalEntry | None:
        """The record at a sequence, or None where it was purged."""

    @abstractmethod
    def replay(self, subject: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        """The subject's records (wildcards allowed) above sequence `after`, in order, to the end as it is now."""

    @abstractmethod
    async def purge(self, subject: str) -> int:
        """Delete all records of the subject; returns how many."""

    @abstractmethod
    async def erase(self, seq: int) -> bool:
        """Delete the record at a sequence; False where there is none."""

    @abstractmethod
    async def subjects(self, pattern: str) -> dict[str, int]:
        """Subjects that match and have records, with how many."""
