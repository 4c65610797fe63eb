"""What can happen to a job, and what the core answers."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from msgspec import Raw, Struct

from gbe_jobs_domain.payloads import JobSubmitted
from gbe_jobs_domain.records import JournalRecord


class Reported(Struct, frozen=True, gc=False):
    """A terminal report. `state` is the task state that the outcome leads to; `error` is set where that is a failure.

    `outcome` stays the bytes it came in.
    """

    index: int
    state: str
    attempt: int
    starts: int
    worker: str
    started_at: int
    ended_at: int
    outcome: Raw
    error: str = ""


class CancelRequested(Struct, frozen=True):
    """Somebody wants the job to end."""

    reason: str


class ChildStarted(Struct, frozen=True):
    """A task's work goes on as a job of its own."""

    index: int
    job_type: str
    job_id: str


class DispatchRefused(Struct, frozen=True):
    """The bus lastingly refuses the message that would queue a task."""

    index: int
    error: str


class DeadlinePassed(Struct, frozen=True):
    """The job's time is over."""

    error: str


class Submitted(Struct, frozen=True):
    """The submit, for a job whose journal holds none yet."""

    submit: JobSubmitted
    sha256: str


JobEvent: TypeAlias = Reported | CancelRequested | ChildStarted | DispatchRefused | DeadlinePassed


class Verdict(Enum):
    """What became of an event."""

    APPLIED = "applied"
    """It is in the record."""
    KNOWN = "known"
    """An earlier record of the journal holds it."""
    MOOT = "moot"
    """The job is decided without it; the final record answers it."""
    EARLY = "early"
    """A report for a task that, as far as this state knows, was not queued: read the journal again first."""


class Decision(Struct, frozen=True):
    """The answer to a batch of events: a record to append (None: nothing changed) and a verdict each.

    The state the decision was made on already includes the record; if appending it fails, the state is void.
    """

    record: JournalRecord | None
    verdicts: list[Verdict]
