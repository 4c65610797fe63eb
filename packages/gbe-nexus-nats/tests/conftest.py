"""The servers these tests run on, and connections to them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from gbe_nexus_nats import connect
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
from gbe_nexus_nats.transport import NatsTransport

__all__ = [
    "any_nats_server",
    "nats_cluster",
    "nats_cluster_each",
    "nats_server",
    "nats_server_docker",
    "nats_server_each",
    "unique",
]


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[NatsTransport]:
    transport = await connect(server.url, server.options)
    try:
        yield transport
    finally:
        await transport.close()


@pytest.fixture
def connected() -> Callable[[Server], AbstractAsyncContextManager[NatsTransport]]:
    """Connects to a server for a while."""
    return _connected


@pytest.fixture
async def jetstream(nats_server: Server) -> AsyncIterator[NatsTransport]:
    """A connection to the shared server."""
    async with _connected(nats_server) as transport:
        yield transport
