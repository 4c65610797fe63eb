"""The structured log of a run (specification, section 10)."""

import datetime
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, overload

import msgspec

from gbe_aether.canonical import ascii_line, record_bytes
from gbe_aether.reading import an_object
from gbe_aether.spool import Column, Spool

DESTINATIONS = ("file", "memory", "stdout")


class LoggingConfigV1(msgspec.Struct, frozen=True):
    """Whether a run logs, and where to."""

    enabled: bool = False
    destination: str = "memory"
    file_path: str | None = None
    include_ticks: bool = True
    include_windows: bool = True


def logging_from_document(value: Any) -> LoggingConfigV1:
    """The logging configuration in a run config's `logging`. Raises `ValueError`."""
    doc = an_object(value, "logging must be an object")
    destination = doc.get("destination", "memory")
    file_path = doc.get("file_path")
    if destination not in DESTINATIONS:
        raise ValueError(f"destination must be one of {list(DESTINATIONS)}")
    if destination == "file" and not file_path:
        raise ValueError("file_path must be provided when destination is 'file'")
    return LoggingConfigV1(
        bool(doc.get("enabled", False)),
        destination,
        None if file_path is None else str(file_path),
        bool(doc.get("include_ticks", True)),
        bool(doc.get("include_windows", True)),
    )


class StructuredLogEntryV1(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event. There is no level and no message; absent and empty optional fields are left out."""

    event: str
    gid: str
    run_id: str
    ts: str
    tick: int | None = None
    window_id: str | None = None
    payload: dict[str, Any] | None = None


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def timestamp(microseconds: int) -> str:
    """UTC in ISO 8601 with microseconds and offset, from microseconds since 1970."""
    return (_EPOCH + datetime.timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")


class TimestampText:
    """Writes time stamps as `timestamp` does, fast where many fall into one second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def write(self, frame: bytes) -> bytes:
        """The text of a time as a series keeps it: microseconds, 8 bytes, big-endian."""
        second, rest = divmod(int.from_bytes(frame, "big"), 1_000_000)
        if second != self._second:
            self._second, self._text = second, timestamp(1_000_000 * second)[:19].encode()
        return b"%b.%06d+00:00" % (self._text, rest)


def _now() -> int:
    return time.time_ns() // 1000


class LogView(Sequence[StructuredLogEntryV1]):
    """The entries a logger kept. They are built as they are read; only their times are stored."""

    def __init__(self, parts: Sequence["_Part"]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @overload
    def __getitem__(self, index: int) -> StructuredLogEntryV1: ...
    @overload
    def __getitem__(self, index: slice) -> list[StructuredLogEntryV1]: ...

    def __getitem__(self, index: int | slice) -> StructuredLogEntryV1 | list[StructuredLogEntryV1]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        for part in self._parts:
            if 0 <= index < len(part):
                return part.entry(index)
            index -= len(part)
        raise IndexError("log entry out of range")

    def __iter__(self) -> Iterator[StructuredLogEntryV1]:
        for part in self._parts:
            for index in range(len(part)):
                yield part.entry(index)

    def lines(self, start: int = 0) -> Iterator[bytes]:
        """The canonical text of the entries from an index on; much faster than writing the entries."""
        for part in self._parts:
            if start < len(part):
                yield from part.lines(start)
            start = max(0, start - len(part))


class _Part:
    """Consecutive entries: single ones, kept as they are, or a series that is built when read."""

    def __init__(self) -> None:
        self.entries: list[StructuredLogEntryV1] = []

    def __len__(self) -> int:
        return len(self.entries)

    def entry(self, index: int) -> StructuredLogEntryV1:
        return self.entries[index]

    def lines(self, start: int) -> Iterator[bytes]:
        return map(record_bytes, self.entries[start:])


Build = Callable[[int, str], StructuredLogEntryV1]
"""Makes the entry of an index in a series, from 0, with its time stamp."""

Write = Callable[[int, Iterator[bytes]], Iterator[bytes]]
"""Writes the canonical text of the entries of a series from an index on, one for each of the time stamps."""


class LogSeries(_Part):
    """A run of entries of one kind, one for each tick, of which only the times are kept."""

    def __init__(self, times: Column, build: Build, write: Write) -> None:
        super().__init__()
        self._times = times
        self._build = build
        self._write = write

    def __len__(self) -> int:
        return len(self._times)

    def entry(self, index: int) -> StructuredLogEntryV1:
        return self._build(index, timestamp(int.from_bytes(self._times[index], "big")))

    def lines(self, start: int) -> Iterator[bytes]:
        return self._write(start, map(TimestampText().write, self._times.iterate(start)))


class StructuredLogger:
    """Writes the entries of a session to where its configuration says.

    Args:
        config: Destination and what to leave out. A disabled logger does nothing.
        on_entry: Called with every entry as it happens, whatever the destination; what it raises
            ends the run.
        clock: Microseconds since 1970.

    Raises:
        OSError: from any call, when the log file or stdout cannot be written.
    """

    def __init__(
        self,
        config: LoggingConfigV1,
        *,
        on_entry: Callable[[StructuredLogEntryV1], None] | None = None,
        clock: Callable[[], int] = _now,
        spool: Spool | None = None,
    ) -> None:
        self.config = config
        self._on_entry = on_entry
        self._clock = clock
        self._spool = spool or Spool()
        self._parts: list[_Part] = []
        self._file: IO[str] | None = None

    @property
    def enabled(self) -> bool:
        """Whether entries are made at all."""
        return self.config.enabled

    @property
    def entries(self) -> LogView:
        """The entries so far, with destination `memory`; none with any other."""
        return LogView(self._parts)

    def log(
        self,
        event: str,
        *,
        gid: str,
        run_id: str,
        tick: int | None = None,
        window_id: str | None = None,
        payload: dict[str, Any] | None = None,
    ) -> None:
        """Log one event. Empty and absent optional fields are left out."""
        config = self.config
        if not config.enabled:
            return
        if (event == "tick_complete" and not config.include_ticks) or (
            event == "window_closed" and not config.include_windows
        ):
            return
        entry = StructuredLogEntryV1(
            event, gid, run_id, timestamp(self._clock()), tick, window_id or None, payload or None
        )
        if config.destination == "memory":
            if not self._parts or isinstance(self._parts[-1], LogSeries):
                self._parts.append(_Part())
            self._parts[-1].entries.append(entry)
        self._emit(entry)

    def series(self, event: str, build: Build, text: Write) -> Callable[[], None] | None:
        """Begin a series of entries of one kind; the function returned logs the next of them.

        In memory only the times of a series are kept, so that a long run's log doesn't grow in memory.

        Args:
            event: What is logged.
            build: Makes an entry.
            text: Writes what `build` makes.

        Returns:
            The function, or `None` when the configuration leaves such entries out.
        """
        config = self.config
        if not config.enabled or (event == "tick_complete" and not config.include_ticks):
            return None
        clock, emit, live = self._clock, self._emit, self._on_entry is not None or config.destination != "memory"
        times = Column(self._spool, width=8)
        if config.destination == "memory":
            self._parts.append(LogSeries(times, build, text))
        if not live:
            append = times.append
            return lambda: append(clock().to_bytes(8, "big"))

        count = 0

        def write() -> None:
            nonlocal count
            now = clock()
            if config.destination == "memory":
                times.append(now.to_bytes(8, "big"))
            count += 1
            emit(build(count - 1, timestamp(now)))

        return write

    def close(self) -> None:
        """Close the log file, if there is one. The next entry opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _emit(self, entry: StructuredLogEntryV1) -> None:
        destination = self.config.destination
        if destination == "stdout":
            print(ascii_line(entry), file=sys.stdout, flush=True)
        elif destination == "file":
            if self._file is None:
                path = Path(str(self.config.file_path))
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="ascii")
                # For sessions that are given up before they end.
                weakref.finalize(self, self._file.close)
            self._file.write(ascii_line(entry) + "\n")
            self._file.flush()
        if self._on_entry is not None:
            self._on_entry(entry)
