"""The logs of runs: what is heard while a run goes on, in memory; then the complete log, in a file per run.

A file is a SQLite database that is built once, from what the Operative left, and renamed into place when it is whole;
after that it is only read, and removed when the retention limit says so. A file that can't be read is set aside, and
built again from the artifact where that is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from trinity_gate.database import set_aside
from trinity_gate.entries import DEBUG, Entry, engine_entry

T = TypeVar("T")

log = logging.getLogger(__name__)

LIVE_ENTRIES = 50_000
"""Entries of a running session that are kept as they are heard; beyond that the oldest make room."""

LIVE_BYTES = 16 << 20
"""Bytes of them, as they came."""

BATCH = 5_000

_SCHEMA = """
CREATE TABLE entries(
    idx INTEGER PRIMARY KEY, at TEXT NOT NULL, level INTEGER NOT NULL, event TEXT NOT NULL, entry BLOB NOT NULL
) STRICT;
"""
_INDEXES = (
    "CREATE INDEX by_event ON entries(event, idx)",
    "CREATE INDEX notable ON entries(idx) WHERE level > 0",
)

_encode = msgspec.json.Encoder().encode
_entry = msgspec.json.Decoder(Entry)


class LogDamaged(Exception):
    """A run's log can't be read; its file was set aside."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: from this number or time on, at least of this level, of this event."""

    since: int = 0
    since_time: str | None = None
    level: int = DEBUG
    event: str | None = None

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is one of them, its number aside."""
        return (
            entry.level >= self.level
            and (self.event is None or entry.event == self.event)
            and (self.since_time is None or entry.timestamp >= self.since_time)
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some of them; where to go on; how many entries the run has as far as is known; whether these were the last."""

    entries: list[Entry]
    next: int
    total: int
    at_end: bool


class LiveLog:
    """What is heard of a run's log. Entries come in the order of their numbers, with gaps."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.total = 0
        """How many the session has logged, those that were not heard included."""
        self._sizes: list[int] = []
        self._bytes = 0

    def hear(self, first: int, lines: Sequence[msgspec.Raw], total: int) -> None:
        """Some lines of the engine's, the first of which has that number. What is known already is passed over."""
        known = self.entries[-1].index if self.entries else -1
        for index, line in enumerate(lines, start=first):
            if index <= known:
                continue
            try:
                self.entries.append(engine_entry(index, line))
            except msgspec.DecodeError as error:
                log.warning("a log entry can't be read: %s", error)
                continue
            self._sizes.append(len(bytes(line)))
            self._bytes += self._sizes[-1]
        self.total = max(self.total, total, first + len(lines))
        self._make_room()

    def add(self, entry: Entry) -> None:
        """An entry of the service's own."""
        self.entries.append(entry)
        self._sizes.append(0)
        self.total = max(self.total, entry.index + 1)

    def begin_again(self) -> None:
        """The session was started anew, from its first tick."""
        self.entries.clear()
        self._sizes.clear()
        self._bytes = self.total = 0

    def page(self, wanted: Wanted, limit: int) -> Page:
        """Entries from `wanted.since` on."""
        start = _position(self.entries, wanted.since)
        found: list[Entry] = []
        for entry in islice(self.entries, start, None):
            if wanted.takes(entry):
                if len(found) == limit:
                    return Page(found, found[-1].index + 1, self.total, at_end=False)
                found.append(entry)
        after = self.entries[-1].index + 1 if self.entries else 0
        return Page(found, max(after, wanted.since), self.total, at_end=True)

    def _make_room(self) -> None:
        surplus = len(self.entries) - LIVE_ENTRIES
        drop, size = max(surplus, 0), self._bytes
        while size > LIVE_BYTES and drop < len(self._sizes):
            size -= self._sizes[drop]
            drop += 1
        if drop:
            drop = min(max(drop, LIVE_ENTRIES // 10), len(self.entries))
            self._bytes -= sum(self._sizes[:drop])
            del self.entries[:drop], self._sizes[:drop]


def _position(entries: Sequence[Entry], index: int) -> int:
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle].index < index:
            low = middle + 1
        else:
            high = middle
    return low


class LogFiles:
    """The complete logs in `directory`, one file per run. `max_bytes`: of one log, decompressed; the rest is cut."""

    def __init__(self, directory: Path, *, max_bytes: int = 1 << 30) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="logs-write")
        self._reader = ThreadPoolExecutor(2, thread_name_prefix="logs-read")

    def prepare(self) -> None:
        """Make the directory; remove what a killed service left half-built."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for leftover in self._directory.glob("*.new*"):
            leftover.unlink()

    def download(self, run_id: str) -> Path:
        """Where a log is put until it is built from."""
        return self._directory / f"{run_id}.new.gz"

    async def build(
        self, run_id: str, source: Path | Sequence[Entry], last: Iterable[Entry] = ()
    ) -> tuple[int, int, bool]:
        """Make a run's file of a gzip of the engine's lines (or of entries), and the service's own words after them.

        Returns how many entries it has, its size, and whether nothing was cut or damaged.
        """
        return await self._in(self._writer, lambda: self._build(run_id, source, last))

    def _build(self, run_id: str, source: Path | Sequence[Entry], last: Iterable[Entry]) -> tuple[int, int, bool]:
        draft = self._directory / f"{run_id}.new"
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        reading = _Reading(self._max_bytes)
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as db:
            # It becomes the run's file only when it is whole, so nothing needs to be undone or safe before.
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            db.execute(_SCHEMA)
            entries = reading.lines(source) if isinstance(source, Path) else iter(source)
            count = 0
            while batch := [_row(entry) for entry in islice(entries, BATCH)]:
                db.execute("BEGIN")
                db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", batch)
                db.execute("COMMIT")
                count = batch[-1][0] + 1
            for entry in last:
                db.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)",
                    _row(msgspec.structs.replace(entry, index=count)),
                )
                count += 1
            for statement in _INDEXES:
                db.execute(statement)
        _sync(draft)
        target = self._file(run_id)
        os.replace(draft, target)
        _sync(self._directory)
        return count, target.stat().st_size, reading.whole

    def has(self, run_id: str) -> bool:
        """Whether there is a file of that run."""
        return self._file(run_id).exists()

    async def page(self, run_id: str, wanted: Wanted, limit: int) -> Page:
        """Entries from `wanted.since` on. Raises `FileNotFoundError`, `LogDamaged` (the file is set aside then)."""
        return await self._in(self._reader, lambda: self._page(run_id, wanted, limit))

    def _page(self, run_id: str, wanted: Wanted, limit: int) -> Page:
        path = self._file(run_id)
        if not path.exists():
            raise FileNotFoundError(path.name)
        where, values = ["idx >= ?"], list[object]([wanted.since])
        if wanted.level > DEBUG:
            where.append("level > 0 AND level >= ?")
            values.append(wanted.level)
        if wanted.event is not None:
            where.append("event = ?")
            values.append(wanted.event)
        if wanted.since_time is not None:
            where.append("at >= ?")
            values.append(wanted.since_time)
        sql = f"SELECT entry FROM entries WHERE {' AND '.join(where)} ORDER BY idx LIMIT ?"
        try:
            with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
                total = db.execute("SELECT coalesce(max(idx) + 1, 0) FROM entries").fetchone()[0]
                found = [_entry.decode(row[0]) for row in db.execute(sql, [*values, limit + 1])]
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            stamp = path.stat().st_mtime_ns // 1_000_000 if path.exists() else 0
            with contextlib.suppress(FileNotFoundError):
                moved = set_aside(path, stamp)
                log.error("the log of %s is damaged (%s): set aside as %s", run_id, error, moved.name)
            raise LogDamaged(run_id) from error
        if len(found) > limit:
            return Page(found[:limit], found[limit - 1].index + 1, total, at_end=False)
        return Page(found, max(total, wanted.since), total, at_end=True)

    async def remove(self, run_id: str) -> None:
        """Remove a run's file; fine where there is none."""
        await self._in(self._writer, lambda: self._file(run_id).unlink(missing_ok=True))

    async def close(self) -> None:
        """When what was begun is done."""
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._reader.shutdown)

    def _file(self, run_id: str) -> Path:
        return self._directory / f"{run_id}.sqlite"

    @staticmethod
    def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(pool, work)


def _row(entry: Entry) -> tuple[int, str, int, str, bytes]:
    return entry.index, entry.timestamp, entry.level, entry.event, _encode(entry)


class _Reading:
    """Lines of a compressed log, within the limit; `whole` says whether that was all of it."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self.whole = True

    def lines(self, source: Path) -> Iterator[Entry]:
        index = 0
        with gzip.open(source, "rb") as opened:
            for line in self._limited(opened):
                if not line.strip():
                    continue
                try:
                    yield engine_entry(index, line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    log.warning("entry %d of %s can't be read: %s", index, source.name, error)
                    self.whole = False
                index += 1

    def _limited(self, opened: gzip.GzipFile | BinaryIO) -> Iterator[bytes]:
        try:
            while line := opened.readline(self._left + 1):
                self._left -= len(line)
                if self._left < 0:
                    self.whole = False
                    log.warning("a log is cut: it is larger than the limit")
                    return
                yield line
        except (EOFError, OSError, zlib.error) as error:
            log.warning("a log ends early: %s", error)
            self.whole = False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
