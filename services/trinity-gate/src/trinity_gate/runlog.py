"""The logs of runs: what is heard while a run goes on, in memory; then the complete log, in a file per run.

A file is a SQLite database that is built once, from what the Operative left, and renamed into place when it is whole;
after that it is only read, and removed when the retention limit says so. It holds the engine's lines in compressed
blocks, each with what it takes to skip it: the highest level and the events in it. A file that can't be read is set
aside, and built again from the artifact where that is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
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
from typing import Final, TypeVar

import msgspec

from trinity_gate.database import set_aside
from trinity_gate.entries import DEBUG, Entry, engine_entry
from trinity_gate.files import sync_directory

T = TypeVar("T")

log = logging.getLogger(__name__)

LIVE_ENTRIES: Final = 20_000
"""Entries of a running session that are kept as they are heard; beyond that the oldest make room."""

LIVE_BYTES: Final = 16 << 20
"""Bytes of them, as they came."""

BLOCK: Final = 512
"""Lines in a block."""

_SCHEMA = """
CREATE TABLE blocks(
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, level INTEGER NOT NULL, events TEXT NOT NULL,
    until TEXT NOT NULL, lines BLOB NOT NULL
) STRICT
"""

Line = tuple[int, bytes]
"""An entry's number in the run, and the engine's JSON."""


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
        """Whether the entry is one of them."""
        return (
            entry.index >= self.since
            and entry.level >= self.level
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
        self.total = 0
        """How many the session has logged, those that were not heard included."""
        self._entries: list[Entry] = []
        self._lines: list[bytes] = []
        self._bytes = 0

    def hear(self, first: int, lines: Sequence[msgspec.Raw], total: int) -> None:
        """Some lines of the engine's, the first of which has that number. What is known already is passed over."""
        known = self._entries[-1].index if self._entries else -1
        for index, raw in enumerate(lines, start=first):
            if index <= known:
                continue
            line = bytes(raw)
            try:
                self._entries.append(engine_entry(index, line))
            except msgspec.DecodeError as error:
                log.warning("a log entry can't be read: %s", error)
                continue
            self._lines.append(line)
            self._bytes += len(line)
        self.total = max(self.total, total, first + len(lines))
        self._make_room()

    def begin_again(self) -> None:
        """The session was started anew, from its first tick."""
        self._entries.clear()
        self._lines.clear()
        self._bytes = self.total = 0

    def lines(self) -> list[Line]:
        """Everything that was heard and is still here."""
        return [(entry.index, line) for entry, line in zip(self._entries, self._lines, strict=True)]

    def page(self, wanted: Wanted, limit: int) -> Page:
        """Entries from `wanted.since` on."""
        found: list[Entry] = []
        for entry in islice(self._entries, _position(self._entries, wanted.since), None):
            if wanted.takes(entry):
                if len(found) == limit:
                    return Page(found, found[-1].index + 1, self.total, at_end=False)
                found.append(entry)
        after = self._entries[-1].index + 1 if self._entries else 0
        return Page(found, max(after, wanted.since), self.total, at_end=True)

    def _make_room(self) -> None:
        drop, size = max(len(self._entries) - LIVE_ENTRIES, 0), self._bytes
        while size > LIVE_BYTES and drop < len(self._lines):
            size -= len(self._lines[drop])
            drop += 1
        if drop:  # some more, so that this is not done for every entry
            drop = min(max(drop, LIVE_ENTRIES // 10), len(self._lines))
            self._bytes -= sum(map(len, self._lines[:drop]))
            del self._entries[:drop], self._lines[:drop]


def _position(entries: Sequence[Entry], index: int) -> int:
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle].index < index:
            low = middle + 1
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True)
class Built:
    """A file that was built. `size` in bytes; `whole`: nothing of its source was cut or could not be read; `read`: how
    many lines the source had."""

    entries: int
    size: int
    whole: bool
    read: int


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
        if not os.access(self._directory, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._directory))
        for leftover in self._directory.glob("*.new*"):
            leftover.unlink()

    def download(self, run_id: str) -> Path:
        """Where a log is put until it is built from."""
        return self._directory / f"{run_id}.new.gz"

    async def build(
        self, run_id: str, source: Path | Sequence[Line], last: Sequence[bytes] = (), heard: Sequence[Line] = ()
    ) -> Built:
        """Make a run's file of a gzip of the engine's lines (or of lines), those `heard` that would come after them,
        and the service's own words."""
        return await self._in(self._writer, lambda: self._build(run_id, source, last, heard))

    def _build(self, run_id: str, source: Path | Sequence[Line], last: Sequence[bytes], heard: Sequence[Line]) -> Built:
        draft = self._directory / f"{run_id}.new"
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        reading = _Reading(self._max_bytes)
        counted = _Counted(reading.lines(source) if isinstance(source, Path) else iter(source))
        lines = _and_then(counted, heard, last)
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as db:
            # It becomes the run's file only when it is whole, so nothing needs to be undone or safe before.
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            db.execute(_SCHEMA)
            db.execute("BEGIN")
            count = 0
            for block in _blocks(lines, reading.bad):
                db.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)", block)
                count = block[0] + block[1]
            db.execute("COMMIT")
        descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        target = self._file(run_id)
        os.replace(draft, target)
        sync_directory(self._directory)
        return Built(count, target.stat().st_size, reading.whole, counted.count)

    async def kept(self, run_id: str) -> Built | None:
        """The run's file as it was built before; None where there is none that can be read."""
        return await self._in(self._reader, lambda: self._kept(run_id))

    def _kept(self, run_id: str) -> Built | None:
        path = self._file(run_id)
        if not path.exists():
            return None
        try:
            with contextlib.closing(_reading(path)) as db:
                count, end = db.execute(
                    "SELECT coalesce(sum(count), 0), coalesce(max(first + count), 0) FROM blocks"
                ).fetchone()
        except sqlite3.DatabaseError as error:
            moved = set_aside(path, path.stat().st_mtime_ns // 1_000_000)
            log.error("the log of %s is damaged (%s): set aside as %s", run_id, error, moved.name)
            return None
        return Built(end, path.stat().st_size, True, count)

    async def page(self, run_id: str, wanted: Wanted, limit: int) -> Page:
        """Entries from `wanted.since` on. Raises `FileNotFoundError`, `LogDamaged` (the file is set aside then)."""
        return await self._in(self._reader, lambda: self._page(run_id, wanted, limit))

    def _page(self, run_id: str, wanted: Wanted, limit: int) -> Page:
        path = self._file(run_id)
        if not path.exists():
            raise FileNotFoundError(path.name)
        try:
            with contextlib.closing(_reading(path)) as db:
                last = db.execute("SELECT first, count FROM blocks ORDER BY first DESC LIMIT 1").fetchone()
                total = 0 if last is None else last[0] + last[1]
                found = list(islice(_entries(db, wanted), limit + 1))
        except (sqlite3.DatabaseError, msgspec.DecodeError, zlib.error, ValueError) as error:
            with contextlib.suppress(FileNotFoundError):
                moved = set_aside(path, path.stat().st_mtime_ns // 1_000_000)
                log.error("the log of %s is damaged (%s): set aside as %s", run_id, error, moved.name)
            raise LogDamaged(run_id) from error
        if len(found) > limit:
            return Page(found[:limit], found[limit - 1].index + 1, total, at_end=False)
        return Page(found, max(total, wanted.since), total, at_end=True)

    def lines(self, run_id: str) -> Iterator[bytes]:
        """All lines of a run's log, in order; none where there is no file, or it is damaged."""
        path = self._file(run_id)
        if path.exists():
            with contextlib.closing(_reading(path)) as db, contextlib.suppress(sqlite3.DatabaseError, zlib.error):
                for (packed,) in db.execute("SELECT lines FROM blocks ORDER BY first"):
                    yield from zlib.decompress(packed).split(b"\n")

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


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


# --- blocks ---------------------------------------------------------------------------------------------------------

_Block = tuple[int, int, int, str, str, bytes]


class _Counted:
    """Lines, and how many there were."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self.count = 0
        self._lines = lines

    def __iter__(self) -> Iterator[Line]:
        for line in self._lines:
            self.count += 1
            yield line


def _and_then(lines: Iterable[Line], heard: Iterable[Line], last: Iterable[bytes]) -> Iterator[Line]:
    index = -1
    for index, line in lines:
        yield index, line
    for number, line in heard:
        if number > index:
            yield number, line
            index = number
    yield from enumerate(last, start=index + 1)


def _blocks(lines: Iterator[Line], bad: Callable[[int, Exception], None]) -> Iterator[_Block]:
    """Numbers in a block follow each other: a gap begins a new one."""
    held: list[bytes] = []
    first = level = 0
    events: set[str] = set()
    until = ""

    def block() -> _Block:
        found = (first, len(held), level, "\n".join(sorted(events)), until, zlib.compress(b"\n".join(held), 1))
        held.clear()
        events.clear()
        return found

    for index, line in lines:
        try:
            entry = engine_entry(index, line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            bad(index, error)
            continue
        if held and (len(held) >= BLOCK or index != first + len(held)):
            yield block()
        if not held:
            first, level, until = index, DEBUG, ""
        held.append(line)
        events.add(entry.event)
        level, until = max(level, entry.level), max(until, entry.timestamp)
    if held:
        yield block()


def _entries(db: sqlite3.Connection, wanted: Wanted) -> Iterator[Entry]:
    rows = db.execute(
        "SELECT first, events, lines FROM blocks WHERE first + count > ? AND level >= ? AND until >= ? ORDER BY first",
        (wanted.since, wanted.level, wanted.since_time or ""),
    )
    for first, events, packed in rows:
        if wanted.event is not None and wanted.event not in events.split("\n"):
            continue
        lines = zlib.decompress(packed).split(b"\n")
        skipped = max(wanted.since - first, 0)
        for index, line in enumerate(lines[skipped:], start=first + skipped):
            entry = engine_entry(index, line)
            if wanted.takes(entry):
                yield entry


class _Reading:
    """Lines of a compressed log, within the limit; `whole` says whether that was all of it."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self.whole = True

    def lines(self, source: Path) -> Iterator[Line]:
        with gzip.open(source, "rb") as opened:
            for index, line in enumerate(self._limited(opened)):
                yield index, line.rstrip(b"\n")

    def bad(self, index: int, error: Exception) -> None:
        """An entry that can't be read: it is left out."""
        log.warning("log entry %d can't be read: %s", index, error)
        self.whole = False

    def _limited(self, opened: gzip.GzipFile) -> Iterator[bytes]:
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
