"""The memory transport against the contract suites."""

import secrets

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
from gbe_nexus_memory import MemoryArtifactStore


class OnMemory:
    """The implementation under test: every test has a broker of its own."""

    capabilities = Capabilities(flip_byte=True, ttl_resolution=0.05, quiet=0.02, tick=0.06)

    @pytest.fixture
    def connect(self) -> Connect:
        url = f"memory://{secrets.token_hex(4)}"

        async def once_more() -> Transport:
            return await connect(url)

        return once_more

    async def flip_byte(self, transport: Transport, bucket: str, key: str) -> None:
        store = await transport.artifact_store(bucket)
        assert isinstance(store, MemoryArtifactStore)
        store.flip_byte(key, offset=500)


class TestTransport(OnMemory, TransportContract): ...


class TestRestart(OnMemory, RestartContract): ...


class TestJournal(OnMemory, JournalContract): ...


class TestStateStore(OnMemory, StateStoreContract): ...


class TestArtifactStore(OnMemory, ArtifactStoreContract): ...
