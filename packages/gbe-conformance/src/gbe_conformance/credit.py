"""Credit and pinning: never more than granted, nothing lost, one at a time."""

from __future__ import annotations

import asyncio

from gbe_conformance.contract import Bus, Contract
from gbe_conformance.inbox import Inbox, until
from gbe_nexus import Outgoing, Transport


class CreditContract(Contract):
    """The credit of `subscribe` and `grant`."""

    async def test_never_more_than_granted(self, bus: Bus) -> None:
        """A credit of two, five messages → two, though they are acknowledged; each grant lets as many more come."""
        await bus.ensure(work_queue=True)
        inbox = Inbox(ack=True)
        subscription = await bus.join(inbox, credit=2)
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        await inbox.expect_payloads(b"1", b"2", within=bus.patience)
        await inbox.expect_nothing(self.quiet)
        subscription.grant(1)
        await inbox.expect_payloads(b"3", within=bus.patience)
        await inbox.expect_nothing(self.quiet)
        subscription.grant(10)
        await inbox.expect_payloads(b"4", b"5", within=bus.patience)

    async def test_credit_waits_for_messages(self, bus: Bus) -> None:
        """Credit that finds nothing is kept: the messages that come later use it, and no more than it."""
        await bus.ensure(work_queue=True)
        inbox = Inbox(ack=True)
        subscription = await bus.join(inbox, credit=0)
        await bus.publish(b"0")
        await inbox.expect_nothing(self.quiet)
        for _ in range(4):
            subscription.grant(1)
        await inbox.expect_payloads(b"0", within=bus.patience)
        await inbox.expect_nothing(self.quiet)
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        await inbox.expect_payloads(b"1", b"2", b"3", within=bus.patience)
        await inbox.expect_nothing(self.quiet)

    async def test_one_by_one(self, bus: Bus) -> None:
        """A grant for each message that was worked off → never more than the credit in hand, every message once."""
        await bus.ensure(work_queue=True)
        inbox = Inbox()
        subscription = await bus.join(inbox, credit=4)
        await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(200)])
        for done in range(200):
            (message,) = await inbox.expect(1, bus.patience)
            assert len(inbox.messages) <= done + 4
            message.ack()
            subscription.grant(1)
        assert inbox.payloads == [b"%d" % n for n in range(200)]

    async def test_redeliveries_use_credit(self, bus: Bus) -> None:
        """A message that comes again is a delivery like any other: without credit it waits."""
        await bus.ensure(work_queue=True)
        inbox = Inbox()
        subscription = await bus.join(inbox, credit=1)
        await bus.publish(b"1")
        (first,) = await inbox.expect(1, bus.patience)
        first.nak()
        await inbox.expect_nothing(self.quiet)
        subscription.grant(1)
        (again,) = await inbox.expect_payloads(b"1", within=bus.patience)
        again.ack()

    async def test_credit_of_each_member(self, bus: Bus, second: Transport) -> None:
        """Two members with credit of their own → each gets its own number, the rest waits."""
        await bus.ensure(work_queue=True)
        one, two = Inbox(ack=True), Inbox(ack=True)
        await bus.join(one, credit=3)
        await bus.join(two, credit=5, over=second)
        await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(20)])
        await one.expect(3, bus.patience)
        await two.expect(5, bus.patience)
        await one.expect_nothing(self.quiet)
        await two.expect_nothing(0.01)

    async def test_credit_outlives_an_idle_time(self, bus: Bus) -> None:
        """Credit is neither lost nor doubled while nothing comes for longer than an ack wait."""
        await bus.ensure(work_queue=True)
        inbox = Inbox(ack=True)
        await bus.join(inbox, credit=3, ack_wait=self.tick)
        await inbox.expect_nothing(self.tick * 3)
        await bus.publish(b"1", b"2", b"3", b"4", b"5")
        await inbox.expect_payloads(b"1", b"2", b"3", within=bus.patience)
        await inbox.expect_nothing(self.quiet)


class PinnedContract(Contract):
    """Pinned groups: one works, the others stand by."""

    async def test_one_gets_everything(self, bus: Bus, second: Transport) -> None:
        """Two members of a pinned group → one of them gets all messages, in order."""
        await bus.ensure()
        one, two = Inbox(ack=True), Inbox(ack=True)
        await bus.join(one, pinned=True, pin_timeout=0.5)
        await bus.join(two, pinned=True, pin_timeout=0.5, over=second)
        for start in range(0, 60, 20):
            await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(start, start + 20)])
            await asyncio.sleep(0.05)
        busy, idle = await self._pinned(one, two)
        await busy.expect(60, bus.patience)
        assert busy.payloads == [b"%d" % n for n in range(60)]
        assert not idle.messages

    async def test_takeover_after_stop(self, bus: Bus, second: Transport) -> None:
        """The pinned member stops → the other one takes over within the pin timeout, and gets the rest."""
        await bus.ensure()
        one, two = Inbox(ack=True), Inbox(ack=True)
        subscriptions = {
            one: await bus.join(one, pinned=True, pin_timeout=0.5),
            two: await bus.join(two, pinned=True, pin_timeout=0.5, over=second),
        }
        await bus.publish(b"1")
        busy, idle = await self._pinned(one, two)
        await bus.transport.flush()
        await second.flush()
        await subscriptions[busy].stop()
        await bus.publish(b"2", b"3")
        await idle.expect_payloads(b"2", b"3", within=3.0)

    async def test_takeover_from_the_dead(self, bus: Bus, second: Transport) -> None:
        """The pinned member dies with messages in hand → the other one gets these, too."""
        await bus.ensure()
        one, two = Inbox(), Inbox(ack=True)
        await bus.join(one, pinned=True, pin_timeout=0.5, ack_wait=self.tick * 2, over=second)
        await bus.publish(b"1", b"2")
        await one.expect_payloads(b"1", b"2", within=bus.patience)
        await bus.join(two, pinned=True)
        await second.close()
        await bus.publish(b"3")
        await two.expect(3, bus.patience)
        assert sorted(two.payloads) == [b"1", b"2", b"3"]

    async def _pinned(self, one: Inbox, two: Inbox) -> tuple[Inbox, Inbox]:
        """The one that gets messages, and the other."""

        async def known() -> bool:
            return bool(one.messages or two.messages)

        await until(known, self.patience)
        return (one, two) if one.messages else (two, one)
