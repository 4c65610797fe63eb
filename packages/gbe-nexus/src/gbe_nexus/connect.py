"""`connect(url)`: from a URL to a `Transport`, through the entry-point group `gbe.nexus` (URL scheme to factory)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gbe_nexus.errors import UnknownTransport
from gbe_nexus.transport import Transport

GROUP = "gbe.nexus"


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What every factory gets. Times in seconds.

    `timeout` is for the first connection; afterwards reconnecting never ends. `credentials` is the path of a
    NATS credentials file; `user`/`password` and `token` are alternatives. `replicas` is for streams and buckets
    this connection creates.
    """

    name: str = "gbe"
    timeout: float = 5.0
    credentials: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    replicas: int = 1


Factory = Callable[[str, ConnectOptions], Awaitable[Transport]]


async def connect(url: str, options: ConnectOptions | None = None) -> Transport:
    """Connect to the bus at `url` (`nats://host:port`, several separated by commas; `memory://name`).

    Raises `UnknownTransport` where no installed distributable serves the scheme, `Unavailable` where no server
    answers within the timeout, `PermissionDenied` and `UnsuitableServer` where one does but will not do.
    """
    from importlib.metadata import entry_points  # 20 ms that a process with a transport of its own need not pay

    scheme = urlsplit(url.split(",", 1)[0]).scheme
    # Looked up once: an installation that goes on meanwhile may change the answer.
    installed = {point.name: point for point in reversed(tuple(entry_points(group=GROUP)))}
    found = installed.get(scheme)
    if found is None:
        known = ", ".join(sorted(installed)) or "none"
        raise UnknownTransport(f"no transport for {scheme or url!r}: URL schemes installed here are {known}")
    try:
        factory: Factory = found.load()
    except Exception as error:
        raise UnknownTransport(f"the transport plug-in {found.value!r} for {scheme!r} is broken: {error}") from error
    return await factory(url, options or ConnectOptions())
