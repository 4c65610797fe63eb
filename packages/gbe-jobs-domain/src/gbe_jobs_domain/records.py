"""Journal records: a job's truth (architecture section 4).

A record says what was applied (`created`, `outcomes`, `cancel`, …) and what follows from it (`dispatch`, `control`,
`children`, `final`). Replaying the records of a job in order gives its state, with nothing else needed.
"""

from __future__ import annotations

from msgspec import Raw, Struct

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.ids import JobId
from gbe_jobs_domain.payloads import Count, Millis, OptionalRaw, Parent


class JobRecord(Struct, frozen=True, omit_defaults=True):
    """The first record of a job that was submitted. One of `definition` and `definition_ref` is set."""

    job_id: str
    job_type: str
    org_id: str
    created_at: Millis
    definition_sha256: str
    definition: OptionalRaw = None
    definition_ref: Ref | None = None
    parent: Parent | None = None
    depth: Count = 0
    deadline_at: Millis = 0
    retry_of: str | None = None
    reuse: dict[str, Raw] = {}
    again: OptionalRaw = None
    lineage: list[str] = []


class ParentRecord(Struct, frozen=True):
    """The artifact at `subjects.parent_key`: whose child a job is."""

    job_id: JobId


class OutcomeRecord(Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """One applied report: task index, resulting state, attempt, starts, worker, times, and the outcome's bytes."""

    index: int
    state: str
    attempt: int
    starts: int
    worker: str
    started_at: int
    ended_at: int
    outcome: Raw


class FinalRecord(Struct, frozen=True, omit_defaults=True):
    """The decision: the job's terminal state and why."""

    state: str
    at: Millis
    error: str = ""
    reason: str = ""
    failed_task: int | None = None


class JournalRecord(Struct, frozen=True, omit_defaults=True):
    """`gbe.journal.{job_type}.{job_id}`. `dispatch`: indices of tasks queued by this record. `control`: types of
    queued tasks that are to be cancelled. `child`: child jobs that started, as (task index, job type, job id).
    `children`: child jobs that are to be cancelled, as (job type, job id)."""

    writer: str
    created: JobRecord | None = None
    outcomes: list[OutcomeRecord] = []
    child: list[tuple[int, str, str]] = []
    cancel: str | None = None
    dispatch: list[int] = []
    control: list[str] = []
    children: list[tuple[str, str]] = []
    final: FinalRecord | None = None
