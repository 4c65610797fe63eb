"""Where the per-tick records of a session go: memory for a small run, one temporary file for a large one.

A column holds one frame of bytes for each tick. Frames are gathered into chunks; when the chunks of
a session exceed its memory limit, further ones go to a file that has no name and is gone with the
process. What stays in memory then grows by a few bytes for each chunk.
"""

import hashlib
import os
import tempfile
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator

MEMORY_LIMIT = 8 * 1024 * 1024
"""Bytes of records that a session keeps in memory unless it is told otherwise: 8 MiB."""

_CHUNK = 64 * 1024

_Stored = bytes | tuple[int, int]


class Spool:
    """The chunks of one session."""

    def __init__(self, memory_limit: int = MEMORY_LIMIT, folder: str | os.PathLike[str] | None = None) -> None:
        self._left = memory_limit
        self._folder = folder
        self._file: int | None = None
        self._finalizer: Callable[[], object] | None = None
        self._end = 0

    @property
    def file_bytes(self) -> int:
        """How much went to the temporary file."""
        return self._end

    def put(self, chunk: bytes) -> _Stored:
        """Keep a chunk. Raises `OSError` when the disk is full."""
        if len(chunk) <= self._left:
            self._left -= len(chunk)
            return chunk
        self._left = 0
        if self._file is None:
            if self._finalizer is not None:
                raise OSError("the temporary file of the session is closed")
            self._file = _unnamed_file(self._folder)
            self._finalizer = weakref.finalize(self, os.close, self._file)
        start, view = self._end, memoryview(chunk)
        while view:
            written = os.pwrite(self._file, view, self._end)
            self._end += written
            view = view[written:]
        return start, len(chunk)

    def get(self, stored: _Stored) -> bytes:
        """Read a chunk back."""
        if isinstance(stored, bytes):
            return stored
        if self._file is None:
            raise OSError("the temporary file of the session is closed")
        start, length = stored
        parts = []
        while length:
            part = os.pread(self._file, length, start)
            if not part:
                raise OSError("the temporary file of the session ended early")
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Give the temporary file's room back; what is in it is lost."""
        if self._finalizer is not None:
            self._file = None
            self._finalizer()


def _unnamed_file(folder: str | os.PathLike[str] | None) -> int:
    handle, name = tempfile.mkstemp(prefix="gbe-aether-", dir=folder)
    os.unlink(name)
    return handle


class Column:
    """One frame for each tick, in order, from index 0.

    Args:
        spool: Where full chunks go.
        width: The size of every frame, for frames that are not worth compressing (hashes, times);
            without it frames are text of any length without line feeds, and chunks are compressed.
        digested: Whether `digests` is wanted.
    """

    def __init__(self, spool: Spool, *, width: int | None = None, digested: bool = False) -> None:
        self._spool = spool
        self._width = width
        self._digests: list[tuple[int, bytes]] | None = [] if digested else None
        self._starts: list[int] = []
        self._stored: list[_Stored] = []
        self._open: list[bytes] = []
        self._open_start = 0
        self._open_size = 0
        self._read: tuple[int, list[bytes]] | None = None

    def __len__(self) -> int:
        return self._open_start + len(self._open)

    def append(self, frame: bytes) -> None:
        """Add the next frame. Raises `OSError` when the disk is full."""
        self._open.append(frame)
        self._open_size += len(frame)
        if self._open_size >= _CHUNK or len(self._open) >= 4096:
            self._close_chunk()

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index >= self._open_start:
            return self._open[index - self._open_start]
        number = bisect_right(self._starts, index) - 1
        return self._chunk(number)[index - self._starts[number]]

    def iterate(self, start: int = 0) -> Iterator[bytes]:
        """The frames in order, from one on; cheaper than asking for one after the other."""
        for number in range(max(0, bisect_right(self._starts, start) - 1), len(self._stored)):
            frames = self._chunk(number)
            yield from frames[max(0, start - self._starts[number]) :] if start > self._starts[number] else frames
        yield from self._open[start - self._open_start :] if start > self._open_start else self._open

    def digests(self, stop: int) -> Iterator[tuple[int, bytes]]:
        """SHA-256 over the frames from one index to the next, up to `stop`, each with the index it ends before.

        They are made as the frames come in, so that there is nothing to read for it.
        """
        assert self._digests is not None
        yield from self._digests
        if self._open_start < stop:
            yield stop, hashlib.sha256(b"".join(self._open[: stop - self._open_start])).digest()

    def _close_chunk(self) -> None:
        chunk = zlib.compress(b"\n".join(self._open), 1) if self._width is None else b"".join(self._open)
        self._stored.append(self._spool.put(chunk))
        if self._digests is not None:
            self._digests.append((len(self), hashlib.sha256(chunk).digest()))
        self._starts.append(self._open_start)
        self._open_start += len(self._open)
        self._open, self._open_size = [], 0

    def _chunk(self, number: int) -> list[bytes]:
        cached = self._read
        if cached is not None and cached[0] == number:
            return cached[1]
        chunk = self._spool.get(self._stored[number])
        width = self._width
        if width is None:
            frames = zlib.decompress(chunk).split(b"\n")
        else:
            frames = [chunk[start : start + width] for start in range(0, len(chunk), width)]
        self._read = number, frames
        return frames
