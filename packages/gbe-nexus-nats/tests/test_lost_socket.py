"""A socket that is lost in the middle of a turn of the loop: whoever writes then is not told by an exception."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gbe_nexus_nats.client import FastClient

uvloop = pytest.importorskip("uvloop", reason="its transports raise where asyncio's drop what is written")


def test_writing_to_a_lost_socket_is_as_writing_to_none() -> None:
    async def lose() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        client = FastClient()
        client._raw, client._live = transport, True
        theirs.close()
        for _ in range(3):  # the first write finds out; the end of the connection is announced a turn later
            client.write(b"PING\r\n")
            client.write_out()
        client.push()
        await asyncio.sleep(0)
        client.write(b"PING\r\n")
        client.write_out()
        assert transport.is_closing()

    uvloop.run(lose())
