"""Publishing: what is stored, what is refused, and what comes back."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pytest

from gbe_conformance.contract import Bus, Contract
from gbe_conformance.inbox import Inbox, until
from gbe_conformance.streams import holds
from gbe_nexus import Answers, NexusError, Outgoing, PayloadTooLarge, PubAck, Refused, StreamFull

T = TypeVar("T")


def stored(result: object) -> bool:
    """Whether a result of `publish_many` is an ack of a newly stored message."""
    return isinstance(result, PubAck) and not result.duplicate


async def _awaited(answers: Answers[T]) -> list[T]:
    return await answers


class PublishingContract(Contract):
    """N1, N8, N13."""

    async def test_publish_answers_with_stream_and_sequence(self, bus: Bus) -> None:
        """N1: publish → an id: the stream's name and a sequence that rises by one."""
        await bus.ensure()
        first = await bus.transport.publish(bus.subject(), b"1")
        second = await bus.transport.publish(bus.subject("b"), b"2")
        assert first == PubAck(bus.stream, 1)
        assert second == PubAck(bus.stream, 2)

    async def test_message_above_the_streams_limit_is_refused(self, bus: Bus) -> None:
        """N1: 100-byte limit, 200 bytes → payload too large with size and limit, nothing stored."""
        await bus.ensure(max_message_size=100)
        with pytest.raises(PayloadTooLarge) as refusal:
            await bus.transport.publish(bus.subject(), b"x" * 200)
        assert refusal.value.limit == 100
        assert refusal.value.size >= 200
        assert not refusal.value.retryable
        assert (await bus.transport.stream_state(bus.stream)).messages == 0

    async def test_message_above_max_payload_is_refused(self, bus: Bus) -> None:
        """N1: `max_payload` is the limit for every message; one above harms nothing else on the connection."""
        await bus.ensure()
        limit = bus.transport.max_payload
        with pytest.raises(PayloadTooLarge) as refusal:
            await bus.transport.publish(bus.subject(), b"x" * (limit + 1))
        assert refusal.value.limit == limit
        assert refusal.value.size > limit
        assert await bus.publish(b"small") == [1]

    async def test_message_of_max_payload_is_stored(self, bus: Bus) -> None:
        """`max_payload` is the size of the largest message that is taken."""
        await bus.ensure()
        payload = bytes(range(256)) * (bus.transport.max_payload // 256)
        await bus.publish(payload)
        inbox = Inbox()
        await bus.join(inbox)
        (message,) = await inbox.expect(1, bus.patience)
        assert message.payload == payload

    async def test_headers_count_for_max_payload(self, bus: Bus) -> None:
        """`max_payload` includes the headers."""
        await bus.ensure()
        payload = b"x" * bus.transport.max_payload
        with pytest.raises(PayloadTooLarge):
            await bus.transport.publish(bus.subject(), payload, headers={"traceparent": "00-1-2-01"})
        assert (await bus.transport.stream_state(bus.stream)).messages == 0

    async def test_subject_of_no_stream_is_refused(self, bus: Bus) -> None:
        """No stream takes the subject → `Refused`, not silence."""
        with pytest.raises(Refused):
            await bus.transport.publish(bus.subject("nowhere"), b"x")

    async def test_payload_and_headers_arrive_as_they_were(self, bus: Bus) -> None:
        """N7: a trace id published is seen by the handler; payloads are bytes, any or none."""
        await bus.ensure()
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Other": "a: b, c"}
        await bus.transport.publish(bus.subject(), bytes(range(256)), msg_id="m1", headers=trace)
        await bus.transport.publish(bus.subject(), b"")
        inbox = Inbox()
        await bus.join(inbox)
        full, empty = await inbox.expect(2, bus.patience)
        assert full.payload == bytes(range(256))
        assert {name: full.headers[name] for name in trace} == trace
        assert full.subject == bus.subject()
        assert full.seq == 1
        assert empty.payload == b""
        assert not set(trace) & set(empty.headers)

    async def test_same_message_id_is_stored_once(self, bus: Bus) -> None:
        """N8: same idempotency key twice → stored once; the second answer is the first one's, marked."""
        await bus.ensure()
        first = await bus.transport.publish(bus.subject(), b"1", msg_id="same")
        again = await bus.transport.publish(bus.subject(), b"1", msg_id="same")
        other = await bus.transport.publish(bus.subject(), b"2", msg_id="other")
        assert again == PubAck(bus.stream, first.seq, duplicate=True)
        assert stored(other)
        assert (await bus.transport.stream_state(bus.stream)).messages == 2

    async def test_message_id_is_remembered_after_consumption(self, bus: Bus) -> None:
        """N8: a work-queue message that was acknowledged and removed is still no reason to store it again."""
        await bus.ensure(work_queue=True)
        await bus.transport.publish(bus.subject(), b"1", msg_id="same")
        inbox = Inbox(ack=True)
        await bus.join(inbox)
        await inbox.expect(1, bus.patience)
        await bus.transport.flush()
        assert (await bus.transport.publish(bus.subject(), b"1", msg_id="same")).duplicate
        await inbox.expect_nothing(self.quiet)

    async def test_message_id_is_forgotten_after_the_window(self, bus: Bus) -> None:
        """N8: the duplicate window over, the id is free again."""
        await bus.ensure(duplicate_window=self.tick)
        await bus.transport.publish(bus.subject(), b"1", msg_id="same")

        async def stored_again() -> bool:
            return not (await bus.transport.publish(bus.subject(), b"1", msg_id="same")).duplicate

        assert not await stored_again()
        await until(stored_again, bus.patience)

    async def test_many_are_stored_in_order(self, bus: Bus) -> None:
        """N13: a thousand at once → as many acks in the same order, and the messages in that order."""
        await bus.ensure()
        results = await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(1000)])
        assert results == [PubAck(bus.stream, n + 1) for n in range(1000)]
        inbox = Inbox(ack=True)
        await bus.join(inbox)
        await inbox.expect(1000, bus.patience)
        assert inbox.payloads == [b"%d" % n for n in range(1000)]

    async def test_none_at_once(self, bus: Bus) -> None:
        """`publish_many` of nothing → nothing."""
        assert await bus.transport.publish_many([]) == []

    async def test_many_are_written_at_the_call(self, bus: Bus) -> None:
        """`publish_many` writes before anything is awaited: what is published afterwards comes after it."""
        await bus.ensure()
        pending = bus.transport.publish_many([Outgoing(bus.subject(), b"first"), Outgoing(bus.subject(), b"second")])
        third = await bus.transport.publish(bus.subject(), b"third")
        assert third.seq == 3
        assert all(map(stored, await pending))

    async def test_answers(self, bus: Bus) -> None:
        """A bulk call's `Answers`: awaited by several and again later, one of them cancelled; `then` called once."""
        await bus.ensure()
        answers = bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(3)])
        told: list[list[object]] = []
        answers.then(lambda results: told.append(list(results)))
        assert not told, "never from within the call"
        waiting = [asyncio.ensure_future(_awaited(answers)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        expected = [PubAck(bus.stream, n + 1) for n in range(3)]
        assert await asyncio.gather(*waiting[1:]) == [expected, expected]
        assert answers.done
        assert await answers == expected
        assert told == [expected]

    async def test_what_follows_may_be_said_at_once(self, bus: Bus) -> None:
        """`then` may publish: what it publishes comes after what was answered."""
        await bus.ensure()
        following: list[Answers[PubAck | NexusError]] = []
        first = bus.transport.publish_many([Outgoing(bus.subject(), b"1")])
        first.then(lambda _: following.append(bus.transport.publish_many([Outgoing(bus.subject(), b"2")])))
        assert await first == [PubAck(bus.stream, 1)]
        assert await following[0] == [PubAck(bus.stream, 2)]

    async def test_one_too_large_of_many(self, bus: Bus) -> None:
        """N13: one of many above the stream's limit → exactly that one is reported, the others stored once."""
        await bus.ensure(max_message_size=1000)
        messages = [Outgoing(bus.subject(), b"x" * (2000 if n == 4 else 10), f"m{n}") for n in range(10)]
        results = await bus.transport.publish_many(messages)
        assert isinstance(results[4], PayloadTooLarge)
        assert [n for n, result in enumerate(results) if not stored(result)] == [4]
        assert (await bus.transport.stream_state(bus.stream)).messages == 9

    async def test_one_above_max_payload_of_many(self, bus: Bus) -> None:
        """N13: one of many above `max_payload` → the same."""
        await bus.ensure()
        large = b"x" * (bus.transport.max_payload + 1)
        results = await bus.transport.publish_many(
            [Outgoing(bus.subject(), b"1"), Outgoing(bus.subject(), large), Outgoing(bus.subject(), b"2")]
        )
        assert isinstance(results[1], PayloadTooLarge)
        assert [stored(result) for result in results] == [True, False, True]

    async def test_one_for_no_stream_of_many(self, bus: Bus) -> None:
        """N13: one of many on a subject no stream takes → the same."""
        await bus.ensure(bus.subject("here"))
        results = await bus.transport.publish_many(
            [
                Outgoing(bus.subject("here"), b"1"),
                Outgoing(bus.subject("gone"), b"2"),
                Outgoing(bus.subject("here"), b"3"),
            ]
        )
        assert isinstance(results[1], Refused)
        assert [stored(result) for result in results] == [True, False, True]

    async def test_stream_full_for_some_of_many(self, bus: Bus) -> None:
        """N13: `discard: new`, full after two of five → two acks, three `StreamFull` worth another try; room helps.

        The first is always kept. The second may have to give way to a later one on a cluster: its leader counts a
        message twice for a moment, in flight and stored already.
        """
        await bus.ensure(work_queue=True, max_messages=3)
        await bus.publish(b"there")  # Until then a member may not know the leader: what it refuses is sent again later.
        results = await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(5)])
        acks = {b"%d" % n: result for n, result in enumerate(results) if isinstance(result, PubAck)}
        kept = list(acks)
        assert kept[0] == b"0"
        assert list(acks.values()) == [PubAck(bus.stream, 2), PubAck(bus.stream, 3)]
        if not self.capabilities.cluster:
            assert kept == [b"0", b"1"]
        for result in results:
            assert stored(result) or (isinstance(result, StreamFull) and result.retryable)
        inbox = Inbox(ack=True)
        await bus.join(inbox)
        await inbox.expect_payloads(b"there", *kept, within=bus.patience)
        await until(lambda: holds(bus, 0), bus.patience)
        await bus.publish(b"5")
        await inbox.expect_payloads(b"5", within=bus.patience)

    async def test_same_message_id_among_many(self, bus: Bus) -> None:
        """N8, N13: sent again with their ids, many are acknowledged as duplicates and stored once."""
        await bus.ensure()
        messages = [Outgoing(bus.subject(), b"%d" % n, f"id-{n}") for n in range(20)]
        assert all(map(stored, await bus.transport.publish_many(messages)))
        again = await bus.transport.publish_many(messages)
        assert again == [PubAck(bus.stream, n + 1, duplicate=True) for n in range(20)]

    async def test_concurrent_publishers(self, bus: Bus) -> None:
        """Many tasks publishing at once: each gets the ack of its own message."""
        await bus.ensure()
        acks = await asyncio.gather(
            *(bus.transport.publish(bus.subject(), b"%d" % n, msg_id=f"id-{n}") for n in range(50))
        )
        inbox = Inbox(ack=True)
        await bus.join(inbox)
        await inbox.expect(50, bus.patience)
        assert {message.seq: message.payload for message in inbox.messages} == {
            ack.seq: b"%d" % n for n, ack in enumerate(acks)
        }
