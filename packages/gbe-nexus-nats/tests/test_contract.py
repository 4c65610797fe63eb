"""The NATS transport against the contract suites: on one server, on a cluster of three, and on servers that die."""

from __future__ import annotations

import pytest

from gbe_conformance import (
    ArtifactStoreContract,
    Capabilities,
    Connect,
    ConnectionContract,
    CreditContract,
    DeliveryContract,
    JournalContract,
    PinnedContract,
    PublishingContract,
    RestartContract,
    StateStoreContract,
    StreamsContract,
    TransportContract,
)
from gbe_nexus import Transport, connect
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer
from gbe_nexus_nats.testing import flip_byte
from gbe_nexus_nats.transport import NatsTransport


class OnNats:
    """What both have in common."""

    async def flip_byte(self, transport: Transport, bucket: str, key: str) -> None:
        assert isinstance(transport, NatsTransport)
        await flip_byte(transport, bucket, key)


class OnServer(OnNats):
    """One server for all tests."""

    capabilities = Capabilities(restart=True, flip_byte=True, quiet=0.05)

    @pytest.fixture
    def connect(self, nats_server: EmbeddedServer) -> Connect:
        async def once_more() -> Transport:
            return await connect(nats_server.url, nats_server.options)

        return once_more

    @pytest.fixture
    def faults(self, nats_server: EmbeddedServer) -> ServerFaults:
        return ServerFaults(nats_server)


class ServerFaults:
    """SIGKILL, and a start on the same data."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server

    async def kill(self, stream: str) -> None:
        await self._server.kill()

    async def restart(self) -> None:
        await self._server.restart()


class OnCluster(OnNats):
    """Three servers, three replicas of everything."""

    capabilities = Capabilities(
        restart=True, cluster=True, flip_byte=True, patience=10.0, quiet=0.05, big=8 * 1024 * 1024
    )

    @pytest.fixture
    def connect(self, nats_cluster: EmbeddedCluster) -> Connect:
        async def once_more() -> Transport:
            return await connect(nats_cluster.url, nats_cluster.options)

        return once_more

    @pytest.fixture
    def faults(self, nats_cluster: EmbeddedCluster) -> ClusterFaults:
        return ClusterFaults(nats_cluster)


class ClusterFaults:
    """SIGKILL for the member that leads the stream, and its return."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self._cluster = cluster
        self._killed = 0

    async def kill(self, stream: str) -> None:
        self._killed = await self._cluster.leader_of(stream)
        await self._cluster.kill(self._killed)

    async def restart(self) -> None:
        await self._cluster.restart(self._killed)


@pytest.mark.server
class TestTransport(OnServer, TransportContract): ...


@pytest.mark.server
class TestRestart(OnServer, RestartContract): ...


@pytest.mark.server
class TestJournal(OnServer, JournalContract): ...


@pytest.mark.server
class TestStateStore(OnServer, StateStoreContract): ...


@pytest.mark.server
class TestArtifactStore(OnServer, ArtifactStoreContract): ...


@pytest.mark.cluster
class TestTransportOnCluster(OnCluster, PublishingContract, StreamsContract, DeliveryContract, PinnedContract): ...


@pytest.mark.slow  # what is no different with three servers
@pytest.mark.cluster
class TestConnectionOnCluster(OnCluster, CreditContract, ConnectionContract): ...


@pytest.mark.slow  # each waits for elections and for the member to catch up
@pytest.mark.cluster
class TestRestartOnCluster(OnCluster, RestartContract): ...


@pytest.mark.cluster
class TestJournalOnCluster(OnCluster, JournalContract): ...


@pytest.mark.cluster
class TestStateStoreOnCluster(OnCluster, StateStoreContract): ...


@pytest.mark.cluster
class TestArtifactStoreOnCluster(OnCluster, ArtifactStoreContract): ...
