"""The log of a session as a file, written as the session goes on: at its end there is nothing left to do."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

BLOCK: Final = 256 * 1024
"""Bytes of text that are compressed in one go."""

WAITING: Final = 16
"""Blocks that may wait for the thread."""

GZIP: Final = 31
"""`wbits` for a gzip stream."""


class LogFile:
    """A gzip file of lines. A thread compresses and writes blocks while the session goes on.

    Nothing is lost when the disk is full: what could not be written is kept, and tried again with the next block.
    `add` raises `OSError` where what was added before could not be written, `close` where something cannot be now;
    either may be called again.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        # Level 1: several times as fast as the default, for a tenth more bytes.
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, GZIP)
        self._thread = ThreadPoolExecutor(1, "log")
        self._writing: deque[Future[None]] = deque()
        self._gathered: list[bytes] = []
        self._size = 0
        self._unwritten = b""
        self._failed: OSError | None = None
        self._ended = False
        self.lines = 0
        """How many lines it was given."""

    @property
    def closed(self) -> bool:
        """Whether the file is whole: everything is written, and its end."""
        return self._ended and not self._unwritten

    def add(self, lines: Iterable[bytes]) -> None:
        """Add lines, each without its end."""
        for line in lines:
            self._gathered.append(line)
            self._size += len(line) + 1
            self.lines += 1
            if self._size >= BLOCK:
                self._hand_over()

    def close(self, lines: Iterable[bytes] = ()) -> None:
        """Write what is left, these last lines, and the end of the file."""
        self._wait()
        self._failed = None
        self.add(lines)
        self._hand_over()
        self._wait()
        self._failed = None
        if not self._ended:
            self._unwritten += self._compressor.flush()
            self._ended = True
        self._write()
        self.discard()

    def discard(self) -> None:
        """Leave the file as it is."""
        self._thread.shutdown()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _hand_over(self) -> None:
        if not self._gathered:
            return
        self._wait(WAITING)
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        self._gathered.append(b"")
        block = b"\n".join(self._gathered)
        self._gathered, self._size = [], 0
        self._writing.append(self._thread.submit(self._compress, block))

    def _wait(self, waiting: int = 0) -> None:
        while self._writing and (len(self._writing) > waiting or self._writing[0].done()):
            self._writing.popleft().result()

    def _compress(self, block: bytes) -> None:
        self._unwritten += self._compressor.compress(block)
        try:
            self._write()
            self._failed = None
        except OSError as error:
            self._failed = error

    def _write(self) -> None:
        while self._unwritten:
            self._unwritten = self._unwritten[os.write(self._handle, self._unwritten) :]
