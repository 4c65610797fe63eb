"""A job's view, folded from records, hints and the history."""

from typing import Any

import msgspec

from gbe_jobs_domain.canonical import encode_definition
from gbe_jobs_domain.definitions import JobDefinition, JobOutline
from gbe_jobs_domain.ids import task_id
from gbe_jobs_domain.outcomes import Completed, Failed
from gbe_jobs_domain.payloads import JobRefused, ProgressKind, TaskProgress
from gbe_jobs_domain.records import FinalRecord, JobRecord, JournalRecord, OutcomeRecord
from gbe_jobs_domain.states import JobState, TaskState
from gbe_overseer.plain import ending, lines
from gbe_overseer.report import report
from gbe_overseer.result import job_result, to_json
from gbe_overseer.view import JobView, TaskChanged, TaskNoted, TaskWrote


def created(job: JobDefinition) -> JobView:
    view = JobView("job_1")
    body = encode_definition(job)
    view.apply_created(
        JobRecord("job_1", job.job_type, job.org, 1_000, "sha", definition=msgspec.Raw(body)),
        msgspec.json.decode(body, type=JobOutline),
    )
    view.apply_record(JournalRecord("o", dispatch=[0]), 1)
    return view


def ended(index: int, outcome: Completed | Failed, attempt: int = 1) -> OutcomeRecord:
    state = "completed" if isinstance(outcome, Completed) else "failed"
    return OutcomeRecord(index, state, attempt, attempt, "w", 1_100, 1_350, msgspec.Raw(msgspec.json.encode(outcome)))


def progress(index: int, kind: ProgressKind, attempt: int = 1, **fields: Any) -> TaskProgress:
    return TaskProgress(task_id("job_1", index), "job_1", "t", attempt, kind, at=1_100, **fields)


def test_follows_a_task_from_blocked_to_completed(job: JobDefinition) -> None:
    view = created(job)
    a, b = view.tasks
    assert (view.state, a.state, b.state) == (JobState.RUNNING, TaskState.PENDING, TaskState.BLOCKED)
    view.apply_progress(progress(0, ProgressKind.STARTED))
    assert (a.state, a.attempts, a.elapsed_ms(1_500)) == (TaskState.RUNNING, 1, 400)
    changes = view.apply_record(JournalRecord("o", outcomes=[ended(0, Completed(output=["x"]))], dispatch=[1]), 2)
    assert [(c.task.name, c.state) for c in changes if isinstance(c, TaskChanged)] == [
        ("a", TaskState.COMPLETED),
        ("b", TaskState.PENDING),
    ]
    assert (a.output, a.elapsed_ms(9_999)) == (["x"], 250)


def test_a_molecule_runs_since_its_job_began(job: JobDefinition) -> None:
    """Its Operative let go of it: that it was started is reported at its end only, and where it is cancelled never."""
    view = created(job)
    view.apply_record(JournalRecord("o", child=[(0, "mol", "job_c1")]), 2)
    a = view.tasks[0]
    assert (a.state, a.elapsed_ms(9_000)) == (TaskState.RUNNING, 0)
    assert "  a: running, child job job_c1" in list(report(view, 9_000))
    a.child = JobView("job_c1", created_at=2_000)
    assert (a.elapsed_ms(9_000), job_result(view, 9_000).tasks[0].started_at) == (7_000, 2_000)
    assert "  a: running for 7.00 s, child job job_c1" in list(report(view, 9_000))
    a.state, a.ended_at = TaskState.CANCELLED, 5_000
    assert ending(a) == "cancelled after 3.00 s"


def test_a_record_counts_once(job: JobDefinition) -> None:
    view = created(job)
    record = JournalRecord("o", outcomes=[ended(0, Completed())], dispatch=[1])
    assert view.apply_record(record, 2)
    assert view.apply_record(record, 2) == []


def test_a_late_hint_undoes_nothing_but_late_output_is_shown(job: JobDefinition) -> None:
    view = created(job)
    view.apply_record(JournalRecord("o", outcomes=[ended(0, Completed())]), 2)
    assert view.apply_progress(progress(0, ProgressKind.STARTED)) == []
    (wrote,) = view.apply_progress(progress(0, ProgressKind.OUTPUT, lines=["late"]))
    assert isinstance(wrote, TaskWrote)
    assert view.tasks[0].state is TaskState.COMPLETED


def test_a_retry_goes_back_to_pending_and_says_why(job: JobDefinition) -> None:
    view = created(job)
    view.apply_progress(progress(0, ProgressKind.STARTED))
    (noted,) = view.apply_progress(progress(0, ProgressKind.RETRY, message="attempt 1 failed, next in 4 s"))
    assert isinstance(noted, TaskNoted)
    assert view.tasks[0].state is TaskState.PENDING
    view.apply_progress(progress(0, ProgressKind.STARTED, attempt=2))
    assert (view.tasks[0].attempts, view.tasks[0].note) == (2, "")
    assert view.apply_progress(progress(0, ProgressKind.RETRY, message="old news")) == []


def test_progress_of_other_jobs_and_unknown_tasks_is_nothing(job: JobDefinition) -> None:
    view = created(job)
    assert view.apply_progress(TaskProgress(task_id("job_2", 0), "job_2", "a", 1, ProgressKind.STARTED)) == []
    assert view.apply_progress(progress(7, ProgressKind.STARTED)) == []


def test_a_refusal_ends_a_job_that_never_was_but_no_other(job: JobDefinition) -> None:
    refused = JobRefused("job_1", "etl", 5, "its id is taken")
    view = JobView("job_1")
    assert view.apply_refused(refused)
    assert (view.over, view.refused, view.error) == (True, True, "its id is taken")
    assert created(job).apply_refused(refused) == []


def test_the_result_is_the_object_of_section_6(job: JobDefinition) -> None:
    view = created(job)
    failure = Failed("boom", exit_code=7, output=["before"])
    view.apply_record(JournalRecord("o", outcomes=[ended(0, failure, attempt=3)]), 2)
    view.apply_record(JournalRecord("o", final=FinalRecord("failed", 2_000, error="boom", failed_task=0)), 3)
    assert view.state is JobState.FINISHING
    assert view.failed_task == "a"
    found = msgspec.json.decode(to_json(job_result(view, now=2_000)))
    assert found == {
        "job_id": "job_1",
        "name": "nightly",
        "job_type": "etl",
        "state": "finishing",
        "error": "boom",
        "elapsed_s": 1.0,
        "tasks": [
            {
                "name": "a",
                "task_type": "shell",
                "state": "failed",
                "attempts": 3,
                "exit_code": 7,
                "error": "boom",
                "output": ["before"],
                "started_at": 1_100,
                "ended_at": 1_350,
            },
            {
                "name": "b",
                "task_type": "shell",
                "state": "blocked",
                "attempts": 0,
                "output": [],
                "started_at": None,
                "ended_at": None,
            },
        ],
    }


def test_plain_lines_are_one_line_each_whatever_a_task_writes(job: JobDefinition) -> None:
    view = created(job)
    changes = view.apply_progress(progress(0, ProgressKind.OUTPUT, lines=["\x1b[2J", "a\nb"], omitted=3))
    assert list(lines(view, changes, 2_000)) == [
        "a: running",
        "a | (3 lines left out)",
        "a | \\x1b[2J",
        "a | a\\nb",
    ]


def test_an_outcome_that_can_not_be_read_is_an_error_not_a_crash(job: JobDefinition) -> None:
    view = created(job)
    bad = OutcomeRecord(0, "failed", 1, 1, "w", 1, 2, msgspec.Raw(b'{"state":"exploded"}'))
    view.apply_record(JournalRecord("o", outcomes=[bad]), 2)
    assert "can't be read" in view.tasks[0].error
