"""What can be wrong with a server or its URL, and that it is said clearly and soon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gbe_nexus import ConnectOptions, PermissionDenied, Refused, Unavailable, UnsuitableServer, connect
from gbe_nexus_nats.server import EmbeddedServer, free_port

INFO = (
    b'INFO {"server_id":"X","version":"%b","headers":true,"max_payload":1048576,"proto":1,"client_id":1,'
    b'"jetstream":%b}\r\n'
)


class FakeServer:
    """Greets like a nats-server, answers PING, and says "no responders" to every request."""

    def __init__(self, info: bytes) -> None:
        self._info = info
        self.got = b""

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._info)
        sids: list[tuple[bytes, bytes]] = []
        while line := await reader.readline():
            self.got += line
            words = line.split()
            if words[0] == b"PING":
                writer.write(b"PONG\r\n")
            elif words[0] == b"SUB":
                sids.append((words[1].removesuffix(b"*"), words[-1]))
            elif words[0] == b"PUB" and len(words) == 4:
                sid = next(sid for prefix, sid in sids if words[2].startswith(prefix))
                await reader.readexactly(int(words[-1]) + 2)
                writer.write(b"HMSG %b %b 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % (words[2], sid))
        writer.close()


async def test_nobody_there() -> None:
    url = f"nats://me:secret@127.0.0.1:{free_port()}"
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable, match=r"nats://127\.0\.0\.1") as caught:
            await connect(url, ConnectOptions(timeout=0.5))
    assert "secret" not in str(caught.value)


async def test_not_a_url() -> None:
    with pytest.raises((Refused, Unavailable)):
        await connect("nats://", ConnectOptions(timeout=0.5))


@pytest.mark.server
async def test_wrong_password(nats_server: EmbeddedServer) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(PermissionDenied):
            await connect(nats_server.url, ConnectOptions(user="gbe", password="wrong", timeout=600))


async def test_too_old() -> None:
    async with FakeServer(INFO % (b"2.10.9", b"true")) as url:
        with pytest.raises(UnsuitableServer, match=r"2\.10\.9"):
            await connect(url)


async def test_without_jetstream() -> None:
    async with FakeServer(INFO % (b"2.12.0", b"false")) as url:
        with pytest.raises(UnsuitableServer, match="JetStream"):
            await connect(url)


async def test_tls_is_not_given_up_silently() -> None:
    """Credentials never go to a server that was to be reached over TLS and does not offer it."""
    server = FakeServer(INFO % (b"2.12.0", b"true"))
    async with server as url:
        with pytest.raises(UnsuitableServer, match="TLS"):
            await connect(url.replace("nats://", "tls://"), ConnectOptions(user="me", password="secret"))
    assert b"secret" not in server.got


async def test_missing_credentials_file_is_clear(nats_server: EmbeddedServer) -> None:
    with pytest.raises(Refused, match=r"/nonexistent/x\.creds: can't be read"):
        await connect(nats_server.url, ConnectOptions(credentials="/nonexistent/x.creds", timeout=2))


async def test_credentials_file_of_something_else_is_clear(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    file = tmp_path / "x.creds"
    file.write_text("-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n")
    with pytest.raises(Refused, match="no USER NKEY SEED in it"):
        await connect(nats_server.url, ConnectOptions(credentials=str(file), timeout=2))
