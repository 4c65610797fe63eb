"""`DomainPayload`: the one envelope of every message body (wire protocol v1, architecture section 3)."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

VERSION = 1
"""Envelope version written by this release."""


class DomainPayload(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """`{v, ts, id, data}`.

    `ts` is milliseconds since the epoch. `id` is stable for the logical event (for example
    `{task_id}:{attempt}:terminal`), so a repeated publish of the same event carries the same id.
    """

    v: int
    ts: int
    id: str
    data: T


class PayloadHead(msgspec.Struct, frozen=True):
    """The envelope without its data: enough to decide what to do with a message of unknown version."""

    v: int
    id: str = ""


class UndecodableMessage(ValueError):
    """A body that is not a `DomainPayload` of the expected shape."""


class UnknownVersion(ValueError):
    """A body of an envelope version that this release does not know."""

    def __init__(self, version: int) -> None:
        super().__init__(f"payload version {version} is newer than {VERSION}, the newest this release reads")
        self.version = version


_encoder = msgspec.json.Encoder()
_head = msgspec.json.Decoder(PayloadHead)


def now_ms() -> int:
    """Wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def encode_payload(event_id: str, data: object, ts: int | None = None) -> bytes:
    """The bytes of an envelope around `data` (a msgspec struct or anything msgspec encodes)."""
    return _encoder.encode(DomainPayload(VERSION, now_ms() if ts is None else ts, event_id, data))


class PayloadDecoder(Generic[T]):
    """Decodes envelopes whose data is of one type.

    Raises `UnknownVersion` for a newer envelope (even where its data would not decode) and
    `UndecodableMessage` for everything else that is wrong.
    """

    __slots__ = ("_decoder",)

    def __init__(self, data_type: type[T]) -> None:
        self._decoder: msgspec.json.Decoder[DomainPayload[T]] = msgspec.json.Decoder(
            DomainPayload[data_type]  # type: ignore[valid-type]
        )

    def decode(self, body: bytes) -> DomainPayload[T]:
        """The envelope, or one of the two errors above."""
        try:
            payload = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            version = _version_of(body)
            if version is not None and version > VERSION:
                raise UnknownVersion(version) from error
            raise UndecodableMessage(str(error)) from error
        if payload.v > VERSION:
            raise UnknownVersion(payload.v)
        return payload


def _version_of(body: bytes) -> int | None:
    try:
        return _head.decode(body).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
