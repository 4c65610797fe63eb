"""The servers these tests run on, and a connection as bare as the stores can do with."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from gbe_nexus import ConnectOptions, NexusError, Outgoing, PubAck
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.publisher import Publisher
from gbe_nexus_nats.requests import Requests
from gbe_nexus_nats.testing import (
    Server,
    any_nats_server,
    nats_cluster,
    nats_cluster_each,
    nats_server,
    nats_server_docker,
    nats_server_each,
    unique,
)

__all__ = [
    "any_nats_server",
    "nats_cluster",
    "nats_cluster_each",
    "nats_server",
    "nats_server_docker",
    "nats_server_each",
    "unique",
]


async def _ignore(error: Exception) -> None:
    """Servers go away in these tests."""


class BareJetStream:
    """What the stores need of the transport, and nothing else of it."""

    def __init__(self, client: FastClient, options: ConnectOptions) -> None:
        self.client = client
        self.replicas = options.replicas
        self.requests = Requests(client)
        self.publisher = Publisher(client, self._size_limit, self._has_stream)
        self.api = self.requests.api

    @property
    def max_payload(self) -> int:
        return self.client.max_payload

    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> PubAck:
        (result,) = await self.publish_many([Outgoing(subject, payload, msg_id, headers)])
        if isinstance(result, NexusError):
            raise result
        return result

    def publish_many(self, messages: Sequence[Outgoing]) -> Awaitable[list[PubAck | NexusError]]:
        return self.publisher.publish(messages)

    async def close(self) -> None:
        self.publisher.close()
        self.requests.close()
        await self.client.close()

    async def _size_limit(self, stream: str) -> int:
        return self.client.max_payload

    async def _has_stream(self, subject: str) -> bool:
        return False


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[BareJetStream]:
    client = FastClient()
    await client.connect(
        server.url.split(","),
        user=server.options.user,
        password=server.options.password,
        reconnect_time_wait=0.02,  # type: ignore[arg-type]
        max_reconnect_attempts=-1,
        error_cb=_ignore,
    )
    jetstream = BareJetStream(client, server.options)
    try:
        yield jetstream
    finally:
        await jetstream.close()


@pytest.fixture
def connected() -> Callable[[Server], AbstractAsyncContextManager[BareJetStream]]:
    """Connects to a server for a while."""
    return _connected


@pytest.fixture
async def jetstream(nats_server: Server) -> AsyncIterator[BareJetStream]:
    """A connection to the shared server."""
    async with _connected(nats_server) as jetstream:
        yield jetstream
