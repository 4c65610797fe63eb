"""The transport on each server there is: the embedded one, and the official image where a Docker engine answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gbe_nexus import ConsumerSpec, Message, Outgoing, PubAck, Stream, connect
from gbe_nexus_nats.testing import Server


async def test_messages_journal_state_and_artifacts(any_nats_server: Server, unique: Callable[[str], str]) -> None:
    transport = await connect(any_nats_server.url, any_nats_server.options)
    try:
        name = unique("any")
        await transport.ensure_stream(Stream(name, (f"{name}.>",)))
        seen: list[bytes] = []
        all_there = asyncio.Event()

        def take(messages: Sequence[Message]) -> None:
            for message in messages:
                seen.append(message.payload)
                message.ack()
            if len(seen) == 100:
                all_there.set()

        await transport.subscribe(ConsumerSpec(name, "group", (f"{name}.work",)), take)
        sent = [Outgoing(f"{name}.work", b"%d" % number, msg_id=f"{number}") for number in range(100)]
        assert all(isinstance(result, PubAck) for result in await transport.publish_many(sent))
        async with asyncio.timeout(10):
            await all_there.wait()
        assert seen == [b"%d" % number for number in range(100)]

        journal = await transport.journal(name)
        first = await journal.append(f"{name}.log", b"1", 0)
        await journal.append(f"{name}.log", b"2", first)
        assert [entry.payload async for entry in journal.replay(f"{name}.log")] == [b"1", b"2"]

        state = await transport.state_store(name)
        revision = await state.create("key", b"a")
        await state.swap("key", b"b", revision)
        artifacts = await transport.artifact_store(name)
        await artifacts.put("one", b"x" * 300_000)
        assert await artifacts.read("one", limit=1 << 20) == b"x" * 300_000
    finally:
        await transport.close()
