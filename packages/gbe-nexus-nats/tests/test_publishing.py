"""Bulk publishing where it hurts: the server dies, refuses, or says nothing."""

from __future__ import annotations

import asyncio

import pytest

from gbe_nexus import Outgoing, PayloadTooLarge, PermissionDenied, PubAck, Stream, StreamFull, Unavailable, connect
from gbe_nexus_nats import publisher
from gbe_nexus_nats.server import EmbeddedServer

pytestmark = pytest.mark.server


async def test_killed_in_the_middle(nats_server_each: EmbeddedServer) -> None:
    """Every message with an id is stored exactly once, although the server died while they were under way."""
    server = nats_server_each
    transport = await connect(server.url, server.options)
    again = asyncio.Event()
    transport.on_reconnect(again.set)
    try:
        await transport.ensure_stream(Stream("S", ("s.>",)))
        batches = [
            transport.publish_many([Outgoing("s.x", b"x" * 200, f"{batch}-{n}") for n in range(1000)])
            for batch in range(20)
        ]
        await asyncio.sleep(0.03)
        await server.kill()
        while_down = transport.publish_many([Outgoing("s.x", b"down", "down")])
        await server.restart()
        results = [result for batch in batches for result in await batch]
        assert all(isinstance(result, PubAck) for result in results)
        assert isinstance((await while_down)[0], PubAck)
        assert (await transport.stream_state("S")).messages == 20_001
        assert again.is_set()
    finally:
        await transport.close()


async def test_without_an_id_silence_is_unknown(nats_server_each: EmbeddedServer) -> None:
    """A message without an id is not sent twice: when the connection goes, its outcome is unknown."""
    server = nats_server_each
    transport = await connect(server.url, server.options)
    try:
        await transport.ensure_stream(Stream("S", ("s.>",)))
        server.suspend()
        pending = transport.publish_many([Outgoing("s.x", b"x")])
        await asyncio.sleep(0.05)
        await server.kill()
        (result,) = await asyncio.wait_for(pending, 30)
        assert isinstance(result, Unavailable)
        never_sent = transport.publish_many([Outgoing("s.x", b"y")])
        await server.restart()
        assert isinstance((await never_sent)[0], PubAck)
    finally:
        await transport.close()


async def test_silence_of_a_stopped_server(nats_server_each: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stands still for longer than the silence: sent again, stored once."""
    monkeypatch.setattr(publisher, "SILENCE", 0.3)
    server = nats_server_each
    transport = await connect(server.url, server.options)
    try:
        await transport.ensure_stream(Stream("S", ("s.>",)))
        server.suspend()
        pending = transport.publish_many([Outgoing("s.x", b"x", f"{n}") for n in range(10)])
        await asyncio.sleep(1.0)
        server.resume()
        assert all(isinstance(result, PubAck) for result in await pending)
        await transport.flush()
        assert (await transport.stream_state("S")).messages == 10
    finally:
        await transport.close()


async def test_gives_up_after_a_while(nats_server_each: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "LASTING", 0.5)
    server = nats_server_each
    transport = await connect(server.url, server.options)
    try:
        await transport.ensure_stream(Stream("S", ("s.>",)))
        await server.kill()
        with pytest.raises(Unavailable):
            await transport.publish("s.x", b"x", msg_id="x")
    finally:
        await transport.close()


async def test_one_refusal_of_each_kind_among_good_ones(nats_server_each: EmbeddedServer) -> None:
    """N13: exactly the refused one is reported, with its kind."""
    server = nats_server_each
    transport = await connect(server.url, server.options)
    try:
        await transport.ensure_stream(Stream("S", ("s.>",), max_message_size=100))
        await transport.ensure_stream(Stream("F", ("f.>",), max_messages=1))
        results = await transport.publish_many(
            [
                Outgoing("s.x", b"1"),
                Outgoing("s.x", b"x" * 200),
                Outgoing("s.x", b"x" * (transport.max_payload + 1)),
                Outgoing("f.x", b"1"),
                Outgoing("f.x", b"2"),
                Outgoing("s.x", b"2"),
            ]
        )
        kinds = [type(result) for result in results]
        assert kinds == [PubAck, PayloadTooLarge, PayloadTooLarge, PubAck, StreamFull, PubAck]
        small, large = results[1], results[2]
        assert isinstance(small, PayloadTooLarge)
        assert isinstance(large, PayloadTooLarge)
        assert (small.size, small.limit) == (200, 100)
        assert (large.size, large.limit) == (transport.max_payload + 1, transport.max_payload)
    finally:
        await transport.close()


async def test_permission_denied_is_said_at_once() -> None:
    """The server tells only the connection, not the request; it must not look like a timeout."""
    async with EmbeddedServer(users={"guest": 'publish: {deny: ["secret.>", "$JS.API.STREAM.CREATE.*"]}'}) as server:
        owner = await connect(server.url, server.options)
        await owner.ensure_stream(Stream("S", ("s.>", "secret.>")))
        guest = await connect(server.url, server.options_for("guest"))
        try:
            async with asyncio.timeout(30):
                results = await guest.publish_many(
                    [Outgoing("s.x", b"1", "1"), Outgoing("secret.Mixed", b"2", "2"), Outgoing("s.x", b"3", "3")]
                )
                assert [type(result) for result in results] == [PubAck, PermissionDenied, PubAck]
                with pytest.raises(PermissionDenied):
                    await guest.ensure_stream(Stream("T", ("t.>",)))
        finally:
            await guest.close()
            await owner.close()


async def test_a_raising_callback_harms_no_other(nats_server_each: EmbeddedServer) -> None:
    """Two bulk calls are answered in one read; the callback of the first one raises."""
    server = nats_server_each
    transport = await connect(server.url, server.options)
    try:
        await transport.ensure_stream(Stream("S", ("s.>",)))

        def broken(results: object) -> None:
            raise RuntimeError("broken")

        first = transport.publish_many([Outgoing("s.x", b"1")])
        first.then(broken)
        second = transport.publish_many([Outgoing("s.x", b"2")])
        chained: list[object] = []
        second.then(lambda results: transport.publish_many([Outgoing("s.x", b"3")]).then(chained.extend))
        async with asyncio.timeout(10):
            while not chained:
                await asyncio.sleep(0.01)
        assert first.done
        assert chained == [PubAck("S", 3)]
    finally:
        await transport.close()
