"""The connection: hints and listeners, flushing, closing."""

from __future__ import annotations

import asyncio

import pytest

from gbe_conformance.contract import Bus, Contract
from gbe_conformance.inbox import Inbox, until
from gbe_conformance.streams import holds
from gbe_nexus import ClosedError, Outgoing, PayloadTooLarge, Stream, Transport


class Ear:
    """A handler for `listen`, with expectations."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []

    def __call__(self, subject: str, payload: bytes) -> None:
        """The handler."""
        self.heard.append((subject, payload))

    async def expect(self, *heard: tuple[str, bytes], within: float) -> None:
        """Exactly this was heard, in this order."""

        async def enough() -> bool:
            return len(self.heard) >= len(heard)

        await until(enough, within)
        assert self.heard == list(heard)


class ConnectionContract(Contract):
    """`hint`, `listen`, `flush`, `close`."""

    async def test_listeners_hear_what_is_stored_and_what_is_not(self, bus: Bus, second: Transport) -> None:
        """`listen`: every message on the subjects from now on, published or hinted, stored or not."""
        await bus.ensure(bus.subject("stored", ">"))
        await bus.publish(b"before", subject=bus.subject("stored", "x"))
        ear = Ear()
        await second.listen([bus.subject("stored", "*"), bus.subject("loose")], ear)
        if self.capabilities.cluster:
            await self._known_everywhere(bus, second)
        await bus.publish(b"1", subject=bus.subject("stored", "x"))
        bus.transport.hint(bus.subject("loose"), b"2")
        bus.transport.hint(bus.subject("elsewhere"), b"no")
        await bus.transport.publish_many([Outgoing(bus.subject("stored", "y"), b"3")])
        await ear.expect(
            (bus.subject("stored", "x"), b"1"),
            (bus.subject("loose"), b"2"),
            (bus.subject("stored", "y"), b"3"),
            within=bus.patience,
        )

    async def _known_everywhere(self, bus: Bus, listening: Transport) -> None:
        """Members of a cluster tell each other who listens: wait until what is published elsewhere is heard here."""
        probe = Ear()
        subscription = await listening.listen([bus.subject("probe")], probe)

        async def heard() -> bool:
            bus.transport.hint(bus.subject("probe"), b"")
            return bool(probe.heard)

        await until(heard, bus.patience)
        await subscription.stop()

    async def test_listening_takes_nothing_from_groups(self, bus: Bus) -> None:
        """A listener hears the queue's messages; the group gets them all the same."""
        await bus.ensure(work_queue=True)
        ear, inbox = Ear(), Inbox(ack=True)
        await bus.transport.listen([bus.subject(">")], ear)
        await bus.join(inbox)
        await bus.publish(b"1")
        await inbox.expect_payloads(b"1", within=bus.patience)
        await ear.expect((bus.subject(), b"1"), within=bus.patience)

    async def test_stopped_listeners_hear_nothing(self, bus: Bus) -> None:
        """A listener that was stopped is not called again; another one is."""
        stopped, other = Ear(), Ear()
        listening = await bus.transport.listen([bus.subject()], stopped)
        await bus.transport.listen([bus.subject()], other)
        await listening.stop()
        bus.transport.hint(bus.subject(), b"1")
        await other.expect((bus.subject(), b"1"), within=bus.patience)
        assert not stopped.heard

    async def test_hints_are_stored_where_a_stream_takes_them(self, bus: Bus) -> None:
        """`hint` is a publish nobody waits for: a stream with the subject stores it, headers and all."""
        await bus.ensure()
        inbox = Inbox(ack=True)
        await bus.join(inbox)
        bus.transport.hint(bus.subject(), b"1", headers={"traceparent": "00-1"})
        (message,) = await inbox.expect_payloads(b"1", within=bus.patience)
        assert message.headers["traceparent"] == "00-1"

    async def test_hints_that_nobody_takes_are_dropped(self, bus: Bus) -> None:
        """`hint` never raises for what the bus says: no stream, nobody listening, a full stream."""
        await bus.ensure(bus.subject("full"), max_messages=1)
        bus.transport.hint(bus.subject("nowhere"), b"1")
        bus.transport.hint(bus.subject("full"), b"1")
        bus.transport.hint(bus.subject("full"), b"2")
        await bus.transport.flush()
        await until(lambda: holds(bus, 1), bus.patience)
        assert bus.transport.connected

    async def test_hints_too_large_to_send_are_refused(self, bus: Bus) -> None:
        """`hint` above `max_payload` → `PayloadTooLarge` at once: that is a mistake, not bad luck."""
        with pytest.raises(PayloadTooLarge):
            bus.transport.hint(bus.subject(), b"x" * (bus.transport.max_payload + 1))
        assert bus.transport.connected

    async def test_connected(self, transport: Transport) -> None:
        """`connected` until closed."""
        assert transport.connected
        await transport.close()
        assert not transport.connected

    async def test_closed(self, bus: Bus) -> None:
        """N8: everything after close → `ClosedError`; closing twice is fine."""
        transport = bus.transport
        spec = await bus.ensure()
        await transport.close()
        await transport.close()
        for call in (
            lambda: transport.publish(bus.subject(), b"1"),
            lambda: transport.publish_many([Outgoing(bus.subject(), b"1")]),
            lambda: transport.ensure_stream(spec),
            lambda: transport.stream_state(bus.stream),
            lambda: bus.join(Inbox()),
            lambda: transport.listen([bus.subject()], Ear()),
            lambda: transport.consumer_state(bus.stream, "group"),
            lambda: transport.trim(bus.stream, 1),
            lambda: transport.journal(bus.stream),
            lambda: transport.state_store(bus.token),
            lambda: transport.artifact_store(bus.token),
            transport.flush,
        ):
            with pytest.raises(ClosedError):
                await call()

    async def test_close_writes_out_acknowledgements(self, bus: Bus, second: Transport) -> None:
        """N8: close drains what is in hand: what was acknowledged before it is, and never comes again."""
        await bus.ensure(work_queue=True)
        mine, others = Inbox(ack=True), Inbox()
        await bus.join(mine, ack_wait=self.tick, over=second)
        await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(50)])
        await mine.expect(50, bus.patience)
        await second.close()
        await until(lambda: holds(bus, 0), bus.patience)
        await bus.join(others)
        await others.expect_nothing(self.tick * 1.4)

    async def test_close_ends_subscriptions(self, bus: Bus, second: Transport) -> None:
        """N8: nothing is delivered to a closed connection; others get it."""
        await bus.ensure()
        mine, ear, others = Inbox(), Ear(), Inbox()
        await bus.join(mine, over=second)
        await second.listen([bus.subject(">")], ear)
        await second.close()
        await bus.join(others)
        await bus.publish(b"1")
        await others.expect_payloads(b"1", within=bus.patience)
        await mine.expect_nothing(0.01)
        assert not ear.heard

    async def test_flush(self, bus: Bus) -> None:
        """`flush`: the acks said before it are known to the bus."""
        await bus.ensure(work_queue=True)
        inbox = Inbox(ack=True)
        await bus.join(inbox)
        await bus.publish(b"1")
        await inbox.expect(1, bus.patience)
        await bus.transport.flush()
        await until(lambda: holds(bus, 0), bus.patience)

    async def test_connections_share_the_bus(self, bus: Bus, second: Transport) -> None:
        """What one connection publishes another one gets."""
        await bus.ensure()
        inbox = Inbox(ack=True)
        await bus.join(inbox, over=second)
        await asyncio.gather(*(bus.publish(b"%d" % n) for n in range(10)))
        await inbox.expect(10, bus.patience)
        assert sorted(inbox.payloads) == sorted(b"%d" % n for n in range(10))

    async def test_structural_specs(self, bus: Bus) -> None:
        """A stream's description need not be a `Stream`: anything with its properties is one."""

        class Own:
            name = bus.stream
            subjects = (bus.subject(">"),)
            work_queue = True
            discard_old = False
            max_age = 0.0
            max_bytes = 0
            max_messages = 0
            max_per_subject = 0
            max_message_size = 0
            duplicate_window = 30.0

        await bus.transport.ensure_stream(Own())
        await bus.transport.ensure_stream(Stream(bus.stream, Own.subjects, work_queue=True, duplicate_window=30))
