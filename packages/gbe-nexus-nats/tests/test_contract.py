"""The NATS transport against the contract suites: on one server, on a cluster of three, and on servers that die."""

from __future__ import annotations

import pytest

from gbe_conformance import (
    ArtifactStoreContract,
    Capabilities,
    Connect,
    JournalContract,
    RestartContract,
    StateStoreContract,
    TransportContract,
)
from gbe_nexus import Transport, connect
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer


class OnServer:
    """One server for all tests."""

    capabilities = Capabilities(restart=True)

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


class OnCluster:
    """Three servers, three replicas of everything."""

    capabilities = Capabilities(restart=True, cluster=True, patience=10.0, big=8 * 1024 * 1024)

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
class TestTransportOnCluster(OnCluster, TransportContract): ...


@pytest.mark.slow  # each waits for elections and for the member to catch up
@pytest.mark.cluster
class TestRestartOnCluster(OnCluster, RestartContract): ...


@pytest.mark.cluster
class TestJournalOnCluster(OnCluster, JournalContract): ...


@pytest.mark.cluster
class TestStateStoreOnCluster(OnCluster, StateStoreContract): ...


@pytest.mark.cluster
class TestArtifactStoreOnCluster(OnCluster, ArtifactStoreContract): ...
