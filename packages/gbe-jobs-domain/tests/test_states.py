"""Acceptance scenario D9: every pair of states."""

from itertools import pairwise, product

import pytest

from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped, TaskOutcome, state_of
from gbe_jobs_domain.states import (
    IllegalTransition,
    JobState,
    TaskState,
    advance_job,
    advance_task,
    report_path,
)

JOB_MOVES = """
pending   → running cancelled finishing
running   → completed failed cancelled finishing
finishing → completed failed cancelled
completed →
failed    →
cancelled →
"""

TASK_MOVES = """
blocked   → pending skipped failed cancelled
pending   → claimed skipped failed cancelled
claimed   → running pending skipped failed cancelled
running   → completed pending skipped failed cancelled
completed →
skipped   →
failed    →
cancelled →
"""


def moves(table: str) -> dict[str, set[str]]:
    rows = (line.split("→") for line in table.strip().splitlines())
    return {before.strip(): set(after.split()) for before, after in rows}


@pytest.mark.parametrize(("before", "after"), list(product(JobState, JobState)))
def test_d9_job_transitions(before: JobState, after: JobState) -> None:
    if after in moves(JOB_MOVES)[before]:
        assert advance_job(before, after) is after
    else:
        with pytest.raises(IllegalTransition, match=f"from {before.value} to {after.value}"):
            advance_job(before, after)


@pytest.mark.parametrize(("before", "after"), list(product(TaskState, TaskState)))
def test_d9_task_transitions(before: TaskState, after: TaskState) -> None:
    if after in moves(TASK_MOVES)[before]:
        assert advance_task(before, after) is after
    else:
        with pytest.raises(IllegalTransition, match=f"from {before.value} to {after.value}"):
            advance_task(before, after)


def test_d9_terminal_is_absorbing() -> None:
    assert {s.value for s in JobState if s.terminal} == {s for s, after in moves(JOB_MOVES).items() if not after}
    assert {s.value for s in TaskState if s.terminal} == {s for s, after in moves(TASK_MOVES).items() if not after}


@pytest.mark.parametrize("before", [TaskState.PENDING, TaskState.CLAIMED, TaskState.RUNNING])
@pytest.mark.parametrize("after", [s for s in TaskState if s.terminal])
def test_d9_a_terminal_report_implies_claimed_and_running(before: TaskState, after: TaskState) -> None:
    path = (before, *report_path(before, after))
    assert path[-1] is after
    for step in pairwise(path):
        assert advance_task(*step) is step[1]
    if after in (TaskState.COMPLETED, TaskState.FAILED):
        assert TaskState.RUNNING in path


@pytest.mark.parametrize("before", [TaskState.BLOCKED, *(s for s in TaskState if s.terminal)])
def test_d9_no_completion_of_what_was_not_queued(before: TaskState) -> None:
    with pytest.raises(IllegalTransition):
        report_path(before, TaskState.COMPLETED)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Completed(), TaskState.COMPLETED),
        (Skipped("not needed"), TaskState.SKIPPED),
        (Failed("boom"), TaskState.FAILED),
        (Failed("too slow", FailureKind.TIMEOUT), TaskState.FAILED),
        (Failed("stopped", FailureKind.CANCELLED), TaskState.CANCELLED),
    ],
)
def test_the_state_an_outcome_leads_to(outcome: TaskOutcome, state: TaskState) -> None:
    assert state_of(outcome) is state


def test_dependents_start_after_success_and_after_a_skip() -> None:
    assert {s for s in TaskState if s.satisfied} == {TaskState.COMPLETED, TaskState.SKIPPED}
