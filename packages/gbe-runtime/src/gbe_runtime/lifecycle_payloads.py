"""What roles say about themselves on `gbe.lifecycle.{role}.{started,stopped,heartbeat,degraded}`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from gbe_nexus import PayloadDecoder

LifecycleKind = Literal["started", "stopped", "heartbeat", "degraded"]

ALL_LIFECYCLE: Final = "gbe.lifecycle.>"
"""Every message of every role."""

Millis = Annotated[int, msgspec.Meta(ge=0)]


class LifecyclePayload(msgspec.Struct, frozen=True, omit_defaults=True):
    """One role process: who it is, what it can do, how busy it is.

    `started_at` in milliseconds since the epoch. `heartbeat_interval`: seconds between its heartbeats; who has heard
    nothing for three of them may call it gone. `reason`: why it stopped or is degraded, None for a plain stop.
    """

    identity: str
    role: str
    host: str
    pid: int
    version: str
    started_at: Millis
    heartbeat_interval: float
    capabilities: dict[str, Any] = {}
    load: dict[str, float] = {}
    reason: str | None = None


LIFECYCLE_DECODER: Final = PayloadDecoder(LifecyclePayload)


def lifecycle_subject(role: str, kind: LifecycleKind | Literal["*"]) -> str:
    """The subject a role of that name says `kind` on."""
    return f"gbe.lifecycle.{role}.{kind}"
