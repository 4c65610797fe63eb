"""Requests to the server's JetStream API: one reply inbox, errors mapped, what passes by itself tried again."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

import msgspec

from gbe_nexus.errors import ClosedError, NexusError, PermissionDenied, Unavailable
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.errors import ServerRefusal
from gbe_nexus_nats.parser import Delivery
from gbe_nexus_nats.wire import STATUS_LINE, literal_subject, publish_frame, status_of

TIMEOUT = 10.0
"""Seconds for a request with all its tries."""

_TRY = 4.0
_PAUSE = 0.05

_VIOLATION = re.compile(r'publish to "(.+)"', re.IGNORECASE)


class _Waiting:
    __slots__ = ("collected", "future", "subject")

    def __init__(self, subject: str, future: asyncio.Future[Delivery | NexusError], many: bool) -> None:
        self.subject = subject
        self.future = future
        self.collected: list[Delivery] | None = [] if many else None


class Requests:
    """Request and reply on a connection."""

    def __init__(self, client: FastClient) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        inbox = client.inbox()
        self._reply = inbox + b"."
        self._sink = client.attach(inbox + b".*", self._answers)
        self._next = 1
        self._waiting: dict[bytes, _Waiting] = {}
        self._closed = False
        client.down.append(self._on_down)
        client.violations.append(self._on_violation)

    async def api(self, subject: str, request: object = None, *, timeout: float = TIMEOUT) -> dict[str, Any]:
        """A JetStream API request with a JSON body (None: empty), and the decoded answer.

        Raises the contract's error for an answer that is one; `Unavailable` where none comes in time.
        """
        body = b"" if request is None else msgspec.json.encode(request)
        deadline = self._loop.time() + timeout
        pause = _PAUSE
        while True:
            try:
                _, _, headers, payload = await self.request(subject, body, min(_TRY, deadline - self._loop.time()))
                code, text = status_of(headers)
                error: NexusError
                if code:
                    error = Unavailable(f"{subject}: {code} {text or 'nobody answers'}")
                else:
                    answer = cast("dict[str, Any]", msgspec.json.decode(payload))
                    if "error" not in answer:
                        return answer
                    refusal = ServerRefusal(answer["error"], subject)
                    if not refusal.transient:
                        raise refusal.mapped() from refusal
                    error = refusal.mapped()
            except Unavailable as silent:
                error = silent
            if self._loop.time() + pause >= deadline:
                raise error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def request(self, subject: str, payload: bytes, timeout: float) -> Delivery:
        """One try of any request; the reply as it comes. `Unavailable` on silence or without a connection."""
        return (await self._ask(subject, payload, timeout, many=False))[0]

    async def collect(self, subject: str, request: object, *, timeout: float = _TRY) -> list[Delivery]:
        """One try of a request with many replies, the last of which is a status."""
        return await self._ask(subject, msgspec.json.encode(request), timeout, many=True)

    async def _ask(self, subject: str, payload: bytes, timeout: float, *, many: bool) -> list[Delivery]:
        if self._closed:
            raise ClosedError("the transport is closed")
        encoded = literal_subject(subject)
        if not self._client.live:
            raise Unavailable(f"{subject}: no connection to the server")
        token = b"%d" % self._next
        self._next += 1
        waiting = self._waiting[token] = _Waiting(subject, self._loop.create_future(), many)
        self._client.write(publish_frame(encoded, self._reply + token, b"", payload))
        self._client.push()
        try:
            async with asyncio.timeout(max(timeout, 0.001)):
                result = await waiting.future
        except TimeoutError:
            raise Unavailable(f"{subject}: no answer") from None
        finally:
            del self._waiting[token]
        if isinstance(result, NexusError):
            raise result
        return [*(waiting.collected or ()), result]

    def close(self) -> None:
        """Whoever waits gets `ClosedError`."""
        self._closed = True
        self._fail(ClosedError("the transport was closed before the server answered"))

    def _answers(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            waiting = self._waiting.get(delivery[0][len(self._reply) :])
            if waiting is None or waiting.future.done():
                continue
            headers = delivery[2]
            if waiting.collected is not None and not (headers and headers.startswith(STATUS_LINE)):
                waiting.collected.append(delivery)
            else:
                waiting.future.set_result(delivery)

    def _on_down(self) -> None:
        self._fail(Unavailable("the connection was lost before the server answered"))

    def _fail(self, error: NexusError) -> None:
        for waiting in list(self._waiting.values()):
            if not waiting.future.done():
                waiting.future.set_result(error)

    def _on_violation(self, text: str) -> None:
        found = _VIOLATION.search(text)
        if found is None:
            return
        for waiting in list(self._waiting.values()):
            if waiting.subject == found[1] and not waiting.future.done():
                waiting.future.set_result(PermissionDenied(f"{found[1]}: these credentials may not"))
