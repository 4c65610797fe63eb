"""`Client`: sends a request, follows its redirects and gives the answer with its body unread."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace

import httpcore
import httpx

from gbe_jobs_domain.outcomes import FailureKind
from gbe_operative.contract import OperativeError
from gbe_operative_http.core.addresses import AddressPolicy
from gbe_operative_http.core.inflate import ACCEPT, CODINGS, BadEncoding, Inflater
from gbe_operative_http.core.redirects import STATUSES, headers_after, method_after
from gbe_operative_http.core.request import ParamError, Request, checked_url, origin_of, port_of, shown
from gbe_operative_http.network import AddressDenied, PoolTransport, check_ahead, make_pool

USER_AGENT = "gbe-operative-http"

KEEPALIVE = 5.0
"""Seconds that an idle connection is kept. Servers close them after as much, or more."""

Upload = Callable[[], AsyncIterator[bytes]]
"""Gives the bytes of a request's body, from the beginning each time."""

Failures = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, its body unread, and the request that it answers: the last one, after redirects."""

    request: Request
    response: httpx.Response


class Client:
    """One pool of connections for all requests of an Operative. No cookies, no environment, no second tries.

    Not an `httpx.AsyncClient`, which would bring all of these and has to be talked out of each.
    """

    def __init__(self, policy: AddressPolicy, tls: ssl.SSLContext, proxy: str | None = None) -> None:
        self._policy = policy
        self._by_proxy = proxy is not None
        self._transport = PoolTransport(make_pool(policy, tls, proxy, KEEPALIVE))

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    @contextlib.asynccontextmanager
    async def answer(self, request: Request, upload: Upload | None) -> AsyncIterator[Answer]:
        """The answer to a request, after its redirects. Leaving the context closes what is not read to its end.

        Raises `OperativeError`, also for what goes wrong within the context.
        """
        followed = 0
        while True:
            try:
                response = await self._send(request, upload)
            except (AddressDenied, *Failures) as error:
                raise failure(request, error, first=not followed) from error
            try:
                location = response.headers.get("location")
                if request.redirects is None or response.status_code not in STATUSES or location is None:
                    try:
                        yield Answer(request, response)
                    except (BadEncoding, *Failures) as error:
                        raise failure(request, error, first=False) from error
                    return
            finally:
                await response.aclose()
            followed += 1
            if followed > request.redirects:
                raise OperativeError(
                    f"{_who(request)}: more than {request.redirects} redirects, the next to {shown(location)}",
                    retryable=False,
                )
            request = _redirected(request, response.status_code, location)

    async def _send(self, request: Request, upload: Upload | None) -> httpx.Response:
        limits = request.limits
        if self._by_proxy:
            await check_ahead(self._policy, request.url.host, port_of(request.url))
        headers = httpx.Headers({"Accept": "*/*", "Accept-Encoding": ACCEPT, "User-Agent": USER_AGENT})
        headers.update(request.headers)
        content: bytes | AsyncIterator[bytes] | None = None
        if isinstance(request.content, bytes):
            content = request.content
        elif request.content is not None and upload is not None:
            content = upload()
            headers["Content-Length"] = str(request.content.size)
        timeout = httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout)
        return await self._transport.handle_async_request(
            httpx.Request(
                request.method,
                request.url,
                headers=headers,
                content=content,
                extensions={"timeout": timeout.as_dict()},
            )
        )


async def body_of(response: httpx.Response, limit: int) -> AsyncGenerator[bytes, None]:
    """The body, unpacked, in pieces. Raises `BodyTooLarge` beyond `limit` bytes, and `BadEncoding`.

    A coding that we did not ask for is left as it is, for the header says so.
    """
    coding = response.headers.get("content-encoding", "").strip().lower()
    inflater = Inflater(coding) if coding in CODINGS else None
    size = 0
    async for part in response.aiter_raw():
        for piece in (part,) if inflater is None else inflater.feed(part):
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(limit)
            yield piece
    if inflater is not None:
        inflater.finish()


class BodyTooLarge(Exception):
    """More than was agreed to."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")


def failure(request: Request, error: Exception, *, first: bool) -> OperativeError:
    """What went wrong, for people. `first`: nothing has been sent anywhere yet."""
    who = _who(request)
    if isinstance(error, AddressDenied):
        kind = FailureKind.REJECTED if first else FailureKind.ERROR
        return OperativeError(f"{who}: {error}", retryable=False, kind=kind)
    if isinstance(error, httpcore.ConnectTimeout):
        return OperativeError(
            f"{who}: no connection within {request.limits.connect_timeout:g} s", kind=FailureKind.TIMEOUT
        )
    if isinstance(error, httpcore.TimeoutException):
        return OperativeError(
            f"{who}: nothing was heard for {request.limits.read_timeout:g} s", kind=FailureKind.TIMEOUT
        )
    if _is_a_bad_certificate(error):
        return OperativeError(f"{who}: {error}", retryable=False)
    return OperativeError(f"{who}: {str(error) or type(error).__name__}")


def _redirected(request: Request, status: int, location: str) -> Request:
    """The next request. Raises `OperativeError`."""
    try:
        # Spaces and other letters are common in this header, and each client makes something of them.
        url, _ = checked_url(str(request.url.join(location)), "redirect")
    except (ParamError, httpx.InvalidURL, ValueError) as error:
        raise OperativeError(f"{_who(request)}: {error}", retryable=False) from error
    method = method_after(status, request.method)
    keep_body = method == request.method
    return replace(
        request,
        method=method,
        url=url,
        headers=headers_after(request.headers, origin_of(request.url), origin_of(url), keep_body),
        content=request.content if keep_body else None,
    )


def _who(request: Request) -> str:
    return f"{request.method} {str(request.url)[:500]}"


def _is_a_bad_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
