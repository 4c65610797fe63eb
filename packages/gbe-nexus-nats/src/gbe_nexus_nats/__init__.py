"""The nexus contracts over NATS JetStream, with an embedded server on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gbe_nexus.connect import ConnectOptions
    from gbe_nexus_nats.transport import NatsTransport


async def connect(url: str, options: ConnectOptions | None = None) -> NatsTransport:
    """Connect to the NATS server(s) at `url`: the factory behind the `nats` and `tls` URL schemes.

    The imports wait for the first call, so that a process which only looks plug-ins up does not pay for nats-py.
    """
    from gbe_nexus.connect import ConnectOptions as Options
    from gbe_nexus_nats.connecting import open_transport

    return await open_transport(url, options or Options())
