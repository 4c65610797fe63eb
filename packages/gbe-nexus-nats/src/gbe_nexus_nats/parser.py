"""The read side of the protocol: a whole read in one pass, messages in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Delivery: TypeAlias = tuple[bytes, bytes, bytes | None, bytes]
"""Subject, reply (empty: none), header block (None: none), payload."""

MAX_CONTROL_LINE = 1 << 20
"""An INFO of a large cluster names every server; anything longer is not NATS."""

_MSG, _HMSG, _PING_PONG, _PLUS, _MINUS, _INFO = b"MHP+-I"


class ProtocolViolation(Exception):
    """What came is not the NATS protocol: the connection is of no use any more."""


class Lane:
    """Where the messages of one subscription, or of several in their common order, end up.

    `callback` gets everything that one read brought.
    """

    __slots__ = ("batch", "callback")

    def __init__(self, callback: Callable[[list[Delivery]], None]) -> None:
        self.callback = callback
        self.batch: list[Delivery] = []


class Sink:
    """A subscription of the fast path. `count` says how many messages came on it (whoever looks sets it back)."""

    __slots__ = ("count", "lane", "sid", "subject")

    def __init__(self, sid: int, subject: bytes, lane: Lane) -> None:
        self.sid = b"%d" % sid
        self.subject = subject
        self.lane = lane
        self.count = 0


class FrameParser:
    """Cuts the stream of bytes into frames.

    Messages for sinks are collected while a chunk is parsed and handed over at its end, one call per lane. All
    else goes to `other` at once: `(operation, arguments, delivery)` with the operations `MSG` (for a sid that no
    sink has), `PING`, `PONG`, `INFO`, `-ERR`.
    """

    def __init__(
        self,
        sinks: dict[bytes, Sink],
        other: Callable[[bytes, bytes, Delivery | None], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._sinks = sinks
        self._other = other
        self._failed = failed
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._wanted = 0

    def reset(self) -> None:
        """Forget a frame that came half: its other half never will."""
        self._rest.clear()
        self._rest_size = 0
        self._wanted = 0

    def feed(self, data: bytes) -> None:
        """Parse what one read brought, with the rest of the one before."""
        if self._rest:
            self._rest.append(data)
            self._rest_size += len(data)
            if self._rest_size < self._wanted:
                return  # A large payload over many reads: joined once, when it is complete.
            data = b"".join(self._rest)
            self.reset()
        touched: list[Lane] = []
        try:
            consumed = self._parse(data, touched)
        finally:
            for lane in touched:
                batch = lane.batch
                lane.batch = []
                try:
                    lane.callback(batch)
                except Exception as error:  # the other lanes' messages were parsed already, and would be lost
                    self._failed(error)
        if consumed < len(data):
            self._rest.append(data[consumed:] if consumed else data)
            self._rest_size = len(data) - consumed

    def _parse(self, data: bytes, touched: list[Lane]) -> int:
        find = data.find
        sinks = self._sinks
        end = len(data)
        position = 0
        while position < end:
            line_end = find(b"\r\n", position)
            if line_end < 0:
                if end - position > MAX_CONTROL_LINE:
                    raise ProtocolViolation("a line without an end")
                self._wanted = 0
                break
            operation = data[position]
            if operation in (_MSG, _HMSG):
                header_size = 0
                try:
                    if operation == _MSG:
                        arguments = data[position + 4 : line_end].split()
                    else:
                        arguments = data[position + 5 : line_end].split()
                        header_size = int(arguments.pop(-2))
                    if len(arguments) == 4:
                        subject, sid, reply, size = arguments
                    else:
                        subject, sid, size = arguments
                        reply = b""
                    start = line_end + 2
                    stop = start + int(size)
                except (ValueError, IndexError) as error:
                    raise ProtocolViolation(f"malformed {data[position:line_end][:100]!r}") from error
                if stop + 2 > end:
                    self._wanted = stop + 2 - position
                    break
                delivery: Delivery
                if operation == _MSG:
                    delivery = (subject, reply, None, data[start:stop])
                else:
                    middle = start + header_size
                    delivery = (subject, reply, data[start:middle], data[middle:stop])
                position = stop + 2
                sink = sinks.get(sid)
                if sink is None:
                    self._other(b"MSG", sid, delivery)
                    continue
                sink.count += 1
                lane = sink.lane
                if not lane.batch:
                    touched.append(lane)
                lane.batch.append(delivery)
                continue
            line = data[position:line_end]
            position = line_end + 2
            if operation == _PING_PONG:
                self._other(line[:4], b"", None)
            elif operation == _INFO:
                self._other(b"INFO", line[5:], None)
            elif operation == _MINUS:
                self._other(b"-ERR", line[5:], None)
            elif operation != _PLUS:
                raise ProtocolViolation(f"unknown operation {line[:100]!r}")
        return position
