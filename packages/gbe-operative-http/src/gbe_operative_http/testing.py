"""A web server for tests of jobs that talk HTTP: on loopback, in the test's own event loop.

    async with Web() as web:
        web.routes["/items"] = json_reply({"items": [1, 2]})
        ...  # {"url": f"{web.url}/items"}
        assert web.received[0].method == "GET"

What it serves must be allowed: `HttpOperative(settings=HttpSettings(allow=("loopback",)))`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import msgspec

MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came. `headers` in lower case; `connection` counts the connections from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's pairs."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `headers`: also a list, where a name is repeated. A body that is not bytes is sent in chunks."""

    status: int = 200
    headers: Mapping[str, str] | list[tuple[str, str]] = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes] = b""


Handler = Callable[[Received], Awaitable[Reply] | Reply]


def json_reply(value: object, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, {"Content-Type": "application/json"}, msgspec.json.encode(value))


class Web:
    """Serves `routes`: a path to a reply, or to what makes one of a request. Any other path is a 404."""

    def __init__(self, routes: Mapping[str, Reply | Handler] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, Reply | Handler] = dict(routes or {})
        self.received: list[Received] = []
        self.arrived = asyncio.Event()
        """Set by each request."""
        self.left = asyncio.Event()
        """Set when a connection was closed by the other side while it was waiting for an answer."""
        self.connections = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "it was not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        # Clients that refused the certificate do not say goodbye.
        patience = None if self._tls is None else 0.1
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=self._tls, ssl_shutdown_timeout=patience
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, self.connections))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        try:
            while (received := await _read(reader, number)) is not None:
                self.received.append(received)
                self.arrived.set()
                await self._answer(received, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _answer(self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        route = self.routes.get(received.path, Reply(404, {"Content-Type": "text/plain"}, b"nothing here\n"))
        reply = route if isinstance(route, Reply) else route(received)
        if not isinstance(reply, Reply):
            reply = await self._unless_left(reply, reader)
        pairs = list(reply.headers.items() if isinstance(reply.headers, Mapping) else reply.headers)
        whole = isinstance(reply.body, bytes)
        names = {name.lower() for name, _ in pairs}
        if isinstance(reply.body, bytes) and "content-length" not in names:
            pairs.append(("Content-Length", str(len(reply.body))))
        elif not whole and "content-length" not in names:
            pairs.append(("Transfer-Encoding", "chunked"))
        phrase = HTTPStatus(reply.status).phrase
        head = "".join([f"HTTP/1.1 {reply.status} {phrase}\r\n", *(f"{name}: {value}\r\n" for name, value in pairs)])
        writer.write(head.encode("latin-1") + b"\r\n")
        if received.method != "HEAD":
            if isinstance(reply.body, bytes):
                writer.write(reply.body)
            else:
                async for part in reply.body:
                    writer.write(part if "content-length" in names else b"%x\r\n%s\r\n" % (len(part), part))
                    await writer.drain()
                writer.write(b"" if "content-length" in names else b"0\r\n\r\n")
        await writer.drain()
        if any(name.lower() == "connection" and value == "close" for name, value in pairs):
            raise ConnectionError("as announced")

    async def _unless_left(self, reply: Awaitable[Reply], reader: asyncio.StreamReader) -> Reply:
        """The reply, unless whoever asked goes away before."""
        answer = asyncio.ensure_future(reply)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ConnectionError("it left")
            return answer.result()
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, number: int) -> Received | None:
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = await reader.readline()
        if line in (b"\r\n", b"\n", b""):
            break
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return Received(method, target, headers, body, number)
