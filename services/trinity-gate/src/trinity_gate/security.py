"""What every request passes before it reaches the service: Host, Origin, token, size. An ASGI middleware.

The service listens on loopback, and a browser of its user visits other sites: so a name that resolves to 127.0.0.1
(DNS rebinding) must not read anything, which the Host check sees to, and another site's page must not write or open a
WebSocket, which the Origin check sees to.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import logging
from collections.abc import Collection, Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gbe_runtime.log import one_line
from gbe_runtime.metrics import Metrics
from trinity_gate.index import Caller
from trinity_gate.tokens import LOCAL, Tokens

log = logging.getLogger(__name__)

MAX_BODY: Final = 256 * 1024
BODY_TIMEOUT: Final = 10.0
"""Seconds a body may take to come."""

DRAINED: Final = 4 << 20
DRAIN_TIMEOUT: Final = 2.0
"""How much, and for how long, is read of a body that is too large and thrown away: who still sends reads no answer."""

HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

CALLER: Final = "trinity_gate.caller"
"""Where in the scope the caller is found; None where a token is needed and missing."""

HEAD: Final = "trinity_gate.head"
"""In the scope of a GET that was a HEAD: its body need not be made."""

PROTOCOL: Final = "trinity-gate"
_TOKEN_PROTOCOL: Final = "bearer."
_ENCODED_TOKEN_PROTOCOL: Final = "bearer64."
"""With the token in base64url without padding: a subprotocol can't have the `/` and `=` that a token may have."""
_IN_URL: Final = frozenset({"token", "access_token", "bearer", "authorization"})


class _Denied(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Gatekeeper:
    """Lets a request through, with its caller in the scope, or answers it itself. Adds the security headers to all."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], tokens: Tokens | None, metrics: Metrics) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._tokens = tokens
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        http = scope["type"] == "http"
        counted = self._counted(send) if http else _guarded(send)
        try:
            self._check(scope)
            if http and scope["method"] not in SAFE_METHODS:
                receive = await self._whole_body(scope, receive)
            elif http and scope["method"] == "HEAD":
                # Answered as the GET it stands for, whose body the server leaves out (RFC 9110, 9.3.2).
                scope = {**scope, "method": "GET", HEAD: True}
                counted = _without_body(counted)
        except _Denied as denied:
            log.info("%s %s denied: %s", scope.get("method", "WebSocket"), one_line(scope["path"][:200]), denied)
            if http:
                await _answer(denied, counted)
            else:
                await _deny_websocket(denied, scope, receive, counted)
            return
        await self._app(scope, receive, counted)

    # --- checks ---

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        host = _one(headers, b"host")
        if host is None or _host_name(host) not in self._hosts:
            raise _Denied(403, "bad_host", "this service does not answer to that Host")
        if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
            self._check_origin(headers, host)
        query = scope.get("query_string", b"").decode("latin-1")
        if any(name.lower() in _IN_URL for name, _ in parse_qsl(query, keep_blank_values=True)):
            raise _Denied(400, "token_in_url", "a token does not belong in a URL: send it as Authorization: Bearer")
        scope[CALLER] = self._caller(scope)

    def _check_origin(self, headers: Iterable[tuple[bytes, bytes]], host: str) -> None:
        """Browsers send it with every write and WebSocket of a page; what has none is no page of another site."""
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        for origin in origins:
            if not _is_ours(origin, host):
                raise _Denied(403, "bad_origin", "a page of another origin may not do this")
        site = _one(headers, b"sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            raise _Denied(403, "bad_origin", "a page of another site may not do this")

    def _caller(self, scope: Scope) -> Caller | None:
        if self._tokens is None:
            return LOCAL
        given = _one(scope["headers"], b"authorization")
        token: str | None = None
        if given is not None:
            kind, _, token = given.partition(" ")
            if kind.lower() != "bearer":
                raise _Denied(401, "unauthorized", "expected Authorization: Bearer TOKEN")
        elif scope["type"] == "websocket":
            token = _offered_token(scope.get("subprotocols", ()))
        if token is None:
            return None
        caller = self._tokens.caller(token.strip())
        if caller is None and scope["type"] == "http":
            raise _Denied(401, "unauthorized", "nobody has this token")
        return caller

    # --- bodies ---

    async def _whole_body(self, scope: Scope, receive: Receive) -> Receive:
        length = _one(scope["headers"], b"content-length")
        if length is not None and (not length.isdigit() or len(length) > 18 or int(length) > MAX_BODY):
            raise await _too_large(receive)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _replay(message)
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY:
                        raise await _too_large(receive)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise _Denied(408, "too_slow", f"the body did not come within {BODY_TIMEOUT:g} s") from None
        if body:
            if _media_type(_one(scope["headers"], b"content-type")) != "application/json":
                raise _Denied(415, "not_json", "expected Content-Type: application/json")
            _check_json(bytes(body))
        return _replay({"type": "http.request", "body": bytes(body), "more_body": False}, receive)

    # --- answers ---

    def _counted(self, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.counter(f"http_responses_{message['status'] // 100}xx").add()
                headers = [*message.get("headers", ()), *HEADERS]
                if all(name != b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        return counted


def allowed_hosts(bound: str, more: Iterable[str]) -> frozenset[str]:
    """The names by which the service may be called: where it listens, loopback's, and those that are named."""
    names = {name.strip("[]").lower() for name in more}
    try:
        address = ipaddress.ip_address(bound.strip("[]"))
        if not address.is_unspecified:
            names.add(str(address))
    except ValueError:
        names.add(bound.lower())
    return frozenset(names | LOOPBACK_NAMES)


def _offered_token(offered: Iterable[str]) -> str | None:
    """The token among the subprotocols."""
    for name in offered:
        if name.startswith(_TOKEN_PROTOCOL):
            return name.removeprefix(_TOKEN_PROTOCOL)
        if name.startswith(_ENCODED_TOKEN_PROTOCOL):
            encoded = name.removeprefix(_ENCODED_TOKEN_PROTOCOL)
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("ascii")
            except ValueError:
                return None
    return None


def _host_name(host: str) -> str | None:
    """Of a Host header, without the port."""
    try:
        parts = urlsplit(f"//{host}")
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return None
        _ = parts.port
        return parts.hostname
    except ValueError:
        return None


def _is_ours(origin: str, host: str) -> bool:
    """Whether an Origin header names the host that the request is sent to."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _one(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The header, where there is exactly one."""
    found = [value for key, value in headers if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _media_type(value: str | None) -> str:
    return (value or "").split(";", 1)[0].strip().lower()


async def _too_large(receive: Receive) -> _Denied:
    left = DRAINED
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    return _Denied(413, "too_large", f"a body has at most {MAX_BODY} bytes")


def _check_json(body: bytes) -> None:
    """JSON as everybody reads it (RFC 8259): UTF-8, no key of an object twice, of which each reader takes another one.

    Raises `_Denied`.
    """
    try:
        json.loads(body.decode("utf-8-sig"), object_pairs_hook=_once)
    except _Twice as error:
        raise _Denied(400, "bad_json", f"the body has the key {error.args[0][:100]!r} twice in one object") from None
    except UnicodeDecodeError:
        raise _Denied(400, "bad_json", "the body is not UTF-8") from None
    except RecursionError:
        raise _Denied(400, "bad_json", "the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _Denied(400, "bad_json", f"the body is not JSON: {error.msg} at {where}") from None
    except ValueError:  # thousands of digits
        raise _Denied(400, "bad_json", "the body has a number that is too long") from None


class _Twice(Exception):
    """The key."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(name)
        found[name] = value
    return found


def _guarded(send: Send) -> Send:
    """With the security headers where a WebSocket is refused."""

    async def guarded(message: Message) -> None:
        if message["type"] == "websocket.http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return guarded


def _without_body(send: Send) -> Send:
    async def head_only(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return head_only


def _replay(first: Message, rest: Receive | None = None) -> Receive:
    waiting = [first]

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        return await rest() if rest is not None else {"type": "http.disconnect"}

    return receive


async def _answer(denied: _Denied, send: Send) -> None:
    body = json.dumps({"error": {"code": denied.code, "message": str(denied), "field": None}}).encode()
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if denied.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if denied.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": denied.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _deny_websocket(denied: _Denied, scope: Scope, receive: Receive, send: Send) -> None:
    """Before it is accepted it is an HTTP request, and answered as one."""
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": denied.code})
        return

    async def as_websocket(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await _answer(denied, as_websocket)


def caller_in(scope: Any) -> Caller | None:
    """Who asks."""
    found: Caller | None = scope.get(CALLER)
    return found
