"""The messages that follow from a job's records, as payloads of the wire protocol. Pure: the driver sends them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw, Struct, json

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import EdgeData, Inline, inline
from gbe_jobs_domain.ids import TASK_NAME, task_id
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, TaskOutcome
from gbe_jobs_domain.payloads import (
    JobCancelled,
    JobCompleted,
    JobCreated,
    JobFailed,
    JobSummary,
    Parent,
    TaskDispatch,
    TaskEnded,
    TaskSummary,
)
from gbe_jobs_domain.records import FinalRecord, OutcomeRecord
from gbe_jobs_domain.results import NoSuchOutput, handed_on
from gbe_jobs_domain.states import JobState
from gbe_oracle.core.job import Job


class _OutcomeData(Struct, frozen=True):
    data: Raw = Raw(b"null")


class _Failure(Struct, frozen=True):
    kind: str = "error"  # a newer Operative may know more of them
    exit_code: int = 1
    stderr: str = ""


_outcome_data = json.Decoder(_OutcomeData)
_failure = json.Decoder(_Failure)
_KINDS = frozenset(FailureKind)


def edge_of(outcome: Raw) -> Raw | None:
    """The edge data in an outcome, unopened; None where it has none."""
    data = _outcome_data.decode(outcome).data
    return None if bytes(data) == b"null" else data


def dispatch(job: Job, index: int, inputs: Mapping[str, Raw], seq: int) -> TaskDispatch:
    """The queue message of a task that the record at `seq` dispatched."""
    spec = job.spec
    task = job.outline.tasks[index]
    return TaskDispatch(
        task_id=task_id(spec.job_id, index),
        job_id=spec.job_id,
        org_id=spec.org_id,
        job_type=spec.job_type,
        task_name=task.name,
        task_type=task.task_type,
        params=task.params,
        input_from=task.input_from,
        inputs=dict(inputs),
        timeout_secs=task.timeout_secs,
        max_retries=task.max_retries,
        retry=task.retry,
        on_lost=task.on_lost,
        journal_seq=seq,
        depth=spec.depth,
        lineage=spec.lineage,
        input_schema=task.input_schema,
        output_schema=task.output_schema,
    )


def created_event(job: Job) -> JobCreated:
    """`gbe.jobs.{job_type}.created`."""
    spec = job.spec
    return JobCreated(
        spec.job_id,
        spec.org_id,
        spec.job_type,
        len(job.graph),
        spec.created_at,
        definition_ref=spec.definition_ref,
        parent=spec.parent,
        retry_of=spec.retry_of,
    )


def final_event(job: Job, final: FinalRecord) -> tuple[str, JobCompleted | JobFailed | JobCancelled]:
    """The name and payload of the one event that ends the job."""
    spec = job.spec
    where = subjects.history(spec.job_type, spec.job_id)
    if final.state == JobState.COMPLETED:
        return "completed", JobCompleted(spec.job_id, spec.org_id, spec.job_type, final.at, where)
    if final.state == JobState.CANCELLED:
        return "cancelled", JobCancelled(spec.job_id, spec.org_id, spec.job_type, final.at, final.reason, where)
    index = final.failed_task
    return "failed", JobFailed(
        spec.job_id,
        spec.org_id,
        spec.job_type,
        final.at,
        final.error,
        failed_task_id=None if index is None else task_id(spec.job_id, index),
        failed_task=None if index is None else job.outline.tasks[index].name,
        result_ref=where,
    )


def parent_report(parent: Parent, worker: str, started_at: int, ended_at: int, outcome: TaskOutcome) -> TaskEnded:
    """The terminal of the task whose work a child job was. Decodable, whatever the child's submitter left out."""
    attempt = max(parent.attempt, 0)
    return TaskEnded(
        task_id=parent.task_id,
        job_id=parent.job_id,
        job_type=parent.job_type,
        task_name=parent.task_name if TASK_NAME.match(parent.task_name) else "unnamed",
        task_type=parent.task_type,
        attempt=attempt,
        worker=worker,
        started_at=started_at,
        ended_at=ended_at,
        outcome=outcome,
        starts=attempt,
    )


def parent_outcome(
    job: Job, final: FinalRecord, outcomes: Mapping[int, OutcomeRecord], read: Mapping[str, object] | None = None
) -> TaskOutcome:
    """What a child job's end means for the task it stands for: data is what the definition's `output` names, else the
    map of the inner results by task name.

    An inner failure keeps its kind, exit code and text, so that the outer job fails as the inner one did. `read`: what
    is in artifacts that the output has paths into, by key (an exception where one can't be read). Raises `ToBeRead`
    for one that is not among them.
    """
    if final.state == JobState.COMPLETED:
        names = [task.name for task in job.outline.tasks]
        edges: dict[str, EdgeData] = {}
        for index, ended in outcomes.items():
            if (edge := edge_of(ended.outcome)) is not None:
                edges[names[index]] = json.decode(edge, type=EdgeData)
        try:
            return Completed(data=handed_on(job.outline.output, names, edges, read or {}))
        except NoSuchOutput as error:
            return Failed(str(error), FailureKind.REJECTED)
    if final.state == JobState.CANCELLED:
        return Failed(f"the inner job was cancelled: {final.reason}", FailureKind.CANCELLED)
    if final.failed_task is None:
        return Failed(final.error, FailureKind.TIMEOUT, 124)
    record = outcomes.get(final.failed_task)
    failure = _Failure() if record is None else _failure.decode(record.outcome)
    kind = FailureKind(failure.kind) if failure.kind in _KINDS else FailureKind.ERROR
    where = _where(job, final.failed_task, record)
    return Failed(final.error, kind, failure.exit_code, failure.stderr, data=inline(where))


def asks_again(job: Job, outcome: TaskOutcome) -> bool:
    """Whether the parent's task is to be queued once more instead of being reported failed."""
    again = job.spec.again
    return (
        again is not None
        and bytes(again) != b"null"
        and isinstance(outcome, Failed)
        and outcome.kind in (FailureKind.ERROR, FailureKind.TIMEOUT)
        and job.final is not None
        and job.final.state == JobState.FAILED
    )


def _where(job: Job, index: int, record: OutcomeRecord | None) -> dict[str, str]:
    """Which step failed, in which job: of molecules within molecules the innermost, with the way to it."""
    name = job.outline.tasks[index].name
    if record is not None and index in job.children:
        edge = edge_of(record.outcome)
        if edge is not None:
            opened = json.decode(edge, type=EdgeData)
            inner = opened.decoded() if isinstance(opened, Inline) else None
            if isinstance(inner, dict) and isinstance(inner.get("failed_step"), str):
                return {"failed_step": f"{name}.{inner['failed_step']}", "job_id": str(inner.get("job_id", ""))}
    return {"failed_step": name, "job_id": job.spec.job_id}


def task_summary(job: Job, index: int, outcome: OutcomeRecord | None) -> TaskSummary:
    """One task for the history."""
    task = job.outline.tasks[index]
    state = job.task_state(index).value
    if outcome is None:
        return TaskSummary(task.name, task.task_type, state)
    return TaskSummary(
        task.name,
        task.task_type,
        state,
        outcome.starts or outcome.attempt,
        outcome.worker,
        outcome.started_at,
        outcome.ended_at,
        outcome.outcome,
    )


def summary(job: Job, final: FinalRecord, tasks: list[TaskSummary]) -> JobSummary:
    """`gbe.history.{job_type}.{job_id}`, everything inline."""
    spec = job.spec
    return JobSummary(
        spec.job_id,
        spec.org_id,
        spec.job_type,
        job.outline.name,
        final.state,
        spec.created_at,
        final.at,
        spec.definition_sha256,
        task_count=len(job.graph),
        error=final.error,
        reason=final.reason,
        failed_task=None if final.failed_task is None else job.outline.tasks[final.failed_task].name,
        parent=spec.parent,
        retry_of=spec.retry_of,
        depth=spec.depth,
        children={job.outline.tasks[index].name: job_id for index, (_, job_id) in sorted(job.children.items())},
        tasks=tasks,
        definition=spec.definition,
        definition_ref=spec.definition_ref,
    )
