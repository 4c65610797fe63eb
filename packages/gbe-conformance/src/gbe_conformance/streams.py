"""Streams: made once, kept within their limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gbe_conformance.contract import Bus, Contract
from gbe_conformance.inbox import Inbox, until
from gbe_nexus import NotFound, Outgoing, Refused, Stream, StreamConflict, StreamFull, Transport


class StreamsContract(Contract):
    """N2 and the limits of `StreamSpec`."""

    async def test_ensure_twice_is_fine(self, bus: Bus, second: Transport) -> None:
        """N2: the same stream again, from here or from elsewhere → fine, and nothing is lost."""
        spec = await bus.ensure(max_age=600, max_messages=1000, duplicate_window=60)
        await bus.publish(b"1")
        await bus.transport.ensure_stream(spec)
        await second.ensure_stream(spec)
        assert (await second.stream_state(bus.stream)).messages == 1

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("max_messages", 7),
            ("max_bytes", 1_000_000),
            ("max_per_subject", 3),
            ("max_message_size", 4000),
            ("max_age", 300.0),
            ("duplicate_window", 30.0),
            ("discard_old", True),
            ("work_queue", True),
        ],
    )
    async def test_conflicting_settings_are_named(self, bus: Bus, setting: str, value: Any) -> None:
        """N2: an existing stream with another setting → an error that names it, and the stream stays as it was."""
        spec = await bus.ensure()
        with pytest.raises(StreamConflict, match=setting):
            await bus.transport.ensure_stream(replace(spec, **{setting: value}))
        await bus.transport.ensure_stream(spec)

    async def test_other_subjects_are_a_conflict(self, bus: Bus) -> None:
        """N2: the same name for other subjects → an error that says so."""
        spec = await bus.ensure(bus.subject("a"), bus.subject("b"))
        await bus.transport.ensure_stream(replace(spec, subjects=(bus.subject("b"), bus.subject("a"))))
        with pytest.raises(StreamConflict, match="subjects"):
            await bus.transport.ensure_stream(replace(spec, subjects=(bus.subject("a"),)))

    async def test_overlapping_subjects_are_refused(self, bus: Bus) -> None:
        """A message belongs to one stream: a second one whose subjects can meet the first's is refused."""
        await bus.ensure(bus.subject("*", "queue"))
        with pytest.raises(Refused):
            await bus.transport.ensure_stream(Stream(bus.stream + "B", (bus.subject("shell", "*"),)))
        await bus.transport.ensure_stream(Stream(bus.stream + "C", (bus.subject("*", "other"),)))

    async def test_unknown_stream_is_not_found(self, bus: Bus) -> None:
        """A stream nobody made → `NotFound`, whatever is asked of it."""
        with pytest.raises(NotFound):
            await bus.transport.stream_state(bus.stream)
        with pytest.raises(NotFound):
            await bus.transport.trim(bus.stream, 2)
        with pytest.raises(NotFound):
            await bus.transport.consumer_state(bus.stream, "group")
        with pytest.raises(NotFound):
            await bus.transport.journal(bus.stream)
        with pytest.raises(NotFound):
            await bus.join(Inbox())

    async def test_state_says_what_is_there(self, bus: Bus) -> None:
        """`stream_state`: counts, sequences, and the limits with the share that is used."""
        await bus.ensure(max_messages=10, max_bytes=1_000_000)
        await bus.publish(b"x" * 100, b"x" * 100, b"x" * 100)
        state = await bus.transport.stream_state(bus.stream)
        assert state.name == bus.stream
        assert (state.messages, state.first_seq, state.last_seq) == (3, 1, 3)
        assert (state.max_messages, state.max_bytes) == (10, 1_000_000)
        assert 300 <= state.bytes < 1000
        assert state.fullness == pytest.approx(0.3)

    async def test_no_limit_is_zero(self, bus: Bus) -> None:
        """A stream without limits says 0 for them and is never full."""
        await bus.ensure()
        await bus.publish(b"x")
        state = await bus.transport.stream_state(bus.stream)
        assert (state.max_messages, state.max_bytes, state.fullness) == (0, 0, 0.0)

    async def test_full_by_bytes_refuses(self, bus: Bus) -> None:
        """`discard: new` by bytes: the stream never holds more than its limit."""
        await bus.ensure(max_bytes=10_000)
        results = await bus.transport.publish_many([Outgoing(bus.subject(), b"x" * 1000) for _ in range(20)])
        refused = [result for result in results if isinstance(result, StreamFull)]
        assert 10 < len(refused) < 20
        state = await bus.transport.stream_state(bus.stream)
        assert state.bytes <= 10_000
        assert state.messages == 20 - len(refused)
        assert state.fullness > 0.8

    async def test_full_stream_drops_its_oldest(self, bus: Bus) -> None:
        """`discard: old`: the newest stay, in order."""
        await bus.ensure(max_messages=3, discard_old=True)
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        state = await bus.transport.stream_state(bus.stream)
        assert (state.messages, state.first_seq, state.last_seq) == (3, 3, 5)
        inbox = Inbox()
        await bus.join(inbox)
        await inbox.expect_payloads(b"3", b"4", b"5")

    async def test_newest_per_subject_stay(self, bus: Bus) -> None:
        """`max_per_subject` keeps the newest of each subject, also in a stream that refuses when full."""
        await bus.ensure(max_per_subject=2)
        for payload in (b"1", b"2", b"3"):
            await bus.publish(payload, subject=bus.subject("a"))
            await bus.publish(payload, subject=bus.subject("b"))
        inbox = Inbox()
        await bus.join(inbox)
        await inbox.expect_payloads(b"2", b"2", b"3", b"3")

    async def test_old_messages_go(self, bus: Bus) -> None:
        """`max_age`: messages go by themselves, and the ids in use may not outlive them."""
        await bus.ensure(max_age=self.tick)
        await bus.publish(b"1", b"2")
        assert (await bus.transport.stream_state(bus.stream)).messages == 2
        await until(lambda: holds(bus, 0), bus.patience)

    async def test_trim_deletes_what_is_below(self, bus: Bus) -> None:
        """`trim`: everything below the sequence goes, the rest stays; the answer is how many."""
        await bus.ensure()
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        assert await bus.transport.trim(bus.stream, 4) == 3
        state = await bus.transport.stream_state(bus.stream)
        assert (state.messages, state.first_seq, state.last_seq) == (2, 4, 5)
        assert await bus.transport.trim(bus.stream, 4) == 0
        assert await bus.transport.trim(bus.stream, 1) == 0
        inbox = Inbox()
        await bus.join(inbox)
        await inbox.expect_payloads(b"4", b"5")

    async def test_trim_beyond_the_end(self, bus: Bus) -> None:
        """`trim` of everything leaves an empty stream whose sequences go on."""
        await bus.ensure()
        await bus.publish(b"1", b"2")
        assert await bus.transport.trim(bus.stream, 3) == 2
        assert await bus.publish(b"3") == [3]


async def holds(bus: Bus, messages: int) -> bool:
    """Whether the stream has that many messages now."""
    return (await bus.transport.stream_state(bus.stream)).messages == messages
