"""The `data` of every message on the bus (wire protocol v1, architecture section 3), one struct each.

Unknown fields are ignored, so additions are free. Times are milliseconds since the epoch unless a name says
otherwise (`*_secs`). `docs/protocol/` has the JSON Schemas generated from here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from gbe_jobs_domain.edges import EdgeData, Ref
from gbe_jobs_domain.ids import JobId, OrgId, TaskId, TaskName, TypeName
from gbe_jobs_domain.outcomes import TaskOutcome

Millis = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
"""A time limit: at most a year, since clocks and timers overflow somewhere beyond."""

if TYPE_CHECKING:
    OptionalRaw: TypeAlias = Raw | None
else:
    # msgspec decodes no union of Raw and None. A missing field is None; an explicit `null` is Raw(b"null").
    OptionalRaw = Raw


class OnLost(StrEnum):
    """What becomes of a task whose worker died: run it again, or fail it (work that must not run twice)."""

    RERUN = "rerun"
    FAIL = "fail"


class RetryPolicy(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Back-off between attempts in seconds: `delay * factor ** (failed - 1)`, at most `max_delay`, full jitter."""

    delay: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    max_delay: Annotated[float, Meta(ge=0, le=86_400)] = 60.0


class SecretRef(Struct, frozen=True, forbid_unknown_fields=True):
    """`{secret: name}` as a param's value: resolved by the Operative from its host's settings, never on the bus."""

    secret: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$(?!\n)")]


Param = str | SecretRef


class Parent(Struct, frozen=True):
    """The task whose work a child job is: where the Oracle that ends the child reports."""

    job_id: JobId
    task_id: TaskId
    job_type: TypeName
    task_type: TypeName = "molecule"
    task_name: str = ""
    attempt: int = 1


class JobSubmitted(Struct, frozen=True, omit_defaults=True):
    """`gbe.jobs.{job_type}.submit`. Exactly one of `definition` (a `JobDefinition` document with variables already
    substituted) and `definition_ref` is set. `deadline_at`: when the job is failed with a timeout. `reuse`: the
    outcomes (completed or skipped) of tasks that need not run again (a retry), by task name. `again`: the `TaskQueued`
    that is queued instead of a report to the parent, should the child fail with an error or a timeout (an attempt of
    the parent's task is left). `lineage`: the registered molecules this job was made of, the outermost first."""

    job_id: JobId
    job_type: TypeName
    org_id: OrgId = "org_default"
    definition: OptionalRaw = None
    definition_ref: Ref | None = None
    submitted_at: Millis = 0
    parent: Parent | None = None
    depth: Count = 0
    deadline_at: Millis = 0
    retry_of: JobId | None = None
    reuse: dict[str, Raw] = {}
    again: OptionalRaw = None
    lineage: list[str] = []


class JobCancelRequested(Struct, frozen=True):
    """`gbe.jobs.{job_type}.cancel`."""

    job_id: JobId
    reason: str = ""


class JobCreated(Struct, frozen=True, omit_defaults=True):
    """`gbe.jobs.{job_type}.created`."""

    job_id: JobId
    org_id: OrgId
    job_type: TypeName
    task_count: Count
    created_at: Millis
    definition_ref: Ref | None = None
    parent: Parent | None = None
    retry_of: JobId | None = None


class JobCompleted(Struct, frozen=True, omit_defaults=True):
    """`gbe.jobs.{job_type}.completed`. `result_ref`: where the summary is (`gbe.history…` subject)."""

    job_id: JobId
    org_id: OrgId
    job_type: TypeName
    completed_at: Millis
    result_ref: str | None = None


class JobFailed(Struct, frozen=True, omit_defaults=True):
    """`gbe.jobs.{job_type}.failed`. The first failure's task and its own error; no task where the job itself failed."""

    job_id: JobId
    org_id: OrgId
    job_type: TypeName
    failed_at: Millis
    error: str
    failed_task_id: TaskId | None = None
    failed_task: str | None = None
    result_ref: str | None = None


class JobCancelled(Struct, frozen=True, omit_defaults=True):
    """`gbe.jobs.{job_type}.cancelled`."""

    job_id: JobId
    org_id: OrgId
    job_type: TypeName
    cancelled_at: Millis
    reason: str
    result_ref: str | None = None


class JobRefused(Struct, frozen=True):
    """`gbe.jobs.{job_type}.refused`: a submit that made no job (its id is taken by another definition, …)."""

    job_id: JobId
    job_type: TypeName
    refused_at: Millis
    reason: str


class TaskQueued(Struct, frozen=True, omit_defaults=True):
    """`gbe.tasks.{task_type}.queue`: everything an Operative needs.

    `inputs`: the edge data of the upstream tasks that `input_from` names, unopened, by task name.
    `input_schema`, `output_schema`: JSON Schemas that its resolved params and its data are to match.
    `journal_seq`: the journal record that dispatched the task (reading on from there answers "is it still wanted").
    `retry_count`: how many attempts failed as jobs of their own (a molecule's); what else fails, Operatives repeat by
    themselves. `lineage`: the registered molecules that the task's job was made of, the outermost first.
    """

    task_id: TaskId
    job_id: JobId
    org_id: OrgId
    job_type: TypeName
    task_name: TaskName
    task_type: TypeName
    params: dict[str, Param] = {}
    input_from: dict[str, str] = {}
    inputs: dict[str, EdgeData] = {}
    timeout_secs: Seconds | None = None
    max_retries: Count = 0
    retry: RetryPolicy | None = None
    on_lost: OnLost = OnLost.RERUN
    retry_count: Count = 0
    journal_seq: Count = 0
    definition_ref: Ref | None = None
    depth: Count = 0
    lineage: list[str] = []
    input_schema: OptionalRaw = None
    output_schema: OptionalRaw = None


class TaskDispatch(Struct, frozen=True, omit_defaults=True):
    """`TaskQueued` as the Oracle writes it: what it only passes through stays the bytes of the definition."""

    task_id: str
    job_id: str
    org_id: str
    job_type: str
    task_name: str
    task_type: str
    params: OptionalRaw = None
    input_from: dict[str, str] = {}
    inputs: dict[str, Raw] = {}
    timeout_secs: float | None = None
    max_retries: int = 0
    retry: OptionalRaw = None
    on_lost: str = "rerun"
    retry_count: int = 0
    journal_seq: int = 0
    definition_ref: Ref | None = None
    depth: int = 0
    lineage: list[str] = []
    input_schema: OptionalRaw = None
    output_schema: OptionalRaw = None


class TaskEnded(Struct, frozen=True, omit_defaults=True):
    """`gbe.tasks.{task_type}.terminal`. `attempt`: which attempt this outcome is of, from 1. `starts`: how often the
    task was started in all. `worker`: who reports."""

    task_id: TaskId
    job_id: JobId
    job_type: TypeName
    task_name: TaskName
    task_type: TypeName
    attempt: Count
    worker: str
    started_at: Millis
    ended_at: Millis
    outcome: TaskOutcome
    starts: Count = 0


class TaskEndedOpaque(Struct, frozen=True, omit_defaults=True):
    """`TaskEnded` as the Oracle reads it: the outcome stays bytes, and only what becomes part of a subject is checked
    (of the task id, whether it is one of the job's)."""

    task_id: str
    job_id: JobId
    job_type: TypeName
    task_name: str
    task_type: str
    attempt: Count
    worker: str
    started_at: Millis
    ended_at: Millis
    outcome: Raw
    starts: Count = 0


class ProgressKind(StrEnum):
    """What a progress message says."""

    STARTED = "started"
    OUTPUT = "output"
    STEP = "step"
    RETRY = "retry"
    NOTE = "note"


class TaskProgress(Struct, frozen=True, omit_defaults=True):
    """`gbe.tasks.{task_type}.progress`. `lines` for output (`stream` says of which), `omitted`: lines left out since
    the last message, `message` for the others, `data` for what a task type adds (steps, ticks, …). `at`: when it was
    so; with `started`, when the attempt began."""

    task_id: TaskId
    job_id: JobId
    task_name: TaskName
    attempt: Count
    kind: ProgressKind
    worker: str = ""
    stream: str = "stdout"
    lines: list[str] = []
    omitted: Count = 0
    message: str = ""
    data: OptionalRaw = None
    at: Millis = 0


class ControlKind(StrEnum):
    """What a control message asks for. `cancel` works with every task type; the others where an Operative says so."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    STEP = "step"


class TaskControl(Struct, frozen=True, omit_defaults=True):
    """`gbe.tasks.{task_type}.control`. No task ids: all tasks of the job that are of this type."""

    kind: ControlKind
    job_id: JobId
    task_ids: list[TaskId] = []
    reason: str = ""


class TaskNote(Struct, frozen=True, omit_defaults=True):
    """State-store entry per task that had a failed, lost or handed-back start (architecture section 5)."""

    failed: Count = 0
    lost: Count = 0
    handed_back: Count = 0
    starts: Count = 0
    last_error: str = ""
    running: bool = False


class TaskSummary(Struct, frozen=True, omit_defaults=True):
    """A task in a job's history."""

    name: str
    task_type: str
    state: str
    attempts: Count = 0
    worker: str = ""
    started_at: Millis = 0
    ended_at: Millis = 0
    outcome: OptionalRaw = None


class JobSummary(Struct, frozen=True, omit_defaults=True):
    """`gbe.history.{job_type}.{job_id}`. Where it would be too large, `tasks` is empty and `tasks_ref` refers to a
    JSON array of `TaskSummary`; likewise the definition. `definition_sha256` is of the submitted bytes."""

    job_id: JobId
    org_id: OrgId
    job_type: TypeName
    name: str
    state: str
    created_at: Millis
    ended_at: Millis
    definition_sha256: str
    task_count: Count = 0
    error: str = ""
    reason: str = ""
    failed_task: str | None = None
    parent: Parent | None = None
    retry_of: JobId | None = None
    depth: Count = 0
    children: dict[str, str] = {}
    tasks: list[TaskSummary] = []
    tasks_ref: Ref | None = None
    definition: OptionalRaw = None
    definition_ref: Ref | None = None


def encode(data: object) -> bytes:
    """The JSON bytes of one of these structs, without an envelope."""
    return _encoder.encode(data)


_encoder = msgspec.json.Encoder()
