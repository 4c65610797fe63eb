"""The servers these tests run on."""

from gbe_nexus_nats.testing import (
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
