"""`TaskOutcome`: what an Operative reports about a task's end."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from gbe_jobs_domain.edges import EdgeData
from gbe_jobs_domain.states import TaskState

TIMEOUT_EXIT_CODE = 124
"""As `timeout(1)` has it."""


class FailureKind(StrEnum):
    """Why a task failed. `lost`: its workers died; `rejected`: it was never started, since it can't work."""

    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"
    REJECTED = "rejected"


class Completed(msgspec.Struct, frozen=True, tag_field="state", tag="completed", omit_defaults=True):
    """Success. `output`: lines; `stderr`: its tail; `data`: what dependents get."""

    output: list[str] = []
    stderr: str = ""
    data: EdgeData | None = None
    result_ref: str | None = None


class Skipped(msgspec.Struct, frozen=True, tag_field="state", tag="skipped", omit_defaults=True):
    """Not run, on purpose; dependents start all the same."""

    reason: str


class Failed(msgspec.Struct, frozen=True, tag_field="state", tag="failed", omit_defaults=True):
    """Failure, after all retries. `exit_code` 124 for a timeout, 128+n for signal n."""

    error: str
    kind: FailureKind = FailureKind.ERROR
    exit_code: int = 1
    stderr: str = ""
    output: list[str] = []
    data: EdgeData | None = None


TaskOutcome: TypeAlias = Completed | Skipped | Failed


def state_of(outcome: TaskOutcome) -> TaskState:
    """The task state an outcome leads to."""
    if isinstance(outcome, Completed):
        return TaskState.COMPLETED
    if isinstance(outcome, Skipped):
        return TaskState.SKIPPED
    return TaskState.CANCELLED if outcome.kind is FailureKind.CANCELLED else TaskState.FAILED
