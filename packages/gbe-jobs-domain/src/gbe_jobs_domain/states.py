"""The states of jobs and tasks, and the only transitions there are (acceptance scenario D9)."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final


class JobState(StrEnum):
    """A job's state. `finishing`: decided, while its last effects are issued."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHING = "finishing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Absorbing: nothing follows."""
        return self in _JOB_TERMINAL


class TaskState(StrEnum):
    """A task's state. `blocked` waits for tasks, `pending` for an Operative."""

    BLOCKED = "blocked"
    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Absorbing: nothing follows."""
        return self in _TASK_TERMINAL

    @property
    def satisfied(self) -> bool:
        """Whether dependents may start."""
        return self in (TaskState.COMPLETED, TaskState.SKIPPED)


_JOB_TERMINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
_TASK_TERMINAL: Final = frozenset({TaskState.COMPLETED, TaskState.SKIPPED, TaskState.FAILED, TaskState.CANCELLED})
_TASK_ENDS: Final = frozenset({TaskState.SKIPPED, TaskState.FAILED, TaskState.CANCELLED})

JOB_TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.PENDING: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FINISHING}),
    JobState.RUNNING: frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.FINISHING}),
    JobState.FINISHING: _JOB_TERMINAL,
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

TASK_TRANSITIONS: Final[dict[TaskState, frozenset[TaskState]]] = {
    TaskState.BLOCKED: frozenset({TaskState.PENDING}) | _TASK_ENDS,
    TaskState.PENDING: frozenset({TaskState.CLAIMED}) | _TASK_ENDS,
    TaskState.CLAIMED: frozenset({TaskState.RUNNING, TaskState.PENDING}) | _TASK_ENDS,
    TaskState.RUNNING: frozenset({TaskState.COMPLETED, TaskState.PENDING}) | _TASK_ENDS,
    TaskState.COMPLETED: frozenset(),
    TaskState.SKIPPED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}


class IllegalTransition(ValueError):
    """A transition that the tables above do not have."""

    def __init__(self, before: Enum, after: Enum) -> None:
        super().__init__(f"no transition from {before.value} to {after.value}")


def advance_job(before: JobState, after: JobState) -> JobState:
    """`after`, or `IllegalTransition`."""
    if after not in JOB_TRANSITIONS[before]:
        raise IllegalTransition(before, after)
    return after


def advance_task(before: TaskState, after: TaskState) -> TaskState:
    """`after`, or `IllegalTransition`."""
    if after not in TASK_TRANSITIONS[before]:
        raise IllegalTransition(before, after)
    return after


def report_path(before: TaskState, after: TaskState) -> tuple[TaskState, ...]:
    """The states a terminal report leads through: it implies that the task was claimed and running.

    Raises `IllegalTransition` where the task had not been queued, or is terminal already.
    """
    path: list[TaskState] = []
    state = before
    if after in (TaskState.COMPLETED, TaskState.FAILED):
        for implied in (TaskState.CLAIMED, TaskState.RUNNING):
            if implied in TASK_TRANSITIONS[state]:
                state = advance_task(state, implied)
                path.append(state)
    path.append(advance_task(state, after))
    return tuple(path)
