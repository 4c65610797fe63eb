"""The streams of an ecumene (architecture section 3). Ages in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass

QUEUE = "GBE_QUEUE"
INBOX = "GBE_INBOX"
JOURNAL = "GBE_JOURNAL"
HISTORY = "GBE_HISTORY"
EVENTS = "GBE_EVENTS"
PROGRESS = "GBE_PROGRESS"
DEADLETTER = "GBE_DEADLETTER"

DAY = 86_400.0
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class StreamTopology:
    """One stream. 0 = no limit. Satisfies `gbe_nexus.StreamSpec` by its shape."""

    name: str
    subjects: tuple[str, ...]
    work_queue: bool = False
    discard_old: bool = False
    max_age: float = 0
    max_bytes: int = 0
    max_messages: int = 0
    max_per_subject: int = 0
    max_message_size: int = 0
    duplicate_window: float = 30


@dataclass(frozen=True, slots=True)
class Retention:
    """What a site may choose. `work_bytes` limits each of the streams that hold work."""

    work_bytes: int = 8 * GIB
    history_age: float = 30 * DAY
    history_bytes: int = 2 * GIB
    events_age: float = 1 * DAY
    events_bytes: int = 1 * GIB
    progress_age: float = 3600
    progress_bytes: int = 512 * (1 << 20)
    deadletter_age: float = 30 * DAY
    deadletter_bytes: int = 1 * GIB


def streams(retention: Retention | None = None) -> tuple[StreamTopology, ...]:
    """All streams. Only what may be lost is ever dropped by a limit (`discard_old`)."""
    keep = retention or Retention()
    return (
        StreamTopology(QUEUE, ("gbe.tasks.*.queue",), work_queue=True, max_bytes=keep.work_bytes),
        StreamTopology(
            INBOX, ("gbe.tasks.*.terminal", "gbe.jobs.*.submit", "gbe.jobs.*.cancel"), max_bytes=keep.work_bytes
        ),
        StreamTopology(JOURNAL, ("gbe.journal.*.*",), max_bytes=keep.work_bytes),
        StreamTopology(
            HISTORY, ("gbe.history.*.*",), max_per_subject=1, max_age=keep.history_age, max_bytes=keep.history_bytes
        ),
        StreamTopology(
            EVENTS,
            (
                "gbe.jobs.*.created",
                "gbe.jobs.*.completed",
                "gbe.jobs.*.failed",
                "gbe.jobs.*.cancelled",
                "gbe.jobs.*.refused",
                "gbe.tasks.*.control",
                "gbe.lifecycle.>",
            ),
            discard_old=True,
            max_age=keep.events_age,
            max_bytes=keep.events_bytes,
        ),
        StreamTopology(
            PROGRESS,
            ("gbe.tasks.*.progress",),
            discard_old=True,
            max_age=keep.progress_age,
            max_bytes=keep.progress_bytes,
        ),
        StreamTopology(
            DEADLETTER,
            ("gbe._deadletter.>",),
            discard_old=True,
            max_age=keep.deadletter_age,
            max_bytes=keep.deadletter_bytes,
        ),
    )


WORK_STREAMS = (QUEUE, INBOX, JOURNAL, HISTORY)
"""Those that must never drop anything; submits are refused when one is 80 % full."""
