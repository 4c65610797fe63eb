"""The journal where it hurts: answers that get lost, writers that race, logs longer than a batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gbe_nexus import Conflict, PayloadTooLarge, Stream, connect
from gbe_nexus.journal import Append
from gbe_nexus_nats import journal as journal_module
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.journal import NatsJournal
from gbe_nexus_nats.server import EmbeddedServer
from gbe_nexus_nats.transport import NatsTransport


@pytest.fixture
async def bus(nats_server_each: EmbeddedServer) -> AsyncIterator[NatsTransport]:
    transport = await connect(nats_server_each.url, nats_server_each.options)
    assert isinstance(transport, NatsTransport)
    await transport.ensure_stream(Stream("J", ("j.>",)))
    yield transport
    await transport.close()


async def opened(bus: NatsTransport) -> NatsJournal:
    journal = await bus.journal("J")
    assert isinstance(journal, NatsJournal)
    return journal


@pytest.mark.server
async def test_lost_answer_is_found_by_the_nonce(bus: NatsTransport) -> None:
    """The record was stored and its ack never came: success, once."""
    journal = await opened(bus)
    lost = asyncio.Event()
    bus.client._sinks[bus._publisher._sink.sid].lane.callback = lambda batch: lost.set()
    pending = asyncio.ensure_future(journal.append("j.a", b"one", 0))
    await lost.wait()
    bus.client._sinks[bus._publisher._sink.sid].lane.callback = bus._publisher._answers
    assert await pending == 1
    assert [entry.payload async for entry in journal.replay("j.a")] == [b"one"]


@pytest.mark.server
async def test_lost_answer_and_another_writer(bus: NatsTransport) -> None:
    """The record was not stored, and somebody else's was: a conflict, with what is there."""
    journal = await opened(bus)
    write = bus.client.write
    lost = asyncio.Event()
    bus.client.write = lambda frame: lost.set()  # type: ignore[method-assign]
    pending = asyncio.ensure_future(journal.append("j.a", b"mine", 0))
    await lost.wait()
    bus.client.write = write  # type: ignore[method-assign]
    await bus.publish("j.a", b"theirs")
    with pytest.raises(Conflict) as caught:
        await pending
    assert caught.value.current == 1


@pytest.mark.server
async def test_appends_over_a_kill(nats_server_each: EmbeddedServer, bus: NatsTransport) -> None:
    """A writer that appends through a kill of the server ends with exactly its records, in order."""
    journal = await opened(bus)
    written: list[bytes] = []

    async def write() -> None:
        last = 0
        for number in range(400):
            last = await journal.append("j.a", b"%d" % number, last)
            written.append(b"%d" % number)
            await asyncio.sleep(0.001)

    writer = asyncio.create_task(write())
    await asyncio.sleep(0.2)
    await nats_server_each.kill()
    await nats_server_each.restart()
    await writer
    assert [entry.payload async for entry in journal.replay("j.a")] == written


@pytest.mark.server
async def test_append_many_reports_each(bus: NatsTransport) -> None:
    journal = await opened(bus)
    await journal.append("j.b", b"there", 0)
    results = await journal.append_many(
        [
            Append("j.a", b"1", 0),
            Append("j.b", b"2", 0),
            Append("j.c", b"x" * (bus.max_payload + 1), 0),
            Append("j.d", b"4", 0),
        ]
    )
    assert [type(result) for result in results] == [int, Conflict, PayloadTooLarge, int]


@pytest.mark.server
async def test_long_logs_come_whole(bus: NatsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BATCH", 64)
    journal = await opened(bus)
    for start in range(0, 1000, 250):
        appends = [Append(f"j.{number}", b"%d" % number, 0) for number in range(start, start + 250)]
        assert all(isinstance(result, int) for result in await journal.append_many(appends))
    entries = [entry async for entry in journal.replay("j.*", after=10)]
    assert [entry.seq for entry in entries] == list(range(11, 1001))
    assert all(entry.subject == f"j.{entry.payload.decode()}" for entry in entries)
    assert len(await journal.subjects("j.>")) == 1000
    assert len(await journal.last_many([f"j.{number}" for number in range(2000)])) == 1000


@pytest.mark.server
async def test_without_direct_gets(bus: NatsTransport) -> None:
    """A stream made by others may not allow them: slower, and the same."""
    await bus.api("$JS.API.STREAM.CREATE.K", {"name": "K", "subjects": ["k.>"], "allow_direct": False})
    journal = await bus.journal("K")
    last = 0
    for number in range(5):
        last = await journal.append("k.a", b"%d" % number, last)
    assert [entry.payload async for entry in journal.replay("k.a")] == [b"%d" % number for number in range(5)]


@pytest.mark.cluster
async def test_racing_writers_on_a_cluster(nats_cluster: EmbeddedCluster) -> None:
    """On three replicas: one of two writers wins each round, and the log holds the winners."""
    first = await connect(nats_cluster.url, nats_cluster.options)
    second = await connect(nats_cluster.url, nats_cluster.options)
    try:
        await first.ensure_stream(Stream("RACE", ("race.>",)))
        journals = [await first.journal("RACE"), await second.journal("RACE")]
        last = 0
        won: list[bytes] = []
        for number in range(100):
            payloads = [b"%d/%d" % (number, writer) for writer in (0, 1)]
            results = await asyncio.gather(
                *(journal.append("race.a", payload, last) for journal, payload in zip(journals, payloads, strict=True)),
                return_exceptions=True,
            )
            winners = [index for index, result in enumerate(results) if isinstance(result, int)]
            assert len(winners) == 1, results
            assert isinstance(results[1 - winners[0]], Conflict)
            seq = results[winners[0]]
            assert isinstance(seq, int)
            last = seq
            won.append(payloads[winners[0]])
        assert [entry.payload async for entry in journals[1].replay("race.a")] == won
    finally:
        await first.close()
        await second.close()
