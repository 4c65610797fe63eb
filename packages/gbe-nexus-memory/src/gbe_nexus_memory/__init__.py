"""The nexus contracts inside one process, for tests and for runs without a server."""

from gbe_nexus_memory.artifacts import MemoryArtifactStore as MemoryArtifactStore
from gbe_nexus_memory.broker import Broker as Broker
from gbe_nexus_memory.transport import MemoryTransport as MemoryTransport
from gbe_nexus_memory.transport import connect as connect
