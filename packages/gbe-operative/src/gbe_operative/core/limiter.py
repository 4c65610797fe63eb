"""How much progress a task may publish: so many messages and bytes per second."""

from __future__ import annotations

from gbe_operative.core.sizing import encoded_size

MESSAGES_PER_SECOND = 10
BYTES_PER_SECOND = 64 * 1024


class ProgressLimiter:
    """A window of one second. What is not admitted is counted by the caller."""

    __slots__ = ("_bytes", "_messages", "_since")

    def __init__(self) -> None:
        self._since = float("-inf")
        self._messages = 0
        self._bytes = 0

    def room(self, now: float) -> int:
        """How many bytes may be sent now; 0 where no message may be."""
        self._turn(now)
        return BYTES_PER_SECOND - self._bytes if self._messages < MESSAGES_PER_SECOND else 0

    def spend(self, now: float, size: int) -> None:
        """One message of that size is sent."""
        self._turn(now)
        self._messages += 1
        self._bytes += size

    def _turn(self, now: float) -> None:
        if now - self._since >= 1.0:
            self._since = now
            self._messages = self._bytes = 0


class LineBuffer:
    """Lines that wait for the next message. Bounded: what doesn't fit into one second's bytes is counted, not kept."""

    __slots__ = ("_size", "full", "lines", "omitted", "stream")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.lines: list[str] = []
        self.omitted = 0
        self.full = False
        """A line did not fit: no more is taken before the next message."""
        self._size = 0

    def add(self, line: str) -> None:
        """Keep the line, or count it."""
        size = len(line) + 3 if line.isascii() and line.isprintable() else encoded_size(line) + 1
        if self.full or self._size + size > BYTES_PER_SECOND // 2:
            self.full = True
            self.omitted += 1
            return
        self._size += size
        self.lines.append(line)

    def take(self) -> tuple[list[str], int]:
        """The lines and how many were left out; the buffer is empty then."""
        taken, omitted = self.lines, self.omitted
        self.lines, self.omitted, self._size, self.full = [], 0, 0, False
        return taken, omitted
