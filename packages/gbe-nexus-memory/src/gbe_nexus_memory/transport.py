"""`MemoryTransport`: one connection to a broker inside this process, and `connect`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

from gbe_nexus import (
    ClosedError,
    ConnectOptions,
    ConsumerSpec,
    ConsumerState,
    Handler,
    NexusError,
    Outgoing,
    PayloadTooLarge,
    PubAck,
    Refused,
    StreamSpec,
    StreamState,
    Subscription,
    Transport,
)
from gbe_nexus.answers import Answers
from gbe_nexus_memory.artifacts import MemoryArtifactStore
from gbe_nexus_memory.broker import MAX_PAYLOAD, Broker, answered, message_size
from gbe_nexus_memory.consumer import MemorySubscription
from gbe_nexus_memory.journal import MemoryJournal
from gbe_nexus_memory.listener import Listener
from gbe_nexus_memory.state import MemoryStateStore
from gbe_nexus_memory.subjects import is_literal, is_pattern

_named: dict[asyncio.AbstractEventLoop, dict[str, Broker]] = {}


async def connect(url: str, options: ConnectOptions | None = None) -> MemoryTransport:
    """`memory://name` joins the broker of that name of this event loop; `memory://` alone makes a private one.

    `?max_payload=` (bytes) is the largest message a new broker takes. A broker with a name lives as long as its loop.
    """
    parts = urlsplit(url)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    limit = settings.pop("max_payload", None)
    if settings or parts.path.strip("/") or (limit is not None and not (limit.isascii() and limit.isdigit())):
        raise Refused(f"not a memory URL: {url!r} (memory://NAME?max_payload=BYTES)")
    return MemoryTransport(_broker(parts.netloc, None if limit is None else int(limit)))


def _broker(name: str, limit: int | None) -> Broker:
    loop = asyncio.get_running_loop()
    if not name:
        return Broker(loop, limit or MAX_PAYLOAD)
    for other in [known for known in _named if known.is_closed()]:
        del _named[other]
    brokers = _named.setdefault(loop, {})
    broker = brokers.get(name)
    if broker is None:
        broker = brokers[name] = Broker(loop, limit or MAX_PAYLOAD)
    elif limit is not None and limit != broker.max_payload:
        raise Refused(f"memory://{name} exists with max_payload {broker.max_payload}, wanted {limit}")
    return broker


class MemoryTransport(Transport):
    """A connection. Whatever a caller awaits gives other tasks a turn, as a network would."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._subscriptions: list[MemorySubscription] = []
        self._listeners: list[Listener] = []
        self._closed = False

    @property
    def broker(self) -> Broker:
        """The broker, to connect a second transport to a private one (`MemoryTransport(first.broker)`)."""
        return self._broker

    @property
    def max_payload(self) -> int:
        """The broker's limit."""
        return self._broker.max_payload

    @property
    def connected(self) -> bool:
        """True until closed."""
        return not self._closed

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Never called: a connection within the process is not lost."""

    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> PubAck:
        """Store one message."""
        self._check_open()
        ack = self._broker.publish(subject, payload, msg_id, headers)
        await asyncio.sleep(0)
        return ack

    def publish_many(self, messages: Sequence[Outgoing]) -> Answers[PubAck | NexusError]:
        """Store many; they are stored when this returns, the results come with the loop's next turn."""
        self._check_open()
        publish = self._broker.publish
        results: list[PubAck | NexusError] = []
        for message in messages:
            try:
                results.append(publish(message.subject, message.payload, message.msg_id, message.headers))
            except NexusError as error:
                results.append(error)
        return answered(self._broker.loop, results)

    def hint(self, subject: str, payload: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Publish without waiting for anything; what can't be stored is dropped, what can't be sent is an error."""
        self._check_open()
        size = message_size(payload, headers, None)
        if size > self.max_payload:
            raise PayloadTooLarge(size, self.max_payload)
        if not is_literal(subject):
            raise Refused(f"not a subject to publish on: {subject!r}")
        try:
            self._broker.publish(subject, payload, None, headers)
        except NexusError:
            return

    async def listen(self, subjects: Sequence[str], handler: Callable[[str, bytes], None]) -> Subscription:
        """Hear every message published on the subjects from now on."""
        self._check_open()
        if not subjects or not all(map(is_pattern, subjects)):
            raise Refused(f"not subjects to listen on: {', '.join(map(repr, subjects)) or 'none'}")
        listener = Listener(subjects, handler, self._broker.loop, self._forget_listener)
        self._broker.listeners.append(listener)
        self._listeners.append(listener)
        return listener

    def _forget_listener(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
            self._broker.listeners.remove(listener)

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream; fine where it exists with the same settings."""
        self._check_open()
        self._broker.ensure_stream(spec)

    async def stream_state(self, stream: str) -> StreamState:
        """What the stream holds now."""
        self._check_open()
        return self._broker.stream(stream).state()

    async def subscribe(self, spec: ConsumerSpec, handler: Handler, *, credit: int | None = None) -> Subscription:
        """Join a consumer group, or observe."""
        self._check_open()
        subscription = MemorySubscription(self, self._broker.group(spec), handler, credit)
        self._subscriptions.append(subscription)
        subscription.group.join(subscription)
        return subscription

    async def consumer_state(self, stream: str, name: str) -> ConsumerState:
        """Where a group stands."""
        self._check_open()
        return self._broker.existing_group(stream, name).state()

    async def trim(self, stream: str, before: int) -> int:
        """Delete all messages with a sequence below `before`."""
        self._check_open()
        return self._broker.stream(stream).trim(before)

    async def journal(self, stream: str) -> MemoryJournal:
        """The journal kept in that stream."""
        self._check_open()
        return MemoryJournal(self._broker, self._broker.stream(stream), self._check_open)

    async def state_store(self, bucket: str, *, ttl: float = 0) -> MemoryStateStore:
        """The key-value bucket."""
        self._check_open()
        return MemoryStateStore(self._broker.bucket(bucket, ttl), self._check_open)

    async def artifact_store(self, bucket: str) -> MemoryArtifactStore:
        """The artifact bucket."""
        self._check_open()
        return MemoryArtifactStore(bucket, self._broker.artifacts(bucket), self._check_open)

    async def flush(self) -> None:
        """Nothing is ever under way; other tasks have a turn."""
        self._check_open()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Leave the broker. Unsettled messages go to others when their ack wait is over, as a dead consumer's do."""
        if self._closed:
            return
        self._closed = True
        for subscription in self._subscriptions:
            await subscription.stop()
            subscription.cut_off = True
        for listener in list(self._listeners):
            await listener.stop()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the transport is closed")
