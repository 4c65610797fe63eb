"""Streams on a server that has little room."""

import pytest

from gbe_nexus import Stream, StreamConflict, StreamFull
from gbe_nexus_nats import connect
from gbe_nexus_nats.server import EmbeddedServer

MIB = 1 << 20


async def test_a_stream_that_exists_needs_no_room() -> None:
    """The server refuses for want of room before it looks whether the stream is there already."""
    async with EmbeddedServer(max_file_store=10 * MIB) as server:
        transport = await connect(server.url, server.options)
        stream = Stream("ROOM", ("room.>",), max_bytes=8 * MIB)
        await transport.ensure_stream(stream)
        await transport.ensure_stream(stream)
        with pytest.raises(StreamFull, match="insufficient storage"):
            await transport.ensure_stream(Stream("MORE", ("more.>",), max_bytes=8 * MIB))
        with pytest.raises(StreamConflict, match="max_bytes: found 8388608, expected 9437184"):
            await transport.ensure_stream(Stream("ROOM", ("room.>",), max_bytes=9 * MIB))
        await transport.close()
