"""Three embedded servers as one JetStream cluster, on one host: for tests of what holds on a cluster."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import nats
from nats.errors import Error as NatsError

from gbe_nexus.connect import ConnectOptions
from gbe_nexus_nats.server import ClusterSeat, Credentials, EmbeddedServer, PortTaken, ServerError, free_port


class EmbeddedCluster:
    """`nodes` servers with routes to each other and one set of credentials; `options.replicas` is their number.

    `data`: a directory with one data directory per server; None = a temporary one, removed by `stop`.
    The other arguments are those of `EmbeddedServer`.
    """

    def __init__(
        self,
        nodes: int = 3,
        data: Path | str | None = None,
        *,
        sync_interval: str | None = None,
        max_payload: int | None = None,
        max_file_store: int | None = None,
    ) -> None:
        if nodes < 2:
            raise ValueError("a cluster has two nodes at least")
        self._nodes = nodes
        self._temporary = data is None
        self._data = None if data is None else Path(data).absolute()
        self._sync_interval = sync_interval
        self._max_payload = max_payload
        self._max_file_store = max_file_store
        self._servers: list[EmbeddedServer] = []

    @property
    def servers(self) -> tuple[EmbeddedServer, ...]:
        """The members; to suspend or resume one of them, for example."""
        return tuple(self._servers)

    @property
    def url(self) -> str:
        """All members' URLs, separated by commas."""
        if not self._servers:
            raise ServerError("the embedded cluster was not started yet")
        return ",".join(server.url for server in self._servers)

    @property
    def options(self) -> ConnectOptions:
        """What `connect` needs besides the URL; one replica per member."""
        if not self._servers:
            raise ServerError("the embedded cluster was not started yet")
        return self._servers[0].options

    async def start(self, timeout: float = 30.0) -> None:
        """Start all members; returns when JetStream has a leader and each of them answers through it."""
        if self._servers:
            return
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="gbe-nats-cluster-"))
        for left in (2, 1, 0):
            self._servers = self._seats(self._data)
            try:
                await asyncio.gather(*(server.start(timeout) for server in self._servers))
                break
            except PortTaken:
                await self._stop_servers()
                if not left:
                    raise
            except BaseException:
                await self._stop_servers()
                raise
        await self.ready(timeout)

    async def ready(self, timeout: float = 30.0) -> None:
        """Wait until every running member answers JetStream requests, which takes a leader and a majority.

        Where all are running, wait until the leader counts on all of them as well.
        """
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(self._answers(server) for server in self._servers if server.running))
                if all(server.running for server in self._servers):
                    await self._takes_streams()
        except TimeoutError:
            raise ServerError(f"the embedded cluster has no JetStream leader after {timeout:g} s") from None

    async def stop(self) -> None:
        """End all members and remove a temporary directory. Twice is fine."""
        await self._stop_servers()
        if self._temporary and self._data is not None:
            await asyncio.to_thread(shutil.rmtree, self._data, ignore_errors=True)
            self._data = None

    async def kill(self, index: int) -> None:
        """SIGKILL for one member."""
        await self._servers[index].kill()

    async def restart(self, index: int, timeout: float = 30.0) -> None:
        """Start one member again, after ending it in order where it runs; returns when it is part of the cluster."""
        await self._servers[index].restart(timeout)
        await self.ready(timeout)

    async def leader_of(self, stream: str, timeout: float = 10.0) -> int:
        """The index of the member that leads a stream; waits while there is none."""
        async with asyncio.timeout(timeout), AsyncExitStack() as stack:
            client = await self._connect(stack, self.url)
            while True:
                info = await _ask(client, f"STREAM.INFO.{stream}")
                leader = (info.get("cluster") or {}).get("leader")
                for index, server in enumerate(self._servers):
                    if leader == _name(index) and server.running:
                        return index
                await asyncio.sleep(0.01)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _seats(self, data: Path) -> list[EmbeddedServer]:
        # Every member has to know all route ports beforehand: the number of routes tells JetStream the cluster's size.
        routes: set[int] = set()
        while len(routes) < self._nodes:
            routes.add(free_port())
        credentials = Credentials("gbe", secrets.token_urlsafe(24))
        secret = secrets.token_hex(16)
        ports = tuple(sorted(routes))
        return [
            EmbeddedServer(
                data / _name(index),
                sync_interval=self._sync_interval,
                max_payload=self._max_payload,
                max_file_store=self._max_file_store,
                seat=ClusterSeat(_name(index), port, ports, secret),
                credentials=credentials,
            )
            for index, port in enumerate(ports)
        ]

    async def _stop_servers(self) -> None:
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop() for server in servers))

    async def _connect(self, stack: AsyncExitStack, url: str) -> Any:
        options = self.options
        client = await nats.connect(
            url.split(","), user=options.user, password=options.password, allow_reconnect=False, error_cb=_ignore
        )
        stack.push_async_callback(client.close)
        return client

    async def _answers(self, server: EmbeddedServer) -> None:
        async with AsyncExitStack() as stack:
            client = await self._connect(stack, server.url)
            while True:
                if "error" not in await _ask(client, "INFO", timeout=0.1):
                    return
                await asyncio.sleep(0.01)

    async def _takes_streams(self) -> None:
        """Try it out: the leader hears of the members' room one by one, and until then has "no suitable peers"."""
        name = f"GBE_PROBE_{secrets.token_hex(4)}"
        config = {"name": name, "subjects": [name], "storage": "memory", "num_replicas": self._nodes}
        async with AsyncExitStack() as stack:
            client = await self._connect(stack, self.url)
            while True:
                # Without an answer it may have been made all the same; the same again is fine then.
                if "error" not in await _ask(client, f"STREAM.CREATE.{name}", config, timeout=2.0):
                    break
                await asyncio.sleep(0.01)
            while True:
                answer = await _ask(client, f"STREAM.DELETE.{name}")
                if "error" not in answer or answer["error"].get("code") == 404:
                    return
                await asyncio.sleep(0.01)


def _name(index: int) -> str:
    return f"gbe-{index}"


async def _ignore(error: Exception) -> None:
    """What goes wrong on these connections shows in their requests."""


async def _ask(client: Any, what: str, request: object = None, timeout: float = 1.0) -> dict[str, Any]:
    """One JetStream API request; silence (no leader yet) is an error answer like any other."""
    body = b"" if request is None else msgspec.json.encode(request)
    try:
        reply = await client.request(f"$JS.API.{what}", body, timeout=timeout)
    except (NatsError, TimeoutError) as error:
        return {"error": {"description": str(error)}}
    return msgspec.json.decode(reply.data, type=dict[str, Any])
