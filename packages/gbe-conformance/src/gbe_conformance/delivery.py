"""Delivery: who gets what, how often, and when again."""

from __future__ import annotations

import asyncio

import pytest

from gbe_conformance.contract import Bus, Contract
from gbe_conformance.inbox import Inbox, until
from gbe_conformance.streams import holds
from gbe_nexus import (
    ConsumerSpec,
    DeadLetter,
    Message,
    NexusError,
    NotFound,
    Outgoing,
    PayloadDecoder,
    Refused,
    Start,
    Stream,
    Transport,
    dead_letter_subject,
)


class DeliveryContract(Contract):
    """N3 to N8."""

    # --- N3: what a group gets ---

    async def test_earliest_gets_everything_in_order(self, bus: Bus) -> None:
        """N3: earliest, three published before and after subscribing → exactly those in order."""
        await bus.ensure()
        await bus.publish(b"1", b"2")
        inbox = Inbox(ack=True)
        await bus.join(inbox)
        await inbox.expect_payloads(b"1", b"2", within=bus.patience)
        await bus.publish(b"3")
        (third,) = await inbox.expect_payloads(b"3", within=bus.patience)
        assert (third.subject, third.seq, third.deliveries) == (bus.subject(), 3, 1)
        await inbox.expect_nothing(self.quiet)

    async def test_latest_gets_only_later_ones(self, bus: Bus) -> None:
        """N3: latest → only what is published after subscribing."""
        await bus.ensure()
        await bus.publish(b"before")
        inbox = Inbox(ack=True)
        await bus.join(inbox, start=Start.LATEST)
        await bus.publish(b"after")
        await inbox.expect_payloads(b"after", within=bus.patience)

    async def test_two_groups_get_everything_each(self, bus: Bus) -> None:
        """N3: two groups → each gets every message once."""
        await bus.ensure()
        one, two = Inbox(ack=True), Inbox(ack=True)
        await bus.join(one, "one")
        await bus.join(two, "two")
        await bus.publish(b"1", b"2", b"3")
        await one.expect_payloads(b"1", b"2", b"3", within=bus.patience)
        await two.expect_payloads(b"1", b"2", b"3", within=bus.patience)

    async def test_members_share(self, bus: Bus, second: Transport) -> None:
        """Two members of one group, on two connections → each message to exactly one of them."""
        await bus.ensure(work_queue=True)
        one, two = Inbox(ack=True), Inbox(ack=True)
        await bus.join(one, credit=60)
        await bus.join(two, credit=60, over=second)
        await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(100)])
        await until(lambda: _is(len(one.messages) + len(two.messages) >= 100), bus.patience)
        assert sorted(one.payloads + two.payloads) == sorted(b"%d" % n for n in range(100))
        assert one.messages
        assert two.messages

    async def test_filters(self, bus: Bus) -> None:
        """A group with subjects gets those only; `*` is one token, `>` is all the rest; several may be given."""
        await bus.ensure()
        one, rest, two = Inbox(ack=True), Inbox(ack=True), Inbox(ack=True)
        await bus.join(one, "one", subjects=(bus.subject("*", "queue"),))
        await bus.join(rest, "rest", subjects=(bus.subject("x", ">"),))
        await bus.join(two, "two", subjects=(bus.subject("y", "other"), bus.subject("x", "deep", "er")))
        for tokens in (("x", "queue"), ("x", "deep", "er"), ("y", "queue"), ("y", "other"), ("x",)):
            await bus.publish(".".join(tokens).encode(), subject=bus.subject(*tokens))
        await one.expect_payloads(b"x.queue", b"y.queue", within=bus.patience)
        await rest.expect_payloads(b"x.queue", b"x.deep.er", within=bus.patience)
        await two.expect_payloads(b"x.deep.er", b"y.other", within=bus.patience)
        await one.expect_nothing(self.quiet)

    async def test_order_across_batches(self, bus: Bus) -> None:
        """Delivery is in the order of publishing, per subject, over many batches and while publishing goes on."""
        await bus.ensure()
        inbox = Inbox(ack=True)
        await bus.join(inbox, max_ack_pending=10_000)
        for start in range(0, 3000, 500):
            await bus.transport.publish_many(
                [Outgoing(bus.subject("ab"[n % 2]), b"%d" % n) for n in range(start, start + 500)]
            )
        await inbox.expect(3000, bus.patience)
        for subject, parity in ((bus.subject("a"), 0), (bus.subject("b"), 1)):
            got = [message.payload for message in inbox.messages if message.subject == subject]
            assert got == [b"%d" % n for n in range(parity, 3000, 2)]

    async def test_handlers_are_never_called_from_within(self, bus: Bus) -> None:
        """A handler may publish and settle: what follows from it comes in a later call, not inside of this one."""
        await bus.ensure()
        inside, nested = False, 0
        published: list[asyncio.Future[object]] = []

        def each(message: Message) -> None:
            nonlocal inside, nested
            nested += inside
            inside = True
            message.ack()
            if len(inbox.messages) < 5:
                published.append(asyncio.ensure_future(bus.transport.publish_many([Outgoing(bus.subject(), b"next")])))
            inside = False

        inbox = Inbox(each=each)
        await bus.join(inbox)
        await bus.publish(b"first")
        await inbox.expect(5, bus.patience)
        await asyncio.gather(*published)
        assert nested == 0

    # --- observers ---

    async def test_observers_see_everything_each(self, bus: Bus) -> None:
        """Without a name → an observer: each sees every message, and acknowledges nothing."""
        await bus.ensure()
        await bus.publish(b"1")
        one, two, late = Inbox(), Inbox(ack=True), Inbox()
        watching = await bus.join(one, None)
        await bus.join(two, None)
        await bus.join(late, None, start=Start.LATEST)
        await bus.publish(b"2")
        await one.expect_payloads(b"1", b"2", within=bus.patience)
        await two.expect_payloads(b"1", b"2", within=bus.patience)
        await late.expect_payloads(b"2", within=bus.patience)
        await watching.stop()
        await bus.publish(b"3")
        await two.expect_payloads(b"3", within=bus.patience)
        await one.expect_nothing(self.quiet)

    async def test_observers_see_what_is_not_acknowledged_once(self, bus: Bus) -> None:
        """An observer that says nothing sees each message once, however long it is silent."""
        await bus.ensure()
        inbox = Inbox()
        await bus.join(inbox, None, ack_wait=self.tick, max_ack_pending=2)
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        await inbox.expect_payloads(b"1", b"2", b"3", b"4", b"5", within=bus.patience)
        await inbox.expect_nothing(self.tick * 1.5)

    # --- N4: again ---

    async def test_nak_is_delivered_again(self, bus: Bus) -> None:
        """N4: nak → redelivered, as the second delivery."""
        await bus.ensure()
        inbox = Inbox()
        await bus.join(inbox)
        await bus.publish(b"1")
        (first,) = await inbox.expect(1, bus.patience)
        first.nak()
        (again,) = await inbox.expect(1, bus.patience)
        assert (again.payload, again.seq, again.deliveries) == (b"1", first.seq, 2)
        again.ack()

    async def test_delayed_nak(self, bus: Bus) -> None:
        """N4: nak with a delay → redelivered, not before it; others are not held up by it."""
        delay = self.tick * 1.5
        await bus.ensure()
        inbox = Inbox()
        await bus.join(inbox)
        await bus.publish(b"1")
        (first,) = await inbox.expect(1, bus.patience)
        told = asyncio.get_running_loop().time()
        first.nak(delay)
        await bus.publish(b"2")
        (other,) = await inbox.expect_payloads(b"2", within=bus.patience)
        other.ack()
        (again,) = await inbox.expect_payloads(b"1", within=bus.patience)
        assert inbox.times[-1] - told >= delay * 0.97
        assert inbox.times[-1] - told < delay + 1.0
        again.ack()

    async def test_delay_longer_than_the_ack_wait(self, bus: Bus) -> None:
        """N4: the delay counts, not the ack wait, where it is longer."""
        await bus.ensure()
        inbox = Inbox()
        await bus.join(inbox, ack_wait=self.tick)
        await bus.publish(b"1")
        (first,) = await inbox.expect(1, bus.patience)
        told = asyncio.get_running_loop().time()
        first.nak(self.tick * 2.5)
        (again,) = await inbox.expect(1, bus.patience)
        assert inbox.times[-1] - told >= self.tick * 2.4
        again.ack()

    async def test_nak_with_a_window_of_one(self, bus: Bus) -> None:
        """N4: a window of one message with nak, at once and delayed → still redelivered, and then the next one."""
        await bus.ensure()
        inbox = Inbox()
        await bus.join(inbox, max_ack_pending=1)
        await bus.publish(b"1", b"2")
        (first,) = await inbox.expect_payloads(b"1", within=bus.patience)
        first.nak()
        (again,) = await inbox.expect_payloads(b"1", within=bus.patience)
        again.nak(self.tick / 2)
        (third,) = await inbox.expect_payloads(b"1", within=bus.patience)
        third.ack()
        (other,) = await inbox.expect_payloads(b"2", within=bus.patience)
        other.ack()

    async def test_silence_is_delivered_again(self, bus: Bus) -> None:
        """An unacknowledged message comes again after the ack wait, not before."""
        await bus.ensure()
        inbox = Inbox()
        subscription = await bus.join(inbox, ack_wait=self.tick)
        assert subscription.ack_wait == pytest.approx(self.tick)
        await bus.publish(b"1")
        await inbox.expect(1, bus.patience)
        (again,) = await inbox.expect(1, bus.patience)
        assert inbox.times[1] - inbox.times[0] >= self.tick * 0.9
        assert again.deliveries == 2
        again.ack()
        await inbox.expect_nothing(self.tick * 1.4)

    async def test_in_progress_starts_the_wait_anew(self, bus: Bus) -> None:
        """`in_progress`: as long as it is said, the message is not delivered again; when it ends, it is."""
        await bus.ensure()
        inbox = Inbox()
        await bus.join(inbox, ack_wait=self.tick)
        await bus.publish(b"1")
        (first,) = await inbox.expect(1, bus.patience)
        for _ in range(5):
            await inbox.expect_nothing(self.tick * 0.3)
            first.in_progress()
        assert not first.settled
        (again,) = await inbox.expect(1, bus.patience)
        assert inbox.times[1] - inbox.times[0] >= self.tick * 2.3
        again.ack()

    async def test_max_deliver(self, bus: Bus) -> None:
        """`max_deliver` 2: a third delivery never comes; others do."""
        await bus.ensure()
        inbox = Inbox()
        await bus.join(inbox, max_deliver=2, ack_wait=self.tick, max_ack_pending=1)
        await bus.publish(b"1")
        (first,) = await inbox.expect_payloads(b"1", within=bus.patience)
        first.nak()
        (again,) = await inbox.expect_payloads(b"1", within=bus.patience)
        again.nak()
        await inbox.expect_nothing(self.tick * 1.4)
        await bus.publish(b"2")
        (other,) = await inbox.expect_payloads(b"2", within=bus.patience)
        other.ack()

    async def test_term_ends_it(self, bus: Bus) -> None:
        """`term`: never again, and a work queue is rid of it."""
        await bus.ensure(work_queue=True)
        inbox = Inbox()
        await bus.join(inbox, ack_wait=self.tick)
        await bus.publish(b"1")
        (message,) = await inbox.expect(1, bus.patience)
        message.term()
        await inbox.expect_nothing(self.tick * 1.4)
        await until(lambda: holds(bus, 0), bus.patience)

    # --- N5: windows, and consumers that die ---

    async def test_window(self, bus: Bus) -> None:
        """N5: a handler that never acks, a window of two, five messages → two delivered; an ack lets the third in."""
        await bus.ensure()
        inbox = Inbox()
        await bus.join(inbox, max_ack_pending=2)
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        first, _ = await inbox.expect_payloads(b"1", b"2", within=bus.patience)
        await inbox.expect_nothing(self.quiet)
        first.ack()
        await inbox.expect_payloads(b"3", within=bus.patience)
        await inbox.expect_nothing(self.quiet)

    async def test_window_is_the_groups(self, bus: Bus, second: Transport) -> None:
        """N5: the window counts for all members together."""
        await bus.ensure()
        one, two = Inbox(), Inbox()
        await bus.join(one, max_ack_pending=3)
        await bus.join(two, max_ack_pending=3, over=second)
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        await until(lambda: _is(len(one.messages) + len(two.messages) >= 3), bus.patience)
        await asyncio.sleep(self.quiet)
        assert len(one.messages) + len(two.messages) == 3

    async def test_dead_consumer_with_a_full_window(self, bus: Bus, second: Transport) -> None:
        """N5: a consumer that is gone with a full window → another one gets all of it after the ack wait."""
        await bus.ensure(work_queue=True)
        doomed, heir = Inbox(), Inbox(ack=True)
        await bus.join(doomed, max_ack_pending=2, ack_wait=self.tick * 2, over=second)
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        await doomed.expect_payloads(b"1", b"2", within=bus.patience)
        await second.close()
        await bus.join(heir)
        await heir.expect(5, bus.patience)
        assert sorted(heir.payloads) == [b"1", b"2", b"3", b"4", b"5"]
        assert {message.payload for message in heir.messages if message.deliveries == 2} == {b"1", b"2"}

    async def test_stopped_subscription_keeps_what_it_holds(self, bus: Bus) -> None:
        """`stop`: nothing more comes, and what was delivered can still be acknowledged."""
        await bus.ensure(work_queue=True)
        mine, others = Inbox(), Inbox()
        subscription = await bus.join(mine, credit=1, ack_wait=self.tick * 2)
        await bus.publish(b"1", b"2")
        (held,) = await mine.expect_payloads(b"1", within=bus.patience)
        await subscription.stop()
        subscription.grant(5)
        held.ack()
        await bus.transport.flush()
        await bus.join(others)
        (second,) = await others.expect_payloads(b"2", within=bus.patience)
        second.ack()
        await others.expect_nothing(self.tick * 2.6)
        await mine.expect_nothing(0.01)

    async def test_group_goes_on_where_it_was(self, bus: Bus) -> None:
        """A group without members keeps its place: the next member gets what came meanwhile, nothing twice."""
        await bus.ensure()
        first, later = Inbox(ack=True), Inbox(ack=True)
        subscription = await bus.join(first)
        await bus.publish(b"1")
        await first.expect_payloads(b"1", within=bus.patience)
        await subscription.stop()
        await bus.transport.flush()
        await bus.publish(b"2", b"3")
        await bus.join(later, start=Start.LATEST)
        await later.expect_payloads(b"2", b"3", within=bus.patience)

    async def test_existing_settings_are_adopted(self, bus: Bus, second: Transport) -> None:
        """A group's settings are never changed by who joins: the second member sees the first one's ack wait."""
        await bus.ensure()
        await bus.join(Inbox(), ack_wait=7.0, max_ack_pending=2, subjects=(bus.subject("a"),))
        inbox = Inbox()
        subscription = await bus.join(inbox, ack_wait=60.0, max_ack_pending=500, over=second)
        assert subscription.ack_wait == pytest.approx(7.0)
        await bus.publish(*[b"%d" % n for n in range(8)])
        await until(lambda: pending(bus, 2), bus.patience)
        await asyncio.sleep(self.quiet)
        assert await pending(bus, 2)

    async def test_work_queue_message_lives_until_acknowledged(self, bus: Bus) -> None:
        """Work queue: acknowledged → gone; not acknowledged → still there."""
        await bus.ensure(work_queue=True)
        inbox = Inbox()
        await bus.join(inbox)
        await bus.publish(b"1", b"2")
        first, _ = await inbox.expect(2, bus.patience)
        assert await holds(bus, 2)
        first.ack()
        await until(lambda: holds(bus, 1), bus.patience)

    async def test_work_queue_has_one_group_per_subject(self, bus: Bus) -> None:
        """Work queue: groups for different subjects live side by side; a second one for the same is refused."""
        await bus.ensure(work_queue=True)
        shell, http = Inbox(ack=True), Inbox(ack=True)
        await bus.join(shell, "shell", subjects=(bus.subject("shell"),))
        await bus.join(http, "http", subjects=(bus.subject("http"),))
        with pytest.raises(Refused):
            await bus.join(Inbox(), "thief", subjects=(bus.subject("*"),))
        await bus.publish(b"s", subject=bus.subject("shell"))
        await bus.publish(b"h", subject=bus.subject("http"))
        await shell.expect_payloads(b"s", within=bus.patience)
        await http.expect_payloads(b"h", within=bus.patience)

    # --- N6: dead letters ---

    async def test_dead_letter(self, bus: Bus) -> None:
        """N6: dead_letter("doomed") → one message on `gbe._deadletter.{domain}` with the reason; the queue flows."""
        await bus.ensure(bus.subject("queue"), work_queue=True)
        letters = await self._dead_letters(bus)
        inbox = Inbox()
        await bus.join(inbox, ack_wait=self.tick)
        await bus.transport.publish(bus.subject("queue"), b"\xff\x00 not json", headers={"traceparent": "00-1"})
        await bus.publish(b"2", subject=bus.subject("queue"))
        doomed, other = await inbox.expect(2, bus.patience)
        await doomed.dead_letter("doomed")
        assert doomed.settled
        other.ack()
        (stored,) = await letters.expect(1, bus.patience)
        letter = PayloadDecoder(DeadLetter).decode(stored.payload).data
        assert stored.subject == dead_letter_subject(bus.subject("queue"))
        assert (letter.subject, letter.stream, letter.seq) == (bus.subject("queue"), bus.stream, doomed.seq)
        assert letter.reason == "doomed"
        assert letter.body == b"\xff\x00 not json"
        assert letter.headers["traceparent"] == "00-1"
        await until(lambda: holds(bus, 0), bus.patience)
        await inbox.expect_nothing(self.tick * 1.4)
        await letters.expect_nothing(self.quiet)

    async def test_dead_letter_of_a_large_message(self, bus: Bus) -> None:
        """N6: a message too large for a dead letter → one without its payload that says so; the queue is rid of it."""
        await bus.ensure(bus.subject("queue"), work_queue=True)
        letters = await self._dead_letters(bus)
        inbox = Inbox()
        await bus.join(inbox)
        await bus.publish(b"x" * (bus.transport.max_payload - 10), subject=bus.subject("queue"))
        (doomed,) = await inbox.expect(1, bus.patience)
        await doomed.dead_letter("doomed")
        (stored,) = await letters.expect(1, bus.patience)
        letter = PayloadDecoder(DeadLetter).decode(stored.payload).data
        assert letter.body == b""
        assert letter.reason.startswith("doomed")
        assert str(len(doomed.payload)) in letter.reason
        await until(lambda: holds(bus, 0), bus.patience)

    async def test_dead_letter_that_can_not_be_stored(self, bus: Bus) -> None:
        """N6: no stream takes the dead letter → an error, and the message is not settled: nothing is lost."""
        await bus.ensure(work_queue=True)
        inbox = Inbox()
        await bus.join(inbox)
        await bus.publish(b"1")
        (message,) = await inbox.expect(1, bus.patience)
        with pytest.raises(NexusError):
            await message.dead_letter("doomed")
        assert not message.settled
        message.nak()
        (again,) = await inbox.expect(1, bus.patience)
        again.ack()

    async def _dead_letters(self, bus: Bus) -> Inbox:
        """Where this test's dead letters arrive; their domain is the test's token, so no other test's do."""
        stream = bus.stream + "DEAD"
        await bus.transport.ensure_stream(Stream(stream, (dead_letter_subject(bus.subject()),)))
        inbox = Inbox(ack=True)
        await bus.transport.subscribe(ConsumerSpec(stream, "letters"), inbox)
        return inbox

    # --- N7: the first word counts ---

    async def test_the_first_word_counts(self, bus: Bus) -> None:
        """N7: ack, nak, term and dead_letter after each other → the first wins, the others do nothing."""
        await bus.ensure(bus.subject("a"))
        letters = await self._dead_letters(bus)
        inbox = Inbox()
        await bus.join(inbox, ack_wait=self.tick)
        await bus.publish(b"ack", b"nak", b"term", b"dead")
        acked, nakked, termed, dead = await inbox.expect(4, bus.patience)
        assert not any(message.settled for message in inbox.messages)
        acked.ack()
        acked.nak()
        await acked.dead_letter("late")
        nakked.nak()
        nakked.ack()
        await nakked.dead_letter("late")
        termed.term()
        termed.nak()
        await termed.dead_letter("late")
        await dead.dead_letter("first")
        dead.nak()
        await dead.dead_letter("second")
        assert all(message.settled for message in (acked, nakked, termed, dead))
        (again,) = await inbox.expect_payloads(b"nak", within=bus.patience)
        assert again.deliveries == 2
        again.ack()
        (stored,) = await letters.expect(1, bus.patience)
        assert PayloadDecoder(DeadLetter).decode(stored.payload).data.reason == "first"
        await inbox.expect_nothing(self.tick * 1.4)
        await letters.expect_nothing(0.01)

    # --- bookkeeping ---

    async def test_consumer_state(self, bus: Bus) -> None:
        """`consumer_state`: the ack floor stops below the first unacknowledged message, whatever came after it."""
        await bus.ensure()
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        inbox = Inbox()
        subscription = await bus.join(inbox, credit=4)
        first, second, third, _ = await inbox.expect(4, bus.patience)
        state = await bus.transport.consumer_state(bus.stream, "group")
        assert (state.name, state.ack_floor, state.delivered) == ("group", 0, 4)
        assert (state.pending, state.ack_pending, state.waiting) == (1, 4, 0)
        first.ack()
        third.ack()
        await until(lambda: floor_is(bus, 1), bus.patience)
        assert await pending(bus, 2)
        second.ack()
        await until(lambda: floor_is(bus, 3), bus.patience)
        assert await pending(bus, 1)
        subscription.grant(5)
        (fifth,) = await inbox.expect_payloads(b"5", within=bus.patience)
        fifth.ack()
        inbox.messages[3].ack()
        await until(lambda: floor_is(bus, 5), bus.patience)
        state = await bus.transport.consumer_state(bus.stream, "group")
        assert (state.delivered, state.pending, state.ack_pending) == (5, 0, 0)
        assert state.waiting > 0

    async def test_delayed_naks_are_pending(self, bus: Bus) -> None:
        """`ack_pending` counts delayed naks; the ack floor stays below them."""
        await bus.ensure()
        await bus.publish(b"1", b"2")
        inbox = Inbox()
        await bus.join(inbox)
        first, second = await inbox.expect(2, bus.patience)
        first.nak(30)
        second.ack()
        await until(lambda: pending(bus, 1), bus.patience)
        state = await bus.transport.consumer_state(bus.stream, "group")
        assert state.ack_floor == 0

    async def test_nobody_listens(self, bus: Bus) -> None:
        """`waiting` is 0 where the group has no member any more."""
        await bus.ensure()
        subscription = await bus.join(Inbox())

        async def waited_for(someone: bool) -> bool:
            return ((await bus.transport.consumer_state(bus.stream, "group")).waiting > 0) is someone

        await until(lambda: waited_for(True), bus.patience)
        await subscription.stop()
        await until(lambda: waited_for(False), bus.patience)

    async def test_unknown_group(self, bus: Bus) -> None:
        """`consumer_state` of a group nobody made → `NotFound`."""
        await bus.ensure()
        with pytest.raises(NotFound):
            await bus.transport.consumer_state(bus.stream, "nobody")

    async def test_trimmed_messages_do_not_come(self, bus: Bus) -> None:
        """What was trimmed is not delivered, neither for the first time nor again; the rest is."""
        await bus.ensure()
        await bus.publish(b"1", b"2", b"3", b"4")
        inbox = Inbox()
        subscription = await bus.join(inbox, credit=2, ack_wait=self.tick)
        await inbox.expect_payloads(b"1", b"2", within=bus.patience)
        await bus.transport.trim(bus.stream, 4)
        await asyncio.sleep(self.tick * 1.2)
        subscription.grant(5)
        (last,) = await inbox.expect_payloads(b"4", within=bus.patience)
        last.ack()
        await inbox.expect_nothing(self.quiet)


async def pending(bus: Bus, count: int) -> bool:
    """Whether the group has that many messages delivered and not acknowledged."""
    return (await bus.transport.consumer_state(bus.stream, "group")).ack_pending == count


async def floor_is(bus: Bus, seq: int) -> bool:
    """Whether the group's ack floor has come to be there; never above it."""
    floor = (await bus.transport.consumer_state(bus.stream, "group")).ack_floor
    assert floor <= seq
    return floor == seq


async def _is(fact: bool) -> bool:
    """A fact, for `until`."""
    return fact
