"""The checker can fail: evidence that is right passes, and each way of making it wrong is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import Raw, structs

from gbe_jobs_domain.payloads import JobSummary, OnLost, TaskSummary
from gbe_jobs_domain.records import FinalRecord, JobRecord, JournalRecord, OutcomeRecord
from tests.chaos.checker import check
from tests.chaos.evidence import Event, Execution, Incident, Run, Submitted, Wire, parse_log
from tests.chaos.plan import JobPlan, TaskPlan, make_plan
from tests.chaos.story import report, summary

JOB = "job_1"
DONE = Raw(b'{"state":"completed"}')
WORKER = 77


def outcome(index: int, at: int, state: str = "completed", attempt: int = 1, body: Raw = DONE) -> OutcomeRecord:
    return OutcomeRecord(index, state, attempt, attempt, "w", at, at, body)


def good() -> Run:
    """A chain of two: a at 10 s, b at 20 s, over at 21 s."""
    run = Run(lease=4.0)
    plan = JobPlan(1, "chain", (TaskPlan("a"), TaskPlan("b", ("a",))), 0.0)
    run.jobs[JOB] = Submitted(plan, 9.0)
    created = JobRecord(JOB, "chaos-a", "org_default", 9000, "sha", definition=Raw(b"{}"))
    run.records[JOB] = {
        1: JournalRecord("o", created=created, dispatch=[0]),
        2: JournalRecord("o", outcomes=[outcome(0, 11_000)], dispatch=[1]),
        3: JournalRecord("o", outcomes=[outcome(1, 21_000)], final=FinalRecord("completed", 21_000)),
    }
    run.events[JOB] = [Event("created", f"{JOB}:created", 1, {}), Event("completed", f"{JOB}:completed", 2, {})]
    run.executions, run.strange_lines = parse_log(
        [
            f"start {JOB} a 1 500 {WORKER} 10.00 -",
            f"end {JOB} a 1 500 {WORKER} 11.00 -",
            f"start {JOB} b 1 501 {WORKER} 20.00 a=from-a",
            f"end {JOB} b 1 501 {WORKER} 21.00 -",
        ]
    )
    tasks = [TaskSummary(name, "shell", "completed", 1, "w", 1, 1, DONE) for name in ("a", "b")]
    run.histories[JOB] = JobSummary(
        JOB, "org_default", "chaos-a", "chain", "completed", 9000, 21_000, "sha", task_count=2, tasks=tasks
    )
    return run


def again(run: Run, task: str, at: float, *, worker: int = 78) -> None:
    """The task's first attempt runs once more, after everything else in the log."""
    inputs = next(one.inputs for one in run.executions if one.task == task)
    run.executions.append(Execution(JOB, task, 1, 502, worker, 90, at, inputs, "end", 91, at + 0.1))


def record(run: Run, seq: int, **changes: object) -> None:
    run.records[JOB][seq] = structs.replace(run.records[JOB][seq], **changes)


def once_only(run: Run) -> None:
    plan = run.jobs[JOB].plan
    tasks = tuple(replace(task, on_lost=OnLost.FAIL) for task in plan.tasks)
    run.jobs[JOB].plan = replace(plan, tasks=tasks)


def killed(run: Run, role: str, begin: float, end: float, pid: int = 0, kind: str = "kill") -> None:
    run.incidents.append(Incident(f"{role}-0", kind, begin, end, pid))


def queued(run: Run, *at: float) -> None:
    run.wire[JOB] += [Wire(moment, "queue", "task_1_0") for moment in at]


def test_good_evidence_passes() -> None:
    judgement = check(good())
    assert judgement.problems == []
    assert judgement.figures["executions"] == 2


def _no_history(run: Run) -> None:
    del run.histories[JOB]


def _no_outcome(run: Run) -> None:
    record(run, 2, outcomes=[])


def _two_outcomes(run: Run) -> None:
    record(run, 3, outcomes=[outcome(0, 11_000), outcome(1, 21_000)])


def _two_finals(run: Run) -> None:
    record(run, 2, final=FinalRecord("completed", 11_000))


def _record_after_the_end(run: Run) -> None:
    run.records[JOB][4] = JournalRecord("o", cancel="late")


def _two_ends(run: Run) -> None:
    run.events[JOB].append(Event("failed", f"{JOB}:failed", 3, {}))


def _same_end_other_id(run: Run) -> None:
    run.events[JOB].append(Event("completed", "another", 3, {}))


def _no_end(run: Run) -> None:
    run.events[JOB].pop()


def _queued_twice(run: Run) -> None:
    record(run, 2, dispatch=[0, 1])


def _queued_too_early(run: Run) -> None:
    record(run, 1, dispatch=[0, 1])
    record(run, 2, dispatch=[])


def _other_state(run: Run) -> None:
    run.jobs[JOB].plan = replace(run.jobs[JOB].plan, expected=frozenset({"cancelled"}))


def _never_ran(run: Run) -> None:
    run.executions.pop()


def _never_ended(run: Run) -> None:
    run.executions[-1].result = None


def _too_early(run: Run) -> None:
    run.executions[0].end = 99


def _wrong_input(run: Run) -> None:
    run.executions[1].inputs = "a="


def _attempt_too_many(run: Run) -> None:
    run.executions.append(Execution(JOB, "b", 2, 502, WORKER, 90, 22.0, "a=from-a", "end", 91, 22.1))


def _unexplained(run: Run) -> None:
    again(run, "a", 20.0)


def _killed_another(run: Run) -> None:
    again(run, "a", 20.0)
    killed(run, "operative", 15.0, 16.0, pid=99)


def _killed_before(run: Run) -> None:
    again(run, "a", 20.0)
    killed(run, "operative", 5.0, 6.0, pid=WORKER)


def _oracle_without_second_message(run: Run) -> None:
    again(run, "a", 20.0)
    queued(run, 9.5)
    killed(run, "oracle", 9.0, 10.0)


def _twice_in_spite_of_on_lost(run: Run) -> None:
    once_only(run)
    again(run, "a", 20.0)
    killed(run, "operative", 15.0, 16.0, pid=WORKER)


def _survivor(run: Run) -> None:
    killed(run, "operative", 10.1, 12.0, pid=WORKER)
    run.executions[0].ended_at = 13.0


def _stranger(run: Run) -> None:
    run.executions.append(Execution("job_2", "a", 1, 1, 1, 90, 1.0))


def _after_the_end(run: Run) -> None:
    run.executions[1].ended_at = 60.0


def _backlog(run: Run) -> None:
    run.backlog["GBE_QUEUE"] = 1


def _dead_letter(run: Run) -> None:
    run.dead_letters.append(("task_1_0:queue", "lost"))


def _no_dead_letter(run: Run) -> None:
    plan = run.jobs[JOB].plan
    run.jobs[JOB].plan = replace(plan, tasks=(plan.tasks[0], replace(plan.tasks[1], poison=True)))


def _leftover(run: Run) -> None:
    run.leftovers.append("process 1")


def _death(run: Run) -> None:
    run.deaths.append("oracle-0 ended")


def _torn_line(run: Run) -> None:
    run.strange_lines.append("sta")


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (_no_history, "stuck"),
        (_no_outcome, "lost"),
        (_two_outcomes, "doubled"),
        (_two_finals, "doubled"),
        (_record_after_the_end, "wrong"),
        (_two_ends, "doubled"),
        (_same_end_other_id, "doubled"),
        (_no_end, "lost"),
        (_queued_twice, "doubled"),
        (_queued_too_early, "order"),
        (_other_state, "wrong"),
        (_never_ran, "wrong"),
        (_never_ended, "wrong"),
        (_too_early, "order"),
        (_wrong_input, "wrong"),
        (_attempt_too_many, "wrong"),
        (_unexplained, "unexplained"),
        (_killed_another, "unexplained"),
        (_killed_before, "unexplained"),
        (_oracle_without_second_message, "unexplained"),
        (_twice_in_spite_of_on_lost, "doubled"),
        (_survivor, "leftover"),
        (_stranger, "wrong"),
        (_after_the_end, "leftover"),
        (_backlog, "stuck"),
        (_dead_letter, "wrong"),
        (_no_dead_letter, "lost"),
        (_leftover, "leftover"),
        (_death, "death"),
        (_torn_line, "wrong"),
    ],
)
def test_whatever_is_wrong_is_found(spoil: Callable[[Run], None], kind: str) -> None:
    run = good()
    spoil(run)
    judgement = check(run)
    assert kind in {problem.kind for problem in judgement.problems}
    plan = make_plan(1, 5.0, 3)
    assert kind in report(plan, run, judgement)
    assert "seconds" in summary(plan, run, judgement, 1.0)


@pytest.mark.parametrize(
    ("role", "begin", "end", "pid"),
    [("operative", 10.5, 12.0, WORKER), ("server", 9.0, 9.5, 0), ("node", 15.0, 16.0, 0), ("machine", 12.0, 14.0, 0)],
)
def test_an_extra_execution_can_be_explained(role: str, begin: float, end: float, pid: int) -> None:
    run = good()
    again(run, "a", 20.0)
    killed(run, role, begin, end, pid, "stop")
    judgement = check(run)
    assert judgement.problems == []
    assert judgement.figures["extra executions"] == 1


def test_a_worker_that_stood_still_with_the_task_explains_its_own_later_start() -> None:
    run = good()
    again(run, "a", 20.0)
    run.executions[-1] = replace(run.executions[-1], worker=77)
    assert [problem.kind for problem in check(run).problems] == ["unexplained"]
    killed(run, "operative", 5.0, 19.9, 77, "stop")
    assert check(run).problems == []


def test_a_worker_that_was_killed_before_its_command_could_name_it_explains_the_second_start() -> None:
    run = good()
    again(run, "a", 20.0)
    first = next(index for index, one in enumerate(run.executions) if one.task == "a")
    run.executions[first] = replace(run.executions[first], worker=1)
    assert [problem.kind for problem in check(run).problems] == ["unexplained"]
    begun = run.executions[first].started_at
    killed(run, "operative", begun - 5.0, begun - 4.0, 98)
    assert [problem.kind for problem in check(run).problems] == ["unexplained"], "another one, at another time"
    killed(run, "operative", begun - 0.05, begun + 1.0, 97)
    assert check(run).problems == []


def test_an_oracle_explains_it_by_a_second_queue_message() -> None:
    run = good()
    again(run, "a", 20.0)
    queued(run, 9.5, 13.0)
    killed(run, "oracle", 9.6, 10.0)
    assert check(run).problems == []


def test_lost_needs_an_explanation() -> None:
    run = good()
    once_only(run)
    run.jobs[JOB].plan = replace(run.jobs[JOB].plan, expected=frozenset({"completed", "failed"}))
    lost = Raw(b'{"state":"failed","kind":"lost","error":"lost: its worker died"}')
    final = FinalRecord("failed", 21_000, error="lost: its worker died", failed_task=1)
    record(run, 3, outcomes=[outcome(1, 21_000, "failed", body=lost)], final=final)
    run.events[JOB][1] = Event("failed", f"{JOB}:failed", 2, {})
    history = run.histories[JOB]
    tasks = [history.tasks[0], structs.replace(history.tasks[1], state="failed", outcome=lost)]
    run.histories[JOB] = structs.replace(
        history, state="failed", error="lost: its worker died", failed_task="b", tasks=tasks
    )
    assert [problem.kind for problem in check(run).problems] == ["unexplained"]
    killed(run, "operative", 12.0, 13.0, pid=WORKER, kind="stop")
    assert check(run).problems == []


def test_a_plan_is_its_seed() -> None:
    assert make_plan(7, 30.0, 50) == make_plan(7, 30.0, 50)
    assert make_plan(7, 30.0, 50) != make_plan(8, 30.0, 50)
    shapes = {job.shape for job in make_plan(7, 30.0, 200).jobs}
    assert {"chain", "diamond", "fan", "flaky", "must-not-run-twice", "fail-fast", "cancel"} <= shapes
    kinds = {(fault.target.partition("-")[0], fault.kind) for fault in make_plan(7, 60.0, 1).faults}
    assert {("oracle", "kill"), ("operative", "kill"), ("operative", "stop"), ("server", "kill")} <= kinds
