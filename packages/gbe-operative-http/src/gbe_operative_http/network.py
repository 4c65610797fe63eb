"""Connections to addresses that were checked: httpx on top, httpcore's pool below, and between a name and a socket us.

A name is resolved once per connection, each address is asked about, and the socket is opened to that very address: what
the name resolves to a moment later (DNS rebinding) is of no interest. Certificates are checked for the name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpcore
import httpx

from gbe_operative_http.core.addresses import Address, AddressPolicy

Resolver = Callable[[str, int], Any]


class AddressDenied(Exception):
    """The name has no address that may be reached; the text says which and why, and what the host's owner can do."""


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a name, best first. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


def allowed_among(policy: AddressPolicy, host: str, port: int, found: list[Address]) -> list[Address]:
    """Those that may be reached. Raises `AddressDenied` where there are some, and none may."""
    denied: list[str] = []
    allowed: list[Address] = []
    for address in found:
        reason = policy.why_not(address, port)
        if reason is None:
            allowed.append(address)
        else:
            denied.append(f"{address} ({reason})")
    if allowed or not denied:
        return allowed
    named = denied[0] if denied[0].startswith(host) else f"{host}: {denied[0]}"
    raise AddressDenied(
        f"{named} may not be reached from here; whoever owns this host can allow it, GBE_HTTP_ALLOW={found[0]}"
    )


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens sockets for httpcore's pool."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check, connect. Raises `AddressDenied` and httpcore's errors."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        try:
            async with asyncio.timeout(timeout):
                found = await resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"the name {host} was not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} can't be resolved: {_reason(error)}") from error
        addresses = allowed_among(self._policy, host, port, found)
        for number, address in enumerate(addresses):
            # One that does not answer leaves time for the others.
            share = None if until is None else max(0.01, (until - loop.time()) / (len(addresses) - number))
            try:
                return await self._sockets.connect_tcp(str(address), port, share, local_address, socket_options)
            except httpcore.ConnectTimeout:
                if number == len(addresses) - 1:
                    raise
            except httpcore.ConnectError as error:
                if number == len(addresses) - 1:
                    raise httpcore.ConnectError(f"no connection to {address}: {_root(error)}") from error
        raise httpcore.ConnectError(f"the name {host} has no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise httpcore.ConnectError("no Unix sockets")

    async def sleep(self, seconds: float) -> None:
        """As httpcore wants it."""
        await asyncio.sleep(seconds)


async def check_ahead(policy: AddressPolicy, host: str, port: int) -> None:
    """For requests by way of a proxy, which resolves names itself: what can be seen from here must be allowed.

    Raises `AddressDenied`. A name that can't be resolved here is the proxy's business.
    """
    try:
        found = await resolve(host, port)
    except (OSError, UnicodeError):
        return
    allowed_among(policy, host, port, found)


def make_pool(
    policy: AddressPolicy, tls: ssl.SSLContext, proxy: str | None, keepalive: float
) -> httpcore.AsyncConnectionPool:
    """The pool of all connections of an Operative; its slots bound how many there are. Raises `ValueError`."""
    shared: dict[str, Any] = {"ssl_context": tls, "keepalive_expiry": keepalive, "max_keepalive_connections": 32}
    if proxy is None:
        return httpcore.AsyncConnectionPool(network_backend=CheckedBackend(policy), max_connections=None, **shared)
    url = httpx.URL(proxy)
    if url.scheme != "http" or not url.host:
        raise ValueError("expected http://host:port")
    auth = (url.username, url.password) if url.userinfo else None
    place = httpcore.URL(scheme=b"http", host=url.raw_host, port=url.port or 80, target=b"/")
    return httpcore.AsyncHTTPProxy(
        place, proxy_auth=auth, network_backend=httpcore.AnyIOBackend(), max_connections=None, **shared
    )


class PoolTransport(httpx.AsyncBaseTransport):
    """httpx on such a pool. Errors are httpcore's own."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it; the body of the answer is read by whoever asked."""
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """A body as it comes."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()


def _root(error: BaseException) -> str:
    """What the system said, which anyio has wrapped."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno is not None:
            return os.strerror(found.errno)
        found = found.__cause__ or found.__context__
    return str(error)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
