"""`MemoryJournal`: the subjects of one stream as logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from gbe_nexus import Append, Journal, JournalEntry, NexusError, Refused
from gbe_nexus.answers import Answers
from gbe_nexus_memory.broker import Broker, answered
from gbe_nexus_memory.stream import MemoryStream, Stored


class MemoryJournal(Journal):
    """Appends through the broker, like any publish; reads straight from the stream."""

    def __init__(self, broker: Broker, stream: MemoryStream, check_open: Callable[[], None]) -> None:
        self._broker = broker
        self._stream = stream
        self._check_open = check_open

    async def append(self, subject: str, payload: bytes, expected: int) -> int:
        """Append if `expected` is the subject's last sequence."""
        self._check_open()
        seq = self._append(subject, payload, expected)
        await asyncio.sleep(0)  # whoever races for the subject gets a turn, as over a network
        return seq

    def append_many(self, records: Sequence[Append]) -> Answers[int | NexusError]:
        """Append to several subjects; all is written when this returns, the results come with the loop's next turn."""
        self._check_open()
        results: list[int | NexusError] = []
        for record in records:
            try:
                results.append(self._append(record.subject, record.payload, record.expected))
            except NexusError as error:
                results.append(error)
        return answered(self._broker.loop, results)

    def _append(self, subject: str, payload: bytes, expected: int) -> int:
        if not self._stream.matches(subject):
            raise Refused(f"{subject} is no subject of stream {self._stream.spec.name}")
        return self._broker.publish(subject, payload, None, None, expected).seq

    async def last_many(self, subjects: Sequence[str]) -> dict[str, JournalEntry]:
        """The newest record of each subject."""
        self._check_open()
        newest = {subject: self._stream.newest(subject) for subject in subjects}
        await asyncio.sleep(0)
        return {subject: _entry(stored) for subject, stored in newest.items() if stored is not None}

    async def last(self, subject: str) -> JournalEntry | None:
        """The newest record of the subject."""
        self._check_open()
        stored = self._stream.newest(subject)
        await asyncio.sleep(0)
        return None if stored is None else _entry(stored)

    async def read(self, seq: int) -> JournalEntry | None:
        """The record at a sequence."""
        self._check_open()
        stored = self._stream.messages.get(seq)
        return None if stored is None else _entry(stored)

    async def replay(self, subject: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        """The subject's records above `after`, to the end as it is at the first step."""
        self._check_open()
        records = self._stream.select(subject, after)
        await asyncio.sleep(0)
        for stored in records:
            yield _entry(stored)

    async def purge(self, subject: str) -> int:
        """Delete all records of the subject."""
        self._check_open()
        return self._stream.purge(subject)

    async def erase(self, seq: int) -> bool:
        """Delete one record."""
        self._check_open()
        stored = self._stream.messages.get(seq)
        if stored is not None:
            self._stream.remove(stored)
        return stored is not None

    async def subjects(self, pattern: str) -> dict[str, int]:
        """Subjects that match and have records."""
        self._check_open()
        return self._stream.subjects(pattern)


def _entry(stored: Stored) -> JournalEntry:
    return JournalEntry(stored.subject, stored.seq, stored.payload)
