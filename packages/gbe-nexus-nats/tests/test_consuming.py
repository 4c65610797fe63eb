"""Pull loops where it hurts: restarts, stopped processes, other people's consumers, credit asked for in vain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from gbe_nexus import (
    ConsumerSpec,
    Message,
    NexusError,
    Outgoing,
    PubAck,
    Start,
    Stream,
    Transport,
    Unavailable,
    connect,
)
from gbe_nexus_nats import consumer
from gbe_nexus_nats.consumer import GroupSubscription
from gbe_nexus_nats.message import AckReply
from gbe_nexus_nats.server import EmbeddedServer
from gbe_nexus_nats.transport import NatsTransport

pytestmark = pytest.mark.server


class Got:
    """Collects and acknowledges."""

    def __init__(self, ack: bool = True) -> None:
        self.messages: list[Message] = []
        self._ack = ack

    def __call__(self, messages: Sequence[Message]) -> None:
        self.messages.extend(messages)
        if self._ack:
            for message in messages:
                message.ack()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def reach(self, count: int, within: float = 20.0) -> None:
        async with asyncio.timeout(within):
            while len(self.messages) < count:
                await asyncio.sleep(0.005)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer() as one:
        yield one


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[NatsTransport]:
    transport = await connect(server.url, server.options)
    assert isinstance(transport, NatsTransport)
    await transport.ensure_stream(Stream("S", ("s.>",)))
    yield transport
    await transport.close()


async def put(bus: Transport, *payloads: bytes) -> None:
    results = await bus.publish_many([Outgoing("s.x", payload) for payload in payloads])
    assert all(isinstance(result, PubAck) for result in results), results


async def until(condition: Callable[[], bool], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


async def test_partial_pulls_give_their_credit_back(bus: NatsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that expire half served are asked again for the rest, never for more."""
    monkeypatch.setattr(consumer, "LONGEST_PULL", 0.3)
    got = Got()
    subscription = await bus.subscribe(ConsumerSpec("S", "g"), got, credit=10)
    for number in range(6):
        await put(bus, b"%d" % number)
        await asyncio.sleep(0.12)
    await put(bus, *(b"more %d" % n for n in range(20)))
    await got.reach(10)
    await asyncio.sleep(0.5)
    assert len(got.messages) == 10
    state = await bus.consumer_state("S", "g")
    assert (state.delivered, state.ack_pending, state.waiting) == (10, 0, 0)
    for _ in range(5):
        subscription.grant(1)
    await got.reach(15)
    await asyncio.sleep(0.3)
    assert len(got.messages) == 15


async def test_no_credit_nothing_comes(bus: NatsTransport) -> None:
    got = Got()
    subscription = await bus.subscribe(ConsumerSpec("S", "g"), got, credit=0)
    await put(bus, b"1")
    await asyncio.sleep(0.2)
    assert not got.messages
    subscription.grant(1)
    await got.reach(1)
    with pytest.raises(ValueError, match="negative"):
        subscription.grant(-1)


async def test_many_in_order(bus: NatsTransport) -> None:
    got = Got()
    await bus.subscribe(ConsumerSpec("S", "g"), got)
    expected = [b"%d" % number for number in range(5000)]
    await put(bus, *expected)
    await got.reach(5000)
    assert got.payloads == expected


async def test_existing_group_is_adopted(bus: NatsTransport, caplog: pytest.LogCaptureFixture) -> None:
    """A second spec does not change the group for everyone; the difference is logged."""
    first = await bus.subscribe(ConsumerSpec("S", "g", ack_wait=7, max_ack_pending=50), Got())
    with caplog.at_level(logging.WARNING, "gbe.nexus.nats"):
        second = await bus.subscribe(ConsumerSpec("S", "g", ("s.x",), ack_wait=30, pinned=True), Got())
    assert first.ack_wait == second.ack_wait == 7
    for word in ("ack_wait", "max_ack_pending", "priority_groups", "subjects"):
        assert word in caplog.text
    info = await bus.api("$JS.API.CONSUMER.INFO.S.g")
    assert info["config"]["ack_wait"] == 7_000_000_000
    assert "priority_groups" not in info["config"]
    caplog.clear()
    await bus.subscribe(ConsumerSpec("S", "g", ack_wait=7, max_ack_pending=50), Got())
    assert not caplog.text


async def test_goes_on_after_a_restart(server: EmbeddedServer, bus: NatsTransport) -> None:
    """The known trap: pulls don't resume by themselves after the server was killed."""
    group, observer, plain = Got(), Got(), list[bytes]()
    await bus.subscribe(ConsumerSpec("S", "g"), group)
    await bus.subscribe(ConsumerSpec("S", start=Start.LATEST), observer)
    await bus.listen(["s.>"], lambda subject, payload: plain.append(payload))
    await put(bus, b"1")
    await group.reach(1)
    await observer.reach(1)
    await server.kill()
    await server.restart()
    await bus.publish("s.x", b"2", msg_id="2")
    await until(lambda: b"2" in group.payloads)
    await observer.reach(2)
    assert observer.payloads == [b"1", b"2"]
    await put(bus, b"3")
    await until(lambda: plain[-1] == b"3")


async def test_observer_of_later_ones_misses_nothing_over_a_restart(server: EmbeddedServer, bus: NatsTransport) -> None:
    """Published between the loss of its consumer and the next one: seen, although none was seen before."""
    await put(bus, b"old")
    observer = Got()
    await bus.subscribe(ConsumerSpec("S", start=Start.LATEST), observer)
    await server.kill()
    await server.restart()
    other = await connect(server.url, server.options)
    await put(other, b"new")
    await other.close()
    await observer.reach(1)
    assert observer.payloads == [b"new"]


@pytest.mark.parametrize("name", ["g", None])
async def test_deleted_consumer_is_made_again(bus: NatsTransport, name: str | None) -> None:
    got = Got()
    await bus.subscribe(ConsumerSpec("S", name), got)
    await put(bus, b"1")
    await got.reach(1)
    names = (await bus.api("$JS.API.CONSUMER.NAMES.S"))["consumers"]
    for one in names:
        await bus.api(f"$JS.API.CONSUMER.DELETE.S.{one}")
    await put(bus, b"2")
    await until(lambda: b"2" in got.payloads)
    if name is None:
        assert got.payloads == [b"1", b"2"]


async def test_observer_leaves_nothing_behind(bus: NatsTransport) -> None:
    subscription = await bus.subscribe(ConsumerSpec("S"), Got())
    await subscription.stop()
    await subscription.stop()
    async with asyncio.timeout(10):
        while (await bus.api("$JS.API.CONSUMER.NAMES.S"))["total"]:
            await asyncio.sleep(0.02)


async def test_stopping_hands_back_what_is_under_way(bus: NatsTransport) -> None:
    """Whatever was delivered and not seen by the handler is not held for the length of the lease."""
    first, second = Got(), Got()
    subscription = await bus.subscribe(ConsumerSpec("S", "g", ack_wait=30), first)
    pending = bus.publish_many([Outgoing("s.x", b"%d" % n) for n in range(2000)])
    await asyncio.sleep(0.01)
    await subscription.stop()
    await pending
    seen = len(first.messages)
    await bus.subscribe(ConsumerSpec("S", "g", ack_wait=30), second)
    await second.reach(2000 - seen)
    assert len(first.messages) == seen
    assert sorted(first.payloads + second.payloads) == sorted(b"%d" % n for n in range(2000))


async def test_pinned_takes_over(server: EmbeddedServer, bus: NatsTransport) -> None:
    """One of two gets everything; when it goes without a word, the other one does, soon."""
    spec = ConsumerSpec("S", "p", ack_wait=3, pinned=True, pin_timeout=1.0)
    other = await connect(server.url, server.options)
    assert isinstance(other, NatsTransport)
    first, second = Got(), Got()
    await bus.subscribe(spec, first)
    await put(bus, b"1")
    await first.reach(1)
    await other.subscribe(spec, second)
    for number in range(5):
        await put(bus, b"more %d" % number)
        await asyncio.sleep(0.3)
    await first.reach(6)
    assert not second.messages
    # Gone without a word: neither requests nor acks any more.
    bus.client.write = lambda frame: None  # type: ignore[method-assign]
    bus.client.write_or_hold = lambda frame: None  # type: ignore[method-assign]
    await put(other, b"2", b"3")
    await second.reach(2)
    del bus.client.write
    del bus.client.write_or_hold
    await other.close()


async def test_clean_stop_gives_the_pin_back(server: EmbeddedServer, bus: NatsTransport) -> None:
    """The next one need not wait for the pin's timeout."""
    spec = ConsumerSpec("S", "p", ack_wait=3, pinned=True, pin_timeout=30.0)
    first, second = Got(), Got()
    subscription = await bus.subscribe(spec, first)
    await put(bus, b"1")
    await first.reach(1)
    await bus.subscribe(spec, second)
    await subscription.stop()
    await put(bus, b"2")
    await second.reach(1, within=20)


async def test_dead_letter_too_large_loses_its_body_not_its_place(server: EmbeddedServer, bus: NatsTransport) -> None:
    await bus.ensure_stream(Stream("D", ("gbe._deadletter.>",)))
    got = Got(ack=False)
    await bus.subscribe(ConsumerSpec("S", "g"), got)
    await put(bus, b"x" * 1_000_000)
    await got.reach(1)
    (message,) = got.messages
    await message.dead_letter("doomed")
    assert message.settled
    state = await bus.stream_state("D")
    assert state.messages == 1
    assert state.bytes < 10_000


async def test_dead_letter_that_cannot_be_stored_settles_nothing(
    bus: NatsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = Got(ack=False)
    await bus.subscribe(ConsumerSpec("S", "g"), got)
    await put(bus, b"x")
    await got.reach(1)
    with pytest.raises(NexusError):  # no stream takes dead letters here
        await got.messages[0].dead_letter("doomed")
    assert not got.messages[0].settled


async def test_acks_said_while_the_server_is_away_still_count(server: EmbeddedServer, bus: NatsTransport) -> None:
    got = Got(ack=False)
    subscription = await bus.subscribe(ConsumerSpec("S", "g", ack_wait=30), got)
    await put(bus, b"1", b"2")
    await got.reach(2)
    await asyncio.sleep(0.3)  # The server writes what it delivered a moment later; what a kill loses comes again.
    await server.kill()
    await until(lambda: not bus.connected)
    for message in got.messages:
        message.ack()
    await server.restart()
    await until(lambda: bus.connected)
    await bus.flush()
    async with asyncio.timeout(10):
        while (await bus.consumer_state("S", "g")).ack_floor != 2:
            await asyncio.sleep(0.02)
    await subscription.stop()


async def test_stopped_server_is_noticed_and_survived(
    server: EmbeddedServer, bus: NatsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missed heartbeats: asked again, and nothing is delivered twice to a finite credit."""
    got = Got()
    monkeypatch.setattr(consumer, "HEARTBEAT", 0.2)
    await bus.subscribe(ConsumerSpec("S", "g"), got, credit=5)
    server.suspend()
    await asyncio.sleep(1.5)
    server.resume()
    await put(bus, *(b"%d" % n for n in range(20)))
    await got.reach(5)
    await asyncio.sleep(0.5)
    assert len(got.messages) == 5


async def test_handler_that_raises_is_logged(bus: NatsTransport, caplog: pytest.LogCaptureFixture) -> None:
    def broken(messages: Sequence[Message]) -> None:
        raise RuntimeError("broken handler")

    await bus.subscribe(ConsumerSpec("S", "g"), broken)
    await put(bus, b"1")
    await until(lambda: "broken handler" in caplog.text)
    assert bus.connected


async def test_group_state_while_everybody_is_away(server: EmbeddedServer, bus: NatsTransport) -> None:
    subscription = await bus.subscribe(ConsumerSpec("S", "g"), Got())
    assert isinstance(subscription, GroupSubscription)
    async with asyncio.timeout(10):
        while not (await bus.consumer_state("S", "g")).waiting:  # the first pull may still be under way
            await asyncio.sleep(0.01)
    await subscription.stop()
    await put(bus, b"1", b"2")
    assert (await bus.consumer_state("S", "g")).pending == 2
    await server.kill()
    await until(lambda: not bus.connected)
    with pytest.raises(Unavailable):
        await bus.requests.api("$JS.API.CONSUMER.INFO.S.g", timeout=0.3)


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.S.g.2.17.4.1700000000000000000.9",
        b"$JS.ACK.hub.AHASH.S.g.2.17.4.1700000000000000000.9",
        b"$JS.ACK._.AHASH.S.g.2.17.4.1700000000000000000.9.random",
    ],
)
def test_metadata_of_every_server_generation(reply: bytes) -> None:
    meta = AckReply(reply)
    assert (meta.stream, meta.consumer, meta.deliveries) == ("S", "g", 2)
    assert (meta.seq, meta.consumer_seq, meta.pending) == (17, 4, 9)
