"""The `--json` object of architecture section 6. Pure."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from gbe_jobs_domain.edges import EdgeData, Ref
from gbe_jobs_domain.outcomes import Completed, Failed
from gbe_jobs_domain.states import JobState
from gbe_nexus import now_ms
from gbe_overseer.view import JobView, TaskView


class DataRef(msgspec.Struct, frozen=True):
    """A value that is in the artifact store: where, and what it is."""

    ref: str
    size: int
    sha256: str
    media_type: str


class TaskResult(msgspec.Struct, frozen=True):
    """One task. Times in milliseconds since the epoch; null where it never started or has not ended. Of a molecule also
    the job that does its work, and the tasks of that."""

    name: str
    task_type: str
    state: str
    attempts: int
    output: list[str]
    started_at: int | None
    ended_at: int | None
    exit_code: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    data: msgspec.Raw | DataRef | UnsetType = UNSET
    child_job_id: str | UnsetType = UNSET
    tasks: list[TaskResult] | UnsetType = UNSET


class JobResult(msgspec.Struct, frozen=True):
    """One job."""

    job_id: str
    name: str
    job_type: str
    state: str
    elapsed_s: float
    tasks: list[TaskResult]
    error: str | UnsetType = UNSET


def job_result(view: JobView, now: int | None = None) -> JobResult:
    """The object for a job as it is now."""
    error = view.error
    if not error and view.state is JobState.CANCELLED:
        error = f"cancelled: {view.reason}" if view.reason else "cancelled"
    return JobResult(
        job_id=view.job_id,
        name=view.name,
        job_type=view.job_type,
        state=view.state.value,
        error=error or UNSET,
        elapsed_s=view.elapsed_ms(now_ms() if now is None else now) / 1000,
        tasks=[_task_result(task) for task in view.tasks],
    )


def _task_result(task: TaskView) -> TaskResult:
    outcome = task.outcome
    ended = outcome if isinstance(outcome, Completed | Failed) else None
    return TaskResult(
        name=task.name,
        task_type=task.task_type,
        state=task.state.value,
        attempts=task.attempts,
        exit_code=outcome.exit_code if isinstance(outcome, Failed) else UNSET,
        error=outcome.error if isinstance(outcome, Failed) else UNSET,
        output=ended.output if ended else [],
        data=_data(ended.data) if ended and ended.data is not None else UNSET,
        started_at=task.began_at or None,
        ended_at=task.ended_at or None,
        child_job_id=task.child_job or UNSET,
        tasks=[_task_result(inner) for inner in task.child.tasks] if task.child is not None else UNSET,
    )


def _data(data: EdgeData) -> msgspec.Raw | DataRef:
    return DataRef(data.uri, data.size, data.sha256, data.media_type) if isinstance(data, Ref) else data.value


def to_json(value: object, *, pretty: bool = False) -> str:
    """The JSON text of one of these objects; indented for people."""
    encoded = msgspec.json.encode(value)
    return (msgspec.json.format(encoded, indent=2) if pretty else encoded).decode()
