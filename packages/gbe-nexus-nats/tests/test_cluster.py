"""Three servers as one: what a loss of the leader leaves."""

from typing import Any

import pytest

from gbe_nexus import Outgoing, PubAck, Stream
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import ServerError

pytestmark = pytest.mark.cluster


async def test_the_leader_is_killed_and_comes_back(nats_cluster_each: EmbeddedCluster, connected: Any) -> None:
    cluster = nats_cluster_each
    assert cluster.options.replicas == 3
    async with connected(cluster) as transport:
        await transport.ensure_stream(Stream("S", subjects=("s",)))
        acks = await transport.publish_many([Outgoing("s", b"", msg_id=f"{number}") for number in range(50)])
        assert all(isinstance(ack, PubAck) for ack in acks)
        first = await cluster.leader_of("S")
        await cluster.kill(first)
        second = await cluster.leader_of("S", timeout=60)
        assert second != first
        await cluster.restart(first)
        await cluster.leader_of("S", timeout=60)
        assert (await transport.stream_state("S")).messages == 50


async def test_without_a_majority_it_is_not_ready(nats_cluster_each: EmbeddedCluster) -> None:
    cluster = nats_cluster_each
    # All of them: a leader that loses the others goes on for a while before it notices.
    for index in range(3):
        await cluster.kill(index)
    with pytest.raises(ServerError, match="no JetStream leader"):
        await cluster.restart(0, timeout=1.0)
    await cluster.servers[1].start()
    await cluster.ready(timeout=60)


async def test_asked_too_early() -> None:
    cluster = EmbeddedCluster()
    with pytest.raises(ServerError, match="not started"):
        _ = cluster.url
    with pytest.raises(ValueError, match="two nodes"):
        EmbeddedCluster(1)
