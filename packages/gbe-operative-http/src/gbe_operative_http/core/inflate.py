"""Undoing `Content-Encoding` in pieces of bounded size: a few bytes may stand for gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE = 64 * 1024
"""Bytes of a piece at most."""

CODINGS = ("gzip", "x-gzip", "deflate")
ACCEPT = "gzip, deflate"


class BadEncoding(ValueError):
    """The body is not what its `Content-Encoding` says, or ends too early."""


class Inflater:
    """Takes a body as it comes and gives what it stands for (RFC 9110, 8.4.1)."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._gzip = coding != "deflate"
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS) if self._gzip else zlib.decompressobj()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes add, in pieces. Raises `BadEncoding`."""
        while data:
            if self._stream.eof:
                if not self._gzip:
                    return  # trailing bytes after the end
                self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)  # another member
            try:
                piece = self._stream.decompress(data, PIECE)
            except zlib.error as error:
                if self._begun or self._gzip:
                    raise BadEncoding(f"the body is no {self._coding}: {error}") from error
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)  # some send it without the zlib header
                self._begun = True
                continue
            self._begun = True
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        """Raises `BadEncoding` where something is missing at the end."""
        if self._begun and not self._stream.eof:
            raise BadEncoding(f"the body ends in the middle of its {self._coding}")
