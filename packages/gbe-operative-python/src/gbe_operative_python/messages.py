"""What the Operative and a function's process say to each other: length-prefixed msgpack over a socket pair."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec

LENGTH = 4
"""Bytes of the length in front of each message, big-endian."""

LARGE_RESULT = 1 << 20
"""Bytes of an encoded result from which on it goes through a file."""


class Run(msgspec.Struct, array_like=True, tag="run"):
    """Run a function once. `secrets`: what no text may show."""

    task_type: str
    params: dict[str, str]
    attempt: int
    task_id: str
    task_name: str
    job_id: str
    work_dir: str
    secrets: list[str] = []


class Ready(msgspec.Struct, array_like=True, tag="ready"):
    """The process can run functions."""


class Broken(msgspec.Struct, array_like=True, tag="broken"):
    """It can't, ever; it ends."""

    error: str


class Note(msgspec.Struct, array_like=True, tag="note"):
    """Progress. `data`: JSON, or nothing."""

    message: str
    data: bytes = b""


class End(IntEnum):
    """How a function ended."""

    DONE = 0
    FAILED = 1
    REJECTED = 2
    SKIPPED = 3


class Done(msgspec.Struct, array_like=True, tag="done"):
    """The function has ended. `data`: its result as JSON; or `file` has it. `said`: an error's or a reason's text.

    `dirty`: the working directory was made. `last`: the process ends now, and another is to take its place.
    """

    end: End
    data: bytes = b""
    items: int | None = None
    file: str = ""
    media_type: str = "application/json"
    said: str = ""
    exit_code: int = 1
    retryable: bool = True
    retry_after: float = 0.0
    dirty: bool = False
    last: bool = False


Said: TypeAlias = Ready | Broken | Note | Done

_encode = msgspec.msgpack.Encoder().encode
decode_run = msgspec.msgpack.Decoder(Run).decode
decode_said = msgspec.msgpack.Decoder(Said).decode


def frame(message: Run | Said) -> bytes:
    """The message with its length."""
    body = _encode(message)
    return len(body).to_bytes(LENGTH, "big") + body
