"""Reading all messages of one subject, in order, a bounded number at a time."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from gbe_nexus.errors import NotFound, Unavailable
from gbe_nexus_nats.bucket import NANOSECONDS, JetStream
from gbe_nexus_nats.parser import Delivery
from gbe_nexus_nats.wire import publish_frame, status_of

BATCH = 16
"""Messages asked for at a time; two such requests are open, so the server never waits for the reader."""

SILENCE = 2.0
"""Seconds without a message after which the server is asked whether there are any."""

_PATIENCE = 10.0
"""Seconds without any progress after which it is given up."""

_EXPIRES = 30


class Gap(Exception):
    """The stream does not hold as many messages of the subject as there should be."""


class ChunkReader:
    """One pass over the messages of a subject with a pull consumer of its own.

    The consumer is lost with a connection or a server's leadership; then another one goes on after the last message.
    """

    def __init__(self, jetstream: JetStream, stream: str, subject: str) -> None:
        self._jetstream = jetstream
        self._stream = stream
        self._subject = subject
        self._arrived: deque[Delivery] = deque()
        self._news = asyncio.Event()
        self._last_seq = 0

    async def read(self, count: int) -> AsyncGenerator[bytes, None]:
        """The payloads of the first `count` messages. Raises `Gap`, `Unavailable`."""
        loop = asyncio.get_running_loop()
        client = self._jetstream.client
        left = count
        deadline = loop.time() + _PATIENCE
        while left:
            inbox = client.inbox()
            sink = client.attach(inbox, self._take)
            name = f"gbe{secrets.token_hex(8)}"
            try:
                before = left
                async with aclosing(self._pull(name, inbox, count, left)) as payloads:
                    async for payload in payloads:
                        left -= 1
                        yield payload
                if left < before:
                    deadline = loop.time() + _PATIENCE
                elif loop.time() > deadline:
                    raise Unavailable(f"reading {self._subject}: no answer")
                if left:
                    await self._check(count)
            finally:
                client.detach(sink)
                self._arrived.clear()
                # It would go by itself after a while; nobody waits for the answer.
                client.write(publish_frame(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}".encode(), b"", b"", b""))

    async def _pull(self, name: str, inbox: bytes, count: int, wanted: int) -> AsyncGenerator[bytes, None]:
        """Messages as they come, until there are `wanted`, or no more come for a moment."""
        config: dict[str, object] = {
            "name": name,
            "filter_subject": self._subject,
            "deliver_policy": "all",
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _EXPIRES * NANOSECONDS,
        }
        if self._last_seq:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last_seq + 1}
        info = await self._jetstream.api(
            f"$JS.API.CONSUMER.CREATE.{self._stream}.{name}", {"stream_name": self._stream, "config": config}
        )
        if int(info.get("num_pending", 0)) < wanted:
            await self._check(count)  # the consumer may be on a replica that lags; the leader knows
        client = self._jetstream.client
        next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{name}".encode()
        asked = got = 0
        while got < wanted:
            while asked < wanted and asked - got <= BATCH:
                batch = min(BATCH, wanted - asked)
                asked += batch
                request = msgspec.json.encode({"batch": batch, "expires": _EXPIRES * NANOSECONDS})
                client.write(publish_frame(next_subject, inbox, b"", request))
            delivery = await self._next()
            if delivery is None:
                return
            _, reply, headers, payload = delivery
            if status_of(headers)[0]:
                return  # the request ended: the consumer or the leader is gone
            stream_seq, consumer_seq = _sequences(reply)
            if consumer_seq != got + 1:
                return  # some were lost on the way
            self._last_seq = stream_seq
            got += 1
            yield payload

    async def _next(self) -> Delivery | None:
        if not self._arrived:
            self._news.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await self._news.wait()
            except TimeoutError:
                return None
        return self._arrived.popleft()

    def _take(self, deliveries: list[Delivery]) -> None:
        self._arrived.extend(deliveries)
        self._news.set()

    async def _check(self, count: int) -> None:
        """Whether the leader has as many as there should be."""
        try:
            answer = await self._jetstream.api(
                f"$JS.API.STREAM.INFO.{self._stream}", {"subjects_filter": self._subject}
            )
        except NotFound:
            raise Gap("its stream is gone") from None
        held = (answer["state"].get("subjects") or {}).get(self._subject, 0)
        if held < count:
            raise Gap(f"{held} of {count} chunks are there")


def _sequences(reply: bytes) -> tuple[int, int]:
    """Stream and consumer sequence from a message's ack subject, whose form depends on the server's version."""
    tokens = reply.split(b".")
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, or with two tokens
    # (domain, account) after $JS.ACK and perhaps one at the end.
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 1])
