"""What an Operative and its engine process say to each other: MessagePack, each message after its length.

Four bytes, big-endian, then that many bytes. Requests go to the process's standard input, answers come from its
standard output. Both ends are of one release, so nothing here is a protocol for anybody else.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

import msgspec

from gbe_operative_aether.wire import Figure, SessionReport, SessionResult

LENGTH: Final = struct.Struct(">I")

MAX_FRAME: Final = 80 << 20
"""Bytes: the largest documents of a session, and some room."""


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Run a session: of `documents` (name to JSON text), of `bundled` (the JSON object of `wire.Documents`), or a
    `scenario` of `registry` (None: the one that `gbe-aether` ships) with `overrides`, a JSON object of run config keys.
    `directory`: where log and bundle go. `interval`: seconds between reports."""

    directory: str
    interval: float
    paused: bool = False
    documents: dict[str, bytes] = {}
    bundled: bytes | None = None
    scenario: str = ""
    registry: str | None = None
    overrides: bytes = b"{}"


class Steer(msgspec.Struct, frozen=True, tag="steer"):
    """`pause`, `resume`, `step` or `cancel`: between two ticks."""

    kind: str


class Told(msgspec.Struct, frozen=True, tag="told"):
    """How it goes: the JSON of a `wire.Report`."""

    report: bytes


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The session can't be built: its documents are wrong."""

    error: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The session is over. `log`, `bundle`: whether there are files of these names in the directory."""

    result: SessionResult
    session: SessionReport
    ticks_completed: int
    ticks_total: int
    error: str = ""
    metrics: dict[str, int | str] | None = None
    policy_set_hash: str = ""
    last_hash: str = ""
    manifest_check: Figure | None = None
    log_entries: int = 0
    log: bool = False
    bundle: bool = False


Request: TypeAlias = Begin | Steer
Answer: TypeAlias = Told | Refused | Ended

LOG_FILE: Final = "log.jsonl.gz"
BUNDLE_FILE: Final = "bundle.zip"

_encoder = msgspec.msgpack.Encoder()
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


def frame(message: Request | Answer) -> bytes:
    """The message with its length before it."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body
