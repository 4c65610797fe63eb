"""`Transport`: how messages travel. The contract; implementations are `gbe-nexus-memory` and `gbe-nexus-nats`.

Delivery is at least once and ordered per subject as published; see `docs/semantics.md`. Handlers are plain
functions called on the event loop with everything that arrived at once, so that a consumer can work in batches
and no message costs a task switch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import msgspec

from gbe_nexus.answers import Answers
from gbe_nexus.artifacts import ArtifactStore
from gbe_nexus.errors import NexusError
from gbe_nexus.journal import Journal
from gbe_nexus.state import StateStore


class StreamSpec(Protocol):
    """A stream as its owner wants it. Structural, so that a domain package can describe its own streams.

    Ages in seconds, sizes in bytes; 0 means without limit. `work_queue`: each message lives until it is acknowledged
    once, with one consumer group per subject; otherwise all are kept within the limits. `discard_old`: a full
    stream drops its oldest messages, only where losing them is harmless; otherwise it refuses new ones
    (`StreamFull`). `max_per_subject` always keeps the newest ones of each subject. `duplicate_window`: seconds in
    which a `msg_id` is remembered.
    """

    @property
    def name(self) -> str: ...
    @property
    def subjects(self) -> tuple[str, ...]: ...
    @property
    def work_queue(self) -> bool: ...
    @property
    def discard_old(self) -> bool: ...
    @property
    def max_age(self) -> float: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def max_messages(self) -> int: ...
    @property
    def max_per_subject(self) -> int: ...
    @property
    def max_message_size(self) -> int: ...
    @property
    def duplicate_window(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Stream:
    """The plain `StreamSpec`."""

    name: str
    subjects: tuple[str, ...]
    work_queue: bool = False
    discard_old: bool = False
    max_age: float = 0
    max_bytes: int = 0
    max_messages: int = 0
    max_per_subject: int = 0
    max_message_size: int = 0
    duplicate_window: float = 120


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream holds now, and its limits (0 = none)."""

    name: str
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    max_messages: int
    max_bytes: int

    @property
    def fullness(self) -> float:
        """The larger of the used shares of its limits, 0.0 to 1.0; 0.0 without limits."""
        by_count = self.messages / self.max_messages if self.max_messages > 0 else 0.0
        by_bytes = self.bytes / self.max_bytes if self.max_bytes > 0 else 0.0
        return max(by_count, by_bytes)


class Start(Enum):
    """Where a new consumer begins."""

    EARLIEST = "all"
    LATEST = "new"


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A consumer group (durable, shared by all that subscribe with its name) or, without a name, an observer.

    `ack_wait`: seconds until an unacknowledged message is delivered again. `max_deliver`: 0 = without limit.
    `max_ack_pending`: how many unacknowledged messages the *group* may hold, delayed naks included.
    `pinned`: one subscriber of the group gets everything, the others stand by and take over within
    `pin_timeout` seconds of its silence. One without credit asks for nothing, and so counts as silent.
    An existing group's settings are adopted, never changed.
    """

    stream: str
    name: str | None = None
    subjects: tuple[str, ...] = ()
    start: Start = Start.EARLIEST
    ack_wait: float = 30.0
    max_deliver: int = 0
    max_ack_pending: int = 100_000
    pinned: bool = False
    pin_timeout: float = 2.0
    inactive_threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """A consumer group now. Sequences are the stream's."""

    name: str
    ack_floor: int
    """Everything at or below this sequence is acknowledged."""
    delivered: int
    pending: int
    """Messages not yet delivered."""
    ack_pending: int
    """Delivered and not yet acknowledged, delayed naks included."""
    waiting: int
    """Subscribers with room that wait for messages (0: nobody listens)."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message to publish. `msg_id` makes it idempotent within the stream's duplicate window."""

    subject: str
    payload: bytes
    msg_id: str | None = None
    headers: Mapping[str, str] | None = None


class PubAck(msgspec.Struct, frozen=True, gc=False):
    """A stored message: its sequence, and whether it was there already under the same `msg_id`."""

    stream: str
    seq: int
    duplicate: bool = False


@runtime_checkable
class Message(Protocol):
    """One delivered message.

    Exactly one of `ack`, `nak`, `dead_letter`, `term` counts: the first; the others do nothing then. They return
    at once; what they say reaches the server with the next write, and where it gets lost the message is delivered
    again.
    """

    @property
    def subject(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def seq(self) -> int:
        """Sequence in its stream."""
        ...

    @property
    def deliveries(self) -> int:
        """1 for the first delivery. May go back after a server was killed: a hint, not a count to rely on."""
        ...

    @property
    def settled(self) -> bool:
        """Whether one of ack, nak, dead_letter, term was said."""
        ...

    def ack(self) -> None:
        """Done: never deliver it again (to this group)."""
        ...

    def nak(self, delay: float = 0.0) -> None:
        """Not done: deliver it again, not before `delay` seconds."""
        ...

    def in_progress(self) -> None:
        """Still at it: the ack wait starts anew."""
        ...

    def term(self) -> None:
        """Never deliver it again, without having done it."""
        ...

    async def dead_letter(self, reason: str) -> None:
        """Store it under `gbe._deadletter.{domain}` with its headers and the reason, then `term` it.

        Returns when the dead letter is stored. Raises `NexusError` where that fails; the message is then
        not settled.
        """
        ...


Handler = Callable[[Sequence[Message]], None]
"""Called with what arrived, never empty. Must not raise and must not block."""


class Subscription(ABC):
    """A running subscription. Survives reconnects by itself."""

    @property
    @abstractmethod
    def ack_wait(self) -> float:
        """Seconds the *existing* group gives; renew at a third of it."""

    @abstractmethod
    def grant(self, credit: int) -> None:
        """Let `credit` more messages come. Only for subscriptions made with a finite credit."""

    @abstractmethod
    async def stop(self) -> None:
        """No more deliveries to the handler. What is delivered and unsettled stays the caller's."""


class Transport(ABC):
    """A connection to the bus.

    Made by `gbe_nexus.connect(url)`. Everything may raise `Unavailable` (no answer: unknown outcome),
    `PermissionDenied`, and `ClosedError` after `close`.
    """

    @property
    @abstractmethod
    def max_payload(self) -> int:
        """Bytes of the largest message the server takes (headers included)."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether the server is reachable now, as far as is known."""

    @abstractmethod
    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each regained connection."""

    @abstractmethod
    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> PubAck:
        """Store one message; returns when it is durable.

        Raises `PayloadTooLarge`, `StreamFull` (perhaps tried again for about a second before), `Refused` (no stream
        takes this subject), `Unavailable` after the transport's own retries (with a `msg_id` the retry is idempotent;
        without one it is not retried).
        """

    @abstractmethod
    def publish_many(self, messages: Sequence[Outgoing]) -> Answers[PubAck | NexusError]:
        """Store many, pipelined: written at the call, before anything is awaited; order kept per subject,
        but for those that were refused for a moment: they are sent again after the others.

        One result per message, in order: its ack, or the error that is left after retrying (`Unavailable`
        only for silence that lasts). Never raises for a single message.
        """

    @abstractmethod
    def hint(self, subject: str, payload: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Publish without waiting for anything: progress, heartbeats. Dropped while disconnected.

        Raises `PayloadTooLarge` for what is larger than `max_payload`.
        """

    @abstractmethod
    async def listen(self, subjects: Sequence[str], handler: Callable[[str, bytes], None]) -> Subscription:
        """Every message published on the subjects from now on while connected, stored or not. No acks, no replay.

        On a cluster, "from now on" holds for the member this is connected to; what is published over another one is
        heard a little later, when the interest has spread there.
        """

    @abstractmethod
    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream; fine where it exists with the same settings.

        Raises `StreamConflict` naming each differing setting. Replicas are the connection's setting.
        """

    @abstractmethod
    async def stream_state(self, stream: str) -> StreamState:
        """Raises `NotFound`."""

    @abstractmethod
    async def subscribe(self, spec: ConsumerSpec, handler: Handler, *, credit: int | None = None) -> Subscription:
        """Join a consumer group (made where it does not exist), or observe where `spec.name` is None.

        `credit`: how many messages may be delivered in all until `grant` gives more; None = as they come,
        with a bounded number in flight. Undelivered credit is never lost by a reconnect.
        """

    @abstractmethod
    async def consumer_state(self, stream: str, name: str) -> ConsumerState:
        """Raises `NotFound`."""

    @abstractmethod
    async def trim(self, stream: str, before: int) -> int:
        """Delete all messages with a sequence below `before`; returns how many. Raises `NotFound`."""

    @abstractmethod
    async def journal(self, stream: str) -> Journal:
        """The journal kept in that stream (which must exist)."""

    @abstractmethod
    async def state_store(self, bucket: str, *, ttl: float = 0) -> StateStore:
        """The key-value bucket, made where it does not exist. `ttl`: seconds an entry lives; 0 = for ever."""

    @abstractmethod
    async def artifact_store(self, bucket: str) -> ArtifactStore:
        """The artifact bucket, made where it does not exist."""

    @abstractmethod
    async def flush(self) -> None:
        """Returns when the server has read everything written so far (acks included)."""

    @abstractmethod
    async def close(self) -> None:
        """Stop subscriptions, write out what is pending, disconnect. Twice is fine."""
