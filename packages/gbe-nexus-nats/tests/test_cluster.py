"""Three servers as one: what a loss of the leader leaves."""

from typing import Any

import nats
import pytest

from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import ServerError

pytestmark = pytest.mark.cluster


async def _ignore(error: Exception) -> None:
    """Servers go away in these tests."""


async def connect(cluster: EmbeddedCluster) -> Any:
    return await nats.connect(
        cluster.url.split(","),
        user=cluster.options.user,
        password=cluster.options.password,
        error_cb=_ignore,
        reconnect_time_wait=0.05,
        max_reconnect_attempts=-1,
    )


async def test_the_leader_is_killed_and_comes_back(nats_cluster_each: EmbeddedCluster) -> None:
    cluster = nats_cluster_each
    assert cluster.options.replicas == 3
    connection = await connect(cluster)
    await connection.jetstream().add_stream(name="S", subjects=["s"], num_replicas=3)
    for _ in range(50):
        await connection.jetstream().publish("s", b"")
    first = await cluster.leader_of("S")
    await cluster.kill(first)
    second = await cluster.leader_of("S", timeout=60)
    assert second != first
    await cluster.restart(first)
    assert (await connection.jetstream().stream_info("S")).state.messages == 50
    await connection.close()


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
