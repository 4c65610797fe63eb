"""O1, O2, O5, O8: the state machine of one job."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gbe_jobs_domain.records import FinalRecord, JournalRecord, OutcomeRecord
from gbe_jobs_domain.states import JobState, TaskState
from gbe_oracle.core.events import (
    CancelRequested,
    ChildStarted,
    DeadlinePassed,
    DispatchRefused,
    JobEvent,
    Reported,
    Verdict,
)
from gbe_oracle.core.job import TEXT_LIMIT, Job, failed_outcome, shortened
from gbe_oracle.testing import DIAMOND, FAN, LINE, Edges, job_of

OK = Raw(b'{"state":"completed"}')


def done(index: int, state: str = "completed", error: str = "") -> Reported:
    return Reported(index, state, 1, 1, "w", 1, 2, failed_outcome(error) if error else OK, error)


def begin(job: Job) -> JournalRecord:
    record = job.create("me", 1)
    job.committed(record, 1)
    return record


def names(job: Job, indices: list[int]) -> list[str]:
    return [job.outline.tasks[index].name for index in indices]


class Driver:
    """Feeds events to a core and commits what it decides."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.records = [begin(job)]

    def feed(self, *events: JobEvent) -> list[Verdict]:
        decision = self.job.decide(events, "me", 5)
        if decision.record is not None:
            self.records.append(decision.record)
            self.job.committed(decision.record, len(self.records))
        return decision.verdicts

    @property
    def dispatched(self) -> list[str]:
        return names(self.job, self.records[-1].dispatch)


def test_readiness_follows_the_edges_of_a_line() -> None:
    driver = Driver(job_of(LINE))
    assert driver.dispatched == ["a"]
    driver.feed(done(0))
    assert driver.dispatched == ["b"]
    driver.feed(done(1))
    assert driver.dispatched == ["c"]
    driver.feed(done(2))
    assert driver.records[-1].final == FinalRecord("completed", 5)


def test_a_join_waits_for_all() -> None:
    driver = Driver(job_of(DIAMOND))
    driver.feed(done(0))
    assert driver.dispatched == ["b", "c"]
    driver.feed(done(1))
    assert driver.dispatched == []
    driver.feed(done(2))
    assert driver.dispatched == ["d"]


def test_one_batch_may_end_several_tasks() -> None:
    driver = Driver(job_of(FAN))
    driver.feed(done(0))
    assert driver.feed(*(done(i) for i in range(1, 11))) == [Verdict.APPLIED] * 10
    assert driver.dispatched == ["z"]


def test_completing_twice_makes_dependents_ready_once() -> None:
    driver = Driver(job_of(DIAMOND))
    assert driver.feed(done(0), done(0)) == [Verdict.APPLIED, Verdict.KNOWN]
    count = len(driver.records)
    assert driver.feed(done(0)) == [Verdict.KNOWN]
    assert len(driver.records) == count


def test_skipped_counts_as_done_for_dependents() -> None:
    driver = Driver(job_of(LINE))
    driver.feed(done(0, "skipped"))
    assert driver.dispatched == ["b"]


def test_the_first_failure_decides_and_stops_dispatch() -> None:
    driver = Driver(job_of(DIAMOND))
    driver.feed(done(0))
    verdicts = driver.feed(done(1, "failed", "boom"), done(2, "failed", "bang"))
    assert verdicts == [Verdict.APPLIED, Verdict.APPLIED]
    record = driver.records[-1]
    assert record.final == FinalRecord("failed", 5, error="boom", failed_task=1)
    assert record.dispatch == []
    assert [o.index for o in record.outcomes] == [1, 2], "what really ended is recorded, failure or not"
    assert driver.job.task_state(3) is TaskState.CANCELLED


def test_running_siblings_are_told_when_the_job_fails() -> None:
    driver = Driver(job_of(DIAMOND))
    driver.feed(done(0))
    driver.feed(done(1, "failed", "boom"))
    assert driver.records[-1].control == ["noop"]
    assert driver.job.task_state(2) is TaskState.CANCELLED
    assert driver.feed(done(2)) == [Verdict.MOOT]


def replayed(driver: Driver) -> Job:
    """The state as another Oracle reads it."""
    fresh = Job(driver.job.spec, driver.job.outline, window=driver.job.window)
    for seq, record in enumerate(driver.records, 1):
        fresh.replay(record, seq)
    return fresh


def test_without_fail_fast_everything_goes_on_that_does_not_depend_on_a_failure() -> None:
    driver = Driver(job_of({"a": [], "b": [], "c": ["a"], "d": ["b"], "e": ["c", "d"]}, fail_fast=False))
    driver.feed(done(0, "failed", "boom"))
    record = driver.records[-1]
    assert (record.final, record.dispatch, record.control) == (None, [], [])
    assert driver.feed(done(2)) == [Verdict.EARLY], "it waits for what failed, for ever"
    driver.feed(done(1))
    assert driver.dispatched == ["d"]
    driver.feed(done(3, "failed", "bang"))
    assert driver.records[-1].final == FinalRecord("failed", 5, error="boom", failed_task=0), "the first one decides"
    states = [driver.job.task_state(index).value for index in range(5)]
    assert states == ["failed", "completed", "cancelled", "failed", "cancelled"]


def test_without_fail_fast_the_last_success_ends_a_job_with_a_failure_too() -> None:
    driver = Driver(job_of({"a": [], "b": [], "c": ["a"]}, fail_fast=False))
    driver.feed(done(0, "cancelled", "boom"), done(1))
    assert driver.records[-1].final == FinalRecord("failed", 5, error="boom", failed_task=0)


def test_without_fail_fast_and_without_failure_a_job_completes() -> None:
    driver = Driver(job_of(LINE, fail_fast=False))
    for index in range(3):
        driver.feed(done(index, "skipped" if index else "completed"))
    assert driver.records[-1].final == FinalRecord("completed", 5)


def test_without_fail_fast_a_cancel_and_a_deadline_end_the_job_at_once() -> None:
    for event, final in (
        (CancelRequested("enough"), FinalRecord("cancelled", 5, reason="enough")),
        (DeadlinePassed("too slow"), FinalRecord("failed", 5, error="too slow")),
    ):
        driver = Driver(job_of({"a": [], "b": []}, fail_fast=False))
        driver.feed(done(0, "failed", "boom"))
        driver.feed(event)
        assert driver.records[-1].final == final
        assert driver.records[-1].control == ["noop"]


def test_without_fail_fast_a_refused_dispatch_is_a_failure_like_others() -> None:
    driver = Driver(job_of({"a": [], "b": []}, fail_fast=False))
    driver.feed(DispatchRefused(0, "too large"))
    assert driver.records[-1].final is None
    driver.feed(done(1))
    assert driver.records[-1].final == FinalRecord("failed", 5, error="too large", failed_task=0)


def test_another_oracle_knows_the_first_failure_of_a_job_that_goes_on() -> None:
    driver = Driver(job_of({"a": [], "b": [], "c": []}, fail_fast=False))
    error = "x" * (TEXT_LIMIT + 5)
    report = Reported(0, "failed", 1, 1, "w", 1, 2, failed_outcome(error), shortened(error))
    driver.feed(report)
    driver.feed(done(1, "failed", "bang"))
    driver.job = replayed(driver)
    assert driver.feed(report) == [Verdict.KNOWN]
    driver.feed(done(2))
    assert driver.records[-1].final == FinalRecord("failed", 5, error=shortened(error), failed_task=0)


def test_without_fail_fast_windows_are_filled_to_the_end() -> None:
    driver = Driver(job_of({f"t{i}": [] for i in range(5)}, window=2, fail_fast=False))
    for index in range(5):
        assert driver.records[-1].final is None
        driver.feed(done(index, "failed", f"boom {index}"))
    assert driver.records[-1].final == FinalRecord("failed", 5, error="boom 0", failed_task=0)


def test_a_report_for_a_task_that_was_not_queued_is_early() -> None:
    driver = Driver(job_of(LINE))
    assert driver.feed(done(2)) == [Verdict.EARLY]
    assert driver.job.task_state(2) is TaskState.BLOCKED


def test_cancel_ends_the_job_with_its_reason() -> None:
    driver = Driver(job_of(LINE))
    driver.feed(CancelRequested("enough"))
    assert driver.records[-1].final == FinalRecord("cancelled", 5, reason="enough")
    assert driver.feed(CancelRequested("more")) == [Verdict.MOOT]


def test_a_tombstone_ends_the_job_at_once() -> None:
    job = job_of(LINE)
    record = job.create("me", 1, tombstone="too late")
    assert record.dispatch == []
    assert record.final == FinalRecord("cancelled", 1, reason="too late")


def test_a_passed_deadline_fails_the_job_without_a_task() -> None:
    driver = Driver(job_of(LINE))
    driver.feed(DeadlinePassed("too slow"))
    assert driver.records[-1].final == FinalRecord("failed", 5, error="too slow")


def test_a_refused_dispatch_fails_its_task_with_the_text() -> None:
    driver = Driver(job_of(LINE))
    driver.feed(DispatchRefused(0, 'too "large"'))
    record = driver.records[-1]
    assert bytes(record.outcomes[0].outcome) == b'{"state":"failed","kind":"rejected","error":"too \\"large\\""}'
    assert record.final == FinalRecord("failed", 5, error='too "large"', failed_task=0)


def test_children_of_open_tasks_are_cancelled_with_the_job() -> None:
    driver = Driver(job_of(DIAMOND))
    driver.feed(done(0))
    assert driver.feed(ChildStarted(1, "inner", "job_c1"), ChildStarted(1, "inner", "job_c1")) == [
        Verdict.APPLIED,
        Verdict.KNOWN,
    ]
    driver.feed(done(2, "failed", "boom"))
    assert driver.records[-1].children == [("inner", "job_c1")]
    assert driver.feed(ChildStarted(2, "inner", "job_c2")) == [Verdict.MOOT]


def test_a_wide_fan_out_goes_out_in_windows() -> None:
    driver = Driver(job_of(FAN, window=3))
    driver.feed(done(0))
    assert driver.dispatched == ["t0", "t1", "t2"]
    driver.feed(done(2))
    assert driver.dispatched == ["t3"]
    driver.feed(done(1), done(3))
    assert driver.dispatched == ["t4", "t5"]


def test_reused_outcomes_are_not_run_again() -> None:
    job = job_of(DIAMOND)
    job.spec = type(job.spec)("job_1", "test", "org_default", 1, "sha", reuse={"a": OK, "b": OK, "d": OK})
    record = job.create("me", 1)
    assert names(job, [o.index for o in record.outcomes]) == ["a", "b"]
    assert names(job, record.dispatch) == ["c"], "d stands on c, which has no outcome: it is not reused"


def test_another_oracle_does_not_run_again_what_is_reused() -> None:
    edges: Edges = {"a": [], "b": [], "c": [], "d": ["a", "b", "c"]}
    job = job_of(edges, window=1)
    job.spec = type(job.spec)("job_1", "test", "org_default", 1, "sha", reuse={"a": OK})
    driver = Driver(job)
    assert driver.dispatched == ["b"]
    driver.job = replayed(driver)
    driver.feed(done(1))
    assert driver.dispatched == ["c"]
    driver.feed(done(2))
    assert driver.dispatched == ["d"]


@st.composite
def dags(draw: st.DrawFn) -> Edges:
    count = draw(st.integers(1, 12))
    edges: Edges = {}
    for i in range(count):
        edges[f"n{i}"] = sorted(draw(st.sets(st.sampled_from([f"n{j}" for j in range(i)]), max_size=4))) if i else []
    return edges


class Naive:
    """The obvious model: sets, re-scanned at each step."""

    def __init__(self, edges: Edges, fail_fast: bool) -> None:
        self.edges = edges
        self.fail_fast = fail_fast
        self.done: set[str] = set()
        self.failed: list[str] = []
        self.reported: set[str] = set()

    @property
    def queued(self) -> set[str]:
        return {n for n, needs in self.edges.items() if self.done.issuperset(needs)}

    def report(self, name: str, ok: bool) -> None:
        if name in self.queued and name not in self.reported and self.state is JobState.RUNNING:
            self.reported.add(name)
            if ok:
                self.done.add(name)
            else:
                self.failed.append(name)

    @property
    def state(self) -> JobState:
        if self.failed and (self.fail_fast or self.queued == self.reported):
            return JobState.FAILED
        return JobState.COMPLETED if len(self.done) == len(self.edges) else JobState.RUNNING


@settings(max_examples=150, deadline=None)
@given(dags(), st.booleans(), st.data())
def test_random_dags_agree_with_the_naive_model_whatever_the_order(
    edges: Edges, fail_fast: bool, data: st.DataObject
) -> None:
    order = list(edges)
    driver = Driver(job_of(edges, window=data.draw(st.integers(1, 5)), fail_fast=fail_fast))
    naive = Naive(edges, fail_fast)
    for _ in range(4 * len(edges)):
        if driver.job.decided:
            break
        open_now = [i for i in range(len(order)) if driver.job.is_open(i)]
        # Anything may be reported: mostly something open, sometimes anything at all, sometimes twice.
        index = data.draw(st.sampled_from(open_now) | st.integers(0, len(order) - 1))
        ok = data.draw(st.integers(0, 9)) > 0
        event = done(index, "completed" if ok else "failed", "" if ok else f"boom {index}")
        repeat = data.draw(st.integers(1, 2))
        verdicts = driver.feed(*[event] * repeat)
        if verdicts[0] is Verdict.APPLIED:
            naive.report(order[index], ok)
        if data.draw(st.integers(0, 4)) == 0:
            # A crash: another Oracle replays the journal and goes on with an equal state.
            fresh = replayed(driver)
            assert fresh.states == driver.job.states
            assert fresh.final == driver.job.final
            assert (fresh.live, fresh.failure) == (driver.job.live, driver.job.failure)
            assert fresh.outstanding == driver.job.outstanding or fresh.decided
            assert {k: list(v) for k, v in fresh.ready.items() if v} == {
                k: list(v) for k, v in driver.job.ready.items() if v
            }
            driver.job = fresh
        if naive.state is JobState.RUNNING:
            dispatched = {names(driver.job, [i])[0] for r in driver.records for i in r.dispatch}
            assert dispatched <= naive.queued
            assert len(dispatched - naive.reported) == min(len(naive.queued - naive.reported), driver.job.window), (
                "the window is as full as it can be"
            )
        else:
            assert driver.job.final is not None
            assert driver.job.final.state == naive.state.value
            if naive.failed:
                first = order.index(naive.failed[0])
                assert (driver.job.final.failed_task, driver.job.final.error) == (first, f"boom {first}")


def test_a_replay_follows_the_record_where_the_writer_chose_otherwise() -> None:
    job = job_of(FAN)
    job.replay(JournalRecord("other", created=job.spec, dispatch=[0]), 1)
    outcome = OutcomeRecord(0, "completed", 1, 1, "w", 1, 2, OK)
    job.replay(JournalRecord("other", outcomes=[outcome], dispatch=[5, 1]), 2)
    assert job.is_open(5)
    assert job.is_open(1)
    assert not job.is_open(2)
    assert job.applied_at[0] == 2


@pytest.mark.parametrize("count", [50_000])
def test_a_large_job_costs_a_constant_per_task(count: int) -> None:
    """O9, the core's part: the figures are in the benchmark; here it is that it ends, every task once."""
    edges: Edges = {"a": [], **{f"t{i}": ["a"] for i in range(count)}}
    driver = Driver(job_of(edges))
    driver.feed(done(0))
    seen = 0
    while driver.records[-1].final is None:
        batch = driver.records[-1].dispatch
        seen += len(batch)
        driver.feed(*(done(index) for index in batch))
    assert seen == count
