"""What the two kinds of buckets share: the stream behind each, and reads from its leader."""

from __future__ import annotations

import binascii
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gbe_nexus.errors import NexusError, NotFound, StreamConflict
from gbe_nexus.transport import Outgoing, PubAck
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.wire import api_name, parse_headers

NANOSECONDS = 1_000_000_000


class JetStream(Protocol):
    """What the stores need of the transport."""

    @property
    def client(self) -> FastClient: ...
    @property
    def replicas(self) -> int: ...
    @property
    def max_payload(self) -> int: ...

    async def api(self, subject: str, request: object = None) -> dict[str, Any]: ...

    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> PubAck: ...

    def publish_many(self, messages: Sequence[Outgoing]) -> Awaitable[list[PubAck | NexusError]]: ...


class Stored(msgspec.Struct, frozen=True):
    """A message as the stream's leader has it."""

    seq: int
    headers: dict[str, str]
    data: bytes
    time: str = ""
    """When it was stored (RFC 3339)."""


async def ensure_bucket(jetstream: JetStream, stream: str, config: Mapping[str, object], needed: Sequence[str]) -> None:
    """Create the stream of a bucket; one that exists will do where its `needed` settings are the same.

    Raises `StreamConflict` naming each that differs.
    """
    api_name(stream)
    try:
        await jetstream.api(
            f"$JS.API.STREAM.CREATE.{stream}",
            {**config, "name": stream, "storage": "file", "discard": "new", "num_replicas": jetstream.replicas},
        )
    except StreamConflict:
        info = await jetstream.api(f"$JS.API.STREAM.INFO.{stream}")
    else:
        return
    existing = info["config"]
    differing = [
        f"{name} is {existing.get(name)!r}, not {config[name]!r}"
        for name in needed
        # The server leaves out what is false or 0.
        if (existing.get(name) or None) != (config[name] or None)
    ]
    if differing:
        raise StreamConflict(f"bucket {stream} exists with other settings: {'; '.join(differing)}")


async def last_message(jetstream: JetStream, stream: str, subject: str) -> Stored | None:
    """The newest message of a subject, from the leader (direct gets may come from a replica that lags)."""
    try:
        answer = await jetstream.api(f"$JS.API.STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except NotFound:
        return None
    message = answer["message"]
    return Stored(
        seq=int(message["seq"]),
        headers=parse_headers(binascii.a2b_base64(message["hdrs"])) if message.get("hdrs") else {},
        data=binascii.a2b_base64(message.get("data") or ""),
        time=message.get("time", ""),
    )


async def subjects(jetstream: JetStream, stream: str, pattern: str) -> AsyncIterator[tuple[str, int]]:
    """The subjects that have messages, with how many, as the leader has them. The server sends them in pages."""
    offset = 0
    while True:
        answer = await jetstream.api(f"$JS.API.STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": offset})
        page: dict[str, int] = answer["state"].get("subjects") or {}
        for item in page.items():
            yield item
        offset += len(page)
        if not page or offset >= int(answer.get("total", 0)):
            return


async def purge(jetstream: JetStream, stream: str, pattern: str, before: int | None = None) -> int:
    """Remove the messages of the subjects (only those with a sequence below `before`); returns how many."""
    request: dict[str, object] = {"filter": pattern}
    if before is not None:
        request["seq"] = before
    answer = await jetstream.api(f"$JS.API.STREAM.PURGE.{stream}", request)
    return int(answer.get("purged", 0))
