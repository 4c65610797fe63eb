"""From a URL to a transport: the first connection, and whether the server will do."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from nats import errors as nats_errors

from gbe_nexus.connect import ConnectOptions
from gbe_nexus.errors import NexusError, PermissionDenied, Refused, Unavailable, UnsuitableServer
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.transport import NatsTransport

logger = logging.getLogger("gbe.nexus.nats")

OLDEST_SERVER = (2, 11)

RECONNECT_WAIT = 0.25
PING_INTERVAL = 5
PINGS_UNANSWERED = 2


async def open_transport(url: str, options: ConnectOptions) -> NatsTransport:
    """Connect, check the server, and hand over a transport."""
    urls = [part.strip() for part in url.split(",") if part.strip()]
    shown = ",".join(_without_secrets(part) for part in urls)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.timeout
    client = FastClient()
    try:
        async with asyncio.timeout_at(deadline):
            await client.connect(urls, **_arguments(client, urls, options))
    except TimeoutError:
        reason = client.last_error
        await _give_up(client)
        # A name that can't be resolved or a refused connection says more than "timeout".
        why = f": {reason}" if reason is not None and str(reason) else ""
        raise Unavailable(f"no NATS server answers at {shown} within {options.timeout:g} s{why}") from None
    except PermissionDenied as error:
        await _give_up(client)
        raise PermissionDenied(f"{shown}: {error}") from None
    except UnsuitableServer as error:
        await _give_up(client)
        raise UnsuitableServer(f"{shown}: {error}") from None
    except (nats_errors.Error, OSError, ValueError) as error:
        await _give_up(client)
        raise Refused(f"can't connect to {shown}: {error}") from error
    except BaseException:
        await _give_up(client)
        raise
    transport = NatsTransport(client, options.replicas)
    try:
        await _check_server(transport, client, shown, max(deadline - loop.time(), 1.0))
    except BaseException:
        await transport.close()
        raise
    return transport


def _arguments(client: FastClient, urls: list[str], options: ConnectOptions) -> dict[str, Any]:
    async def on_error(error: Exception) -> None:
        # nats-py reports every failed try; the loss itself is logged by the client.
        logger.debug("nats: %s", error)

    async def on_reconnect() -> None:
        logger.warning("connected again")
        client.tell(client.up)

    arguments: dict[str, Any] = {
        "error_cb": on_error,
        "reconnected_cb": on_reconnect,
        "name": options.name,
        "connect_timeout": options.timeout,
        "reconnect_time_wait": RECONNECT_WAIT,
        "max_reconnect_attempts": -1,
        "ping_interval": PING_INTERVAL,
        "max_outstanding_pings": PINGS_UNANSWERED,
    }
    client.require_tls = any(urlsplit(url).scheme == "tls" for url in urls)
    if options.tls_ca is not None or client.require_tls:
        arguments["tls"] = ssl.create_default_context(cafile=options.tls_ca)
        client.require_tls = True
    if options.credentials is not None:
        _check_credentials(options.credentials)
        arguments["user_credentials"] = options.credentials
    if options.user is not None:
        arguments["user"] = options.user
        arguments["password"] = options.password or ""
    if options.token is not None:
        arguments["token"] = options.token
    return arguments


def _check_credentials(path: str) -> None:
    """nats-py reads the file in the middle of the handshake, where what is wrong with it gets lost."""
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"credentials file {path}: can't be read: {error}") from error
    for part in ("NATS USER JWT", "USER NKEY SEED"):
        if f"BEGIN {part}" not in text:
            raise Refused(f"credentials file {path}: no {part} in it; expected a file as `nsc generate creds` makes it")


async def _give_up(client: FastClient) -> None:
    try:
        await asyncio.wait_for(client.close(), 1.0)
    except Exception as error:  # nats-py's, of a client half made; what counts is why there is no connection
        logger.debug("closing after a failed connection: %s", error)


async def _check_server(transport: NatsTransport, client: FastClient, shown: str, timeout: float) -> None:
    version = str(client._server_info.get("version", "0"))
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_SERVER:
        wanted = ".".join(map(str, OLDEST_SERVER))
        raise UnsuitableServer(f"{shown}: nats-server {version} is too old, {wanted} or newer is needed")
    try:
        # A server that says it has none may still be in a cluster with others that do.
        patience = timeout if client._server_info.get("jetstream") else min(timeout, 0.2)
        await transport.requests.api("$JS.API.INFO", timeout=patience)
    except PermissionDenied:
        logger.debug("%s: not allowed to ask for JetStream's state; assumed to be there", shown)
    except UnsuitableServer:
        raise UnsuitableServer(f"{shown}: JetStream is not enabled on this server") from None
    except Unavailable as error:
        if client._server_info.get("jetstream"):
            raise Unavailable(f"{shown}: JetStream does not answer: {error}") from None
        raise UnsuitableServer(f"{shown}: JetStream is not enabled on this server") from None
    except NexusError as error:
        raise UnsuitableServer(f"{shown}: {error}") from error


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
