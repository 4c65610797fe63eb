"""The parser: the same frames, however the stream of bytes is cut."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbe_nexus_nats.parser import Delivery, FrameParser, Lane, ProtocolViolation, Sink

payloads = st.binary(max_size=60) | st.sampled_from([b"\r\n", b"MSG a 1 3\r\nabc\r\n", b"PING\r\n", b"x" * 5000])


class Record:
    """A parser with two sinks in one lane, one of its own, and everything it said."""

    def __init__(self) -> None:
        self.shared: list[Delivery] = []
        self.alone: list[Delivery] = []
        self.other: list[tuple[bytes, bytes, Delivery | None]] = []
        self.failed: list[Exception] = []
        lane = Lane(self.shared.extend)
        self.sinks = {
            b"1": Sink(1, b"a", lane),
            b"2": Sink(2, b"b", lane),
            b"3": Sink(3, b"c", Lane(self.alone.extend)),
        }
        self.parser = FrameParser(self.sinks, lambda *what: self.other.append(what), self.failed.append)

    def everything(self) -> tuple[object, ...]:
        counts = {sid: sink.count for sid, sink in self.sinks.items()}
        return self.shared, self.alone, self.other, self.failed, counts


def frame(kind: int, sid: int, payload: bytes) -> bytes:
    if kind == 0:
        return b"MSG sub.ject %d %d\r\n%b\r\n" % (sid, len(payload), payload)
    if kind == 1:
        return b"MSG sub.ject %d _INBOX.x %d\r\n%b\r\n" % (sid, len(payload), payload)
    if kind == 2:
        head = b"NATS/1.0\r\nA: b\r\n\r\n"
        size = len(head)
        return b"HMSG sub.ject %d _INBOX.x %d %d\r\n%b%b\r\n" % (sid, size, size + len(payload), head, payload)
    return (b"PING\r\n", b"PONG\r\n", b'INFO {"a": 1}\r\n', b"-ERR 'Permissions Violation'\r\n", b"+OK\r\n")[kind - 3]


frames = st.lists(st.builds(frame, st.integers(0, 7), st.integers(1, 4), payloads), max_size=30)


@settings(max_examples=200, deadline=None)
@given(frames, st.randoms(use_true_random=False))
def test_any_cut_gives_the_same(parts: list[bytes], dice: random.Random) -> None:
    stream = b"".join(parts)
    whole = Record()
    whole.parser.feed(stream)
    cut = Record()
    position = 0
    while position < len(stream):
        step = dice.choice((1, 2, 3, 7, 50, 1000))
        cut.parser.feed(stream[position : position + step])
        position += step
    assert cut.everything() == whole.everything()
    assert not whole.failed


def test_order_is_kept_over_the_sinks_of_a_lane() -> None:
    record = Record()
    record.parser.feed(b"".join(frame(0, 1 + n % 2, b"%d" % n) for n in range(10)))
    assert [delivery[3] for delivery in record.shared] == [b"%d" % n for n in range(10)]
    assert record.sinks[b"1"].count == 5


@pytest.mark.parametrize("line", [b"HTTP/1.1 400\r\n", b"MSG a 1\r\n", b"MSG a 1 x\r\n", b"HMSG a 1 5\r\n", b"\r\n"])
def test_what_is_not_nats_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Record().parser.feed(line)


def test_a_line_without_end_is_refused() -> None:
    record = Record()
    record.parser.feed(b"INFO " + b"x" * 1_000_000)
    with pytest.raises(ProtocolViolation):
        record.parser.feed(b"x" * 100_000)


def test_a_failing_callback_does_not_stop_the_others() -> None:
    record = Record()

    def fail(batch: list[Delivery]) -> None:
        raise ValueError("no")

    record.sinks[b"1"].lane.callback = fail
    record.parser.feed(frame(0, 1, b"x") + frame(0, 3, b"y"))
    assert [delivery[3] for delivery in record.alone] == [b"y"]
    assert [str(error) for error in record.failed] == ["no"]


def test_reset_forgets_a_half_frame() -> None:
    record = Record()
    record.parser.feed(b"MSG a 1 10\r\nhal")
    record.parser.reset()
    record.parser.feed(frame(0, 1, b"whole"))
    assert [delivery[3] for delivery in record.shared] == [b"whole"]
