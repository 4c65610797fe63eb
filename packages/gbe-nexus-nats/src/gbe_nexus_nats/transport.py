"""`NatsTransport`: the contract, put together from the parts of this package."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nats import errors as nats_errors

from gbe_nexus.answers import Answers
from gbe_nexus.artifacts import ArtifactStore
from gbe_nexus.errors import ClosedError, NexusError, PayloadTooLarge, Unavailable
from gbe_nexus.journal import Journal
from gbe_nexus.state import StateStore
from gbe_nexus.transport import (
    ConsumerSpec,
    ConsumerState,
    Handler,
    Outgoing,
    PubAck,
    StreamSpec,
    StreamState,
    Subscription,
    Transport,
)
from gbe_nexus_nats import streams
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.consumer import GroupSubscription, ObserverSubscription, PullSubscription
from gbe_nexus_nats.journal import NatsJournal
from gbe_nexus_nats.listening import ListenSubscription
from gbe_nexus_nats.publisher import Publisher
from gbe_nexus_nats.requests import Requests
from gbe_nexus_nats.wire import header_block, literal_subject, publish_frame

logger = logging.getLogger("gbe.nexus.nats")

CLOSE_PATIENCE = 5.0
"""Seconds that closing waits for the server to take what is written."""


class NatsTransport(Transport):
    """A connection to a NATS server or cluster. Made by `gbe_nexus_nats.connect`."""

    def __init__(self, client: FastClient, replicas: int) -> None:
        self.client = client
        self.replicas = replicas
        self.requests = Requests(client)
        self._publisher = Publisher(
            client,
            lambda stream: streams.message_limit(self.requests, stream),
            lambda subject: streams.has_stream(self.requests, subject),
        )
        self._subscriptions: set[Subscription] = set()
        self._reconnect_callbacks: list[Callable[[], None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        client.up.append(self._on_up)

    # --- the connection ---------------------------------------------------------------------------

    @property
    def max_payload(self) -> int:
        return self.client.max_payload

    @property
    def connected(self) -> bool:
        return self.client.live

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self._reconnect_callbacks.append(callback)

    def _on_up(self) -> None:
        # In a turn of their own, after every part of the connection has been restored.
        for callback in self._reconnect_callbacks:
            asyncio.get_running_loop().call_soon(callback)

    async def flush(self) -> None:
        self._check_open()
        try:
            await self.client.flush()
        except nats_errors.ConnectionClosedError as error:
            raise ClosedError("the transport is closed") from error
        except (nats_errors.Error, OSError) as error:
            raise Unavailable(f"flush: {error}") from error

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(*(subscription.stop() for subscription in list(self._subscriptions)))
        self._closed = True
        if self.client.live:
            await self._publisher.drain(CLOSE_PATIENCE)
            try:
                await self.client.flush(CLOSE_PATIENCE)
            except (nats_errors.Error, OSError) as error:
                logger.debug("closed without a last round trip: %s", error)
                self.client.drop_connection()
        self._publisher.close()
        self.requests.close()
        try:
            await asyncio.wait_for(self.client.close(), CLOSE_PATIENCE)
        except TimeoutError:
            self.client.drop_connection()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the transport is closed")

    async def api(self, subject: str, request: object = None) -> dict[str, Any]:
        """A raw JetStream API request (`$JS.API.…`), JSON both ways, errors mapped; for the stores of this package."""
        self._check_open()
        return await self.requests.api(subject, request)

    # --- publishing -------------------------------------------------------------------------------

    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> PubAck:
        (result,) = await self.publish_many((Outgoing(subject, payload, msg_id, headers),))
        if isinstance(result, NexusError):
            raise result
        return result

    def publish_many(self, messages: Sequence[Outgoing]) -> Answers[PubAck | NexusError]:
        self._check_open()
        return self._publisher.publish(messages)

    def hint(self, subject: str, payload: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        self._check_open()
        header = header_block(None, headers)
        size = len(header) + len(payload)
        if size > self.client.max_payload:
            raise PayloadTooLarge(size, self.client.max_payload)
        frame = publish_frame(literal_subject(subject), b"", header, payload)
        if not self.client.congested:
            self.client.write(frame)

    async def listen(self, subjects: Sequence[str], handler: Callable[[str, bytes], None]) -> Subscription:
        self._check_open()
        subscription = ListenSubscription(self.client, subjects, handler, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        if self.client.live:
            await self.flush()  # "From now on" is when the server knows of it.
        return subscription

    # --- streams and consumers --------------------------------------------------------------------

    async def ensure_stream(self, spec: StreamSpec) -> None:
        self._check_open()
        await streams.ensure_stream(self.requests, spec, self.replicas)

    async def stream_state(self, stream: str) -> StreamState:
        self._check_open()
        return await streams.stream_state(self.requests, stream)

    async def consumer_state(self, stream: str, name: str) -> ConsumerState:
        self._check_open()
        return await streams.consumer_state(self.requests, stream, name)

    async def trim(self, stream: str, before: int) -> int:
        self._check_open()
        return await streams.trim(self.requests, stream, before)

    async def subscribe(self, spec: ConsumerSpec, handler: Handler, *, credit: int | None = None) -> Subscription:
        self._check_open()
        kind: type[PullSubscription] = ObserverSubscription if spec.name is None else GroupSubscription
        subscription = kind(
            self.client, self.requests, self._publisher, spec, handler, credit, self._subscriptions.discard
        )
        self._subscriptions.add(subscription)
        try:
            await subscription.open()
        except BaseException:
            self._subscriptions.discard(subscription)
            raise
        return subscription

    # --- stores -----------------------------------------------------------------------------------

    async def journal(self, stream: str) -> Journal:
        await self.stream_state(stream)  # Raises `NotFound`.
        return NatsJournal(self.client, self.requests, self._publisher, stream)

    async def state_store(self, bucket: str, *, ttl: float = 0) -> StateStore:
        from gbe_nexus_nats.state import open_state_store

        self._check_open()
        return await open_state_store(self, bucket, ttl=ttl)

    async def artifact_store(self, bucket: str) -> ArtifactStore:
        from gbe_nexus_nats.artifacts import open_artifact_store

        self._check_open()
        return await open_artifact_store(self, bucket)
