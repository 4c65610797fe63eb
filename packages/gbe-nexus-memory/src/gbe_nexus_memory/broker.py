"""`Broker`: what a server would be: the streams, buckets and listeners that several transports share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from gbe_nexus import (
    ConsumerSpec,
    NotFound,
    PayloadTooLarge,
    PubAck,
    Refused,
    Start,
    Stream,
    StreamConflict,
    StreamSpec,
)
from gbe_nexus.answers import Answers
from gbe_nexus_memory.artifacts import Held
from gbe_nexus_memory.consumer import Group
from gbe_nexus_memory.listener import Listener
from gbe_nexus_memory.state import Bucket
from gbe_nexus_memory.stream import MemoryStream, check_same, freeze
from gbe_nexus_memory.subjects import is_literal, is_pattern, overlap
from gbe_nexus_memory.timers import Timers

MAX_PAYLOAD = 1024 * 1024
"""What a NATS server takes by default."""

T = TypeVar("T")

_ROUTES_KEPT = 10_000
# What the protocol spends around headers: the version line with its end, the empty line; per header `: ` and its end.
_HEADERS_COST, _HEADER_COST = 12, 4


def message_size(payload: bytes, headers: Mapping[str, str] | None, msg_id: str | None) -> int:
    """Bytes as a NATS server counts them: payload and encoded headers, the message id among them."""
    if not headers and msg_id is None:
        return len(payload)
    size = len(payload) + _HEADERS_COST
    for name, value in (headers or {}).items():
        size += len(name.encode()) + len(value.encode()) + _HEADER_COST
    if msg_id is not None:
        size += len("Nats-Msg-Id") + len(msg_id.encode()) + _HEADER_COST
    return size


def answered(loop: asyncio.AbstractEventLoop, results: list[T]) -> Answers[T]:
    """Answers that come with the loop's next turn: what a call that is done at once gives to be awaited."""
    answers: Answers[T] = Answers()
    loop.call_soon(answers.settle, results)
    return answers


class Broker:
    """Everything here happens at once and on one event loop: atomicity needs no locks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_payload: int = MAX_PAYLOAD) -> None:
        self.loop = loop
        self.max_payload = max_payload
        self._timers = Timers(loop)
        self._streams: dict[str, MemoryStream] = {}
        self._routes: dict[str, MemoryStream | None] = {}
        self._groups: dict[tuple[str, str], Group] = {}
        self._buckets: dict[str, Bucket] = {}
        self._artifacts: dict[str, dict[str, Held]] = {}
        self.listeners: list[Listener] = []

    # --- streams ---

    def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream, or see that it is the same."""
        wanted = freeze(spec)
        existing = self._streams.get(wanted.name)
        if existing is not None:
            check_same(wanted, existing.spec)
            return
        self._refuse_overlap(wanted)
        self._streams[wanted.name] = MemoryStream(wanted, self.loop.time, self._timers)
        self._routes.clear()

    def _refuse_overlap(self, wanted: Stream) -> None:
        for other in self._streams.values():
            for subject in wanted.subjects:
                for taken in other.spec.subjects:
                    if overlap(subject, taken):
                        raise StreamConflict(
                            f"stream {wanted.name}: {subject} overlaps {taken} of stream {other.spec.name}"
                        )

    def stream(self, name: str) -> MemoryStream:
        """The stream of that name, or `NotFound`."""
        try:
            return self._streams[name]
        except KeyError:
            raise NotFound(f"no stream {name}") from None

    # --- publishing ---

    def publish(
        self,
        subject: str,
        payload: bytes,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        expected: int | None = None,
    ) -> PubAck:
        """Store one message and let listeners hear it, or raise why it was not stored."""
        size = message_size(payload, headers, msg_id)
        if size > self.max_payload:
            raise PayloadTooLarge(size, self.max_payload)
        stream = self._route(subject)
        # Listeners hear it whatever the stream says to it.
        for listener in self.listeners:
            if listener.matches(subject):
                listener.hear(subject, payload)
        if stream is None:
            raise Refused(f"no stream takes {subject}")
        return stream.store(subject, payload, dict(headers) if headers else None, size, msg_id, expected)

    def _route(self, subject: str) -> MemoryStream | None:
        try:
            return self._routes[subject]
        except KeyError:
            pass
        if not is_literal(subject):
            raise Refused(f"not a subject to publish on: {subject!r}")
        if len(self._routes) >= _ROUTES_KEPT:
            self._routes.clear()
        route = next((stream for stream in self._streams.values() if stream.matches(subject)), None)
        self._routes[subject] = route
        return route

    # --- consumers ---

    def group(self, spec: ConsumerSpec) -> Group:
        """The existing group of that name as it is, or a new one; an observer where the spec has no name."""
        stream = self.stream(spec.stream)
        if spec.name is not None and (existing := self._groups.get((spec.stream, spec.name))) is not None:
            return existing
        self._check_filter(spec, stream)
        group = Group(stream, spec, self.loop, self._timers, self._forget)
        if spec.name is not None:
            self._groups[spec.stream, spec.name] = group
        return group

    def _check_filter(self, spec: ConsumerSpec, stream: MemoryStream) -> None:
        who = f"consumer {spec.name or '(observer)'} of stream {spec.stream}"
        for subject in spec.subjects:
            if not is_pattern(subject):
                raise Refused(f"{who}: not a subject: {subject!r}")
            if not any(overlap(subject, own) for own in stream.spec.subjects):
                raise Refused(f"{who}: {subject} is none of the stream's subjects")
        if not stream.spec.work_queue:
            return
        if spec.name is None:
            raise Refused(f"{who}: a work queue can't be observed")
        if spec.start is not Start.EARLIEST:
            raise Refused(f"{who}: on a work queue a group begins with the earliest message")
        subjects = spec.subjects or stream.spec.subjects
        for (other_stream, name), other in self._groups.items():
            taken = other.spec.subjects or stream.spec.subjects
            if other_stream == spec.stream and any(overlap(mine, theirs) for mine in subjects for theirs in taken):
                raise Refused(f"{who}: group {name} has these subjects, and a work queue has one group per subject")

    def existing_group(self, stream: str, name: str) -> Group:
        """The group of that name, or `NotFound`."""
        self.stream(stream)
        try:
            return self._groups[stream, name]
        except KeyError:
            raise NotFound(f"stream {stream} has no consumer {name}") from None

    def _forget(self, group: Group) -> None:
        self._groups.pop((group.spec.stream, group.spec.name or ""), None)

    # --- stores ---

    def bucket(self, name: str, ttl: float) -> Bucket:
        """The bucket of that name, made where there is none."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(ttl, self.loop.time, self._timers)
        elif bucket.ttl != ttl:
            raise StreamConflict(f"bucket {name} exists with other settings: ttl is {bucket.ttl}, wanted {ttl}")
        return bucket

    def artifacts(self, name: str) -> dict[str, Held]:
        """The artifacts of a bucket, made where there is none."""
        return self._artifacts.setdefault(name, {})
