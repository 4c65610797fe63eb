"""What a command writes: bounded in memory, whole on disk when it is large, and as lines while it happens."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from gbe_envoy.adapter.model import OnLine

LINE_BYTES = 64 * 1024
"""A longer line is passed on in pieces of this size."""

CHUNK_BYTES = 1024 * 1024
"""How much is collected before it is written to the file."""

_log = logging.getLogger(__name__)


def at_line_start(tail: bytes) -> bytes:
    """`tail`, which was cut somewhere, from its first whole line on; unchanged if it has no further line."""
    newline = tail.find(b"\n")
    return tail[newline + 1 :] if 0 <= newline < len(tail) - 1 else tail


LINES_AT_ONCE = 1024
"""After so many lines the callback is asked again whether it wants any more."""


class Lines:
    """Splits a stream into lines and hands them to a callback, whose errors are logged once and otherwise ignored."""

    __slots__ = ("_callback", "_complained", "_partial", "_skip", "_stream")

    def __init__(self, stream: str, callback: OnLine) -> None:
        self._stream = stream
        self._callback = callback
        self._skip: Callable[[str, int], bool] | None = getattr(callback, "skip", None)
        self._partial = bytearray()
        self._complained = False

    def feed(self, data: bytes) -> None:
        while True:
            if self._skip is not None and (lines := data.count(b"\n")) and self._skip(self._stream, lines):
                self._partial[:] = data[data.rfind(b"\n") + 1 :]
                break
            first, *rest = data.split(b"\n", LINES_AT_ONCE)
            following = rest.pop() if len(rest) == LINES_AT_ONCE else None
            self._partial += first
            for line in rest:
                self._emit_whole()
                self._partial[:] = line
            if following is None:
                break
            self._emit_whole()
            self._partial.clear()
            data = following
        self._emit_pieces()

    def end(self) -> None:
        """Passes on a last line which had no newline."""
        if self._partial:
            self._emit(bytes(self._partial))
            self._partial.clear()

    def _emit_whole(self) -> None:
        self._emit_pieces()
        self._emit(bytes(self._partial))

    def _emit_pieces(self) -> None:
        while len(self._partial) > LINE_BYTES:
            self._emit(bytes(self._partial[:LINE_BYTES]))
            del self._partial[:LINE_BYTES]

    def _emit(self, line: bytes) -> None:
        try:
            self._callback(self._stream, line)
        except Exception:  # the caller's; the command's output must be read all the same
            if not self._complained:
                self._complained = True
                _log.exception("the line callback failed; the capture of %s goes on", self._stream)


class Tail:
    """The last `limit` bytes of a stream, and its size."""

    __slots__ = ("_data", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.size = 0

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        self._data += data
        # Cutting at twice the limit makes the cost of the cuts proportional to what was written.
        if len(self._data) > 2 * self._limit:
            self._cut()

    def value(self) -> bytes:
        self._cut()
        data = bytes(self._data)
        return at_line_start(data) if self.size > len(data) else data

    def _cut(self) -> None:
        del self._data[: max(0, len(self._data) - self._limit)]


class Output:
    """The stdout of a command: in memory up to `capture_bytes`, beyond that wholly in a file below `directory`.

    `feed` only collects; whoever feeds calls `store(take())`, in a thread if it likes, when `due`, and feeds no more
    than it stores: that is the backpressure.
    """

    __slots__ = ("_buffer", "_capture", "_directory", "_file", "_max", "exceeded", "path", "size")

    def __init__(self, directory: Path, capture_bytes: int, max_bytes: int) -> None:
        self._directory = directory
        self._capture = capture_bytes
        self._max = max_bytes
        self._buffer = bytearray()
        self._file: int | None = None
        self.path: Path | None = None
        self.size = 0
        self.exceeded = False

    def feed(self, data: bytes) -> None:
        """Takes what the command wrote; what goes beyond `max_bytes` is dropped, and `exceeded` says so."""
        if self.size + len(data) > self._max:
            self.exceeded = True
            data = data[: self._max - self.size]
        self.size += len(data)
        self._buffer += data

    @property
    def spilling(self) -> bool:
        return self.size > self._capture

    @property
    def due(self) -> bool:
        """Whether `take` and `store` are due: too much is held."""
        return self.size > self._capture and (self._file is None or len(self._buffer) >= CHUNK_BYTES)

    def take(self) -> bytearray:
        """What is collected; the collection starts afresh."""
        taken, self._buffer = self._buffer, bytearray()
        return taken

    def store(self, data: bytearray) -> None:
        """Appends to the file, which is made the first time. Blocks. Raises OSError."""
        if self._file is None:
            self._file, name = tempfile.mkstemp(prefix="stdout-", dir=self._directory)
            self.path = Path(name)
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(self._file, view[written:])

    def finish(self, tail_bytes: int) -> bytes:
        """The whole, or the tail of the file, when all is stored. Closes the file. Raises OSError."""
        if self._file is None:
            return bytes(self._buffer)
        start = max(0, self.size - tail_bytes)
        tail = os.pread(self._file, tail_bytes, start)
        fd, self._file = self._file, None
        os.close(fd)  # some file systems report a failed write only here
        return at_line_start(tail) if start else tail

    def discard(self) -> None:
        """Closes and removes the file, if there is one."""
        if self._file is not None:
            fd, self._file = self._file, None
            os.close(fd)
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None
