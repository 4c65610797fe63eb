"""The worker, on the memory transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref, inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped, TaskOutcome
from gbe_jobs_domain.payloads import OnLost, ProgressKind, RetryPolicy, SecretRef, TaskNote, TaskQueued, encode
from gbe_jobs_domain.records import FinalRecord, JournalRecord, OutcomeRecord
from gbe_jobs_domain.streams import QUEUE
from gbe_nexus import (
    Answers,
    ConsumerSpec,
    Message,
    NexusError,
    Outgoing,
    PayloadTooLarge,
    PermissionDenied,
    PubAck,
    Transport,
    Unavailable,
)
from gbe_nexus_memory import MemoryTransport
from gbe_operative import worker as worker_module
from gbe_operative.composite import CompositeOperative
from gbe_operative.contract import Execution, Operative, OperativeContext, OperativeError
from gbe_operative.mock import Behaviour, MockOperative, skip
from gbe_operative.secrets import Secrets
from gbe_operative.settings import WorkerSettings
from gbe_operative.worker import Worker
from gbe_runtime import bus_role
from gbe_runtime.errors import ConfigurationError
from gbe_runtime.lifecycle import Role
from gbe_runtime.lifecycle_suite import LifecycleContract, MakeRole

Hall = Any  # `gbe_operative.testing.Hall`: what it returns is a union, which each test knows better

QUICK = RetryPolicy(delay=0.02)
HANG = Behaviour(hang=True)

Body = Callable[[Execution], Awaitable[TaskOutcome] | TaskOutcome]


class Doing(Operative):
    """Executes a function."""

    def __init__(self, body: Body, task_type: str = "mock") -> None:
        self._body = body
        self._type = task_type

    @property
    def handles(self) -> tuple[str, ...]:
        return (self._type,)

    def execute(self, execution: Execution) -> Awaitable[TaskOutcome] | TaskOutcome:
        return self._body(execution)


async def delivered(hall: Hall, transport: Transport, count: int = 1, task_type: str = "mock") -> list[Message]:
    """Messages taken by somebody who then does nothing: a worker that died."""
    taken: list[Message] = []
    spec = ConsumerSpec(
        QUEUE, subjects.operative_consumer(task_type), (subjects.queue(task_type),), ack_wait=hall.ack_wait
    )
    subscription = await transport.subscribe(spec, taken.extend, credit=count)
    await hall.until(lambda: len(taken) >= count)
    await subscription.stop()
    return taken


async def write_note(hall: Hall, task: TaskQueued, note: TaskNote) -> None:
    store = await hall.transport.state_store(subjects.NOTES_BUCKET)
    await store.put(task.task_id, encode(note))


async def drained(hall: Hall) -> None:
    """Until the queue is empty: everything is acknowledged."""
    async with asyncio.timeout(10):
        while await hall.queued():
            await asyncio.sleep(0.005)


# --- the straight path ---


async def test_a_task_is_run_reported_and_acknowledged(hall: Hall) -> None:
    worker = hall.worker()
    await worker.start()
    task = hall.task()
    await hall.queue(task)
    (ended,) = await hall.ends()
    assert (ended.task_id, ended.job_id, ended.task_name) == (task.task_id, task.job_id, task.task_name)
    assert (ended.attempt, ended.starts, ended.worker) == (1, 1, worker.identity)
    assert ended.outcome == Completed()
    await drained(hall)
    assert await hall.note(task) is None
    assert not hall.progress, "a task that ends within a moment says nothing else"


async def test_many_tasks_go_through_few_slots(hall: Hall) -> None:
    worker = hall.worker(slots=3)
    await worker.start()
    await hall.queue(*[hall.task(f"t{number}") for number in range(200)])
    ended = await hall.ends(200)
    assert len({end.task_id for end in ended}) == 200
    await drained(hall)
    assert worker.load() == {"in_hand.mock": 0}
    assert worker.capabilities() == {"task_types": {"mock": 3}}


async def test_never_more_at_once_than_slots(hall: Hall) -> None:
    running = most = 0

    async def body(execution: Execution) -> TaskOutcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return Completed()

    await hall.worker(Doing(body), slots=3).start()
    await hall.queue(*[hall.task(f"t{number}") for number in range(30)])
    await hall.ends(30)
    assert most == 3


async def test_other_outcomes(hall: Hall) -> None:
    behaviours = {"s": skip("not today"), "d": Behaviour(output=["x"], data={"a": 1}, delay=0.001)}
    await hall.worker(behaviours=behaviours).start()
    await hall.queue(hall.task("s"))
    await hall.ends(1)
    await hall.queue(hall.task("d"))
    skipped, done = await hall.ends(2)
    assert skipped.outcome == Skipped("not today")
    assert done.outcome == Completed(output=["x"], data=inline({"a": 1})) or done.outcome.data.decoded() == {"a": 1}


async def test_several_types_in_one_process(hall: Hall) -> None:
    await hall.worker(CompositeOperative([MockOperative(("a", "b")), MockOperative(("c",))])).start()
    await hall.queue(hall.task("x", "a"), hall.task("y", "b"), hall.task("z", "c"))
    ended = await hall.ends(3)
    assert {end.task_type for end in ended} == {"a", "b", "c"}


def test_one_type_has_one_operative() -> None:
    with pytest.raises(ValueError, match="'a'"):
        CompositeOperative([MockOperative(("a",)), MockOperative(("a",))])


async def test_the_streams_may_come_later(transport: MemoryTransport) -> None:
    from gbe_jobs_domain.streams import streams

    worker = Worker(transport, MockOperative())
    await worker.start()
    assert worker.lifecycle_payload().load["in_hand.mock"] == 0 if worker.load() else True
    for stream in streams():
        await transport.ensure_stream(stream)
    async with asyncio.timeout(5):
        while not worker.load():
            await asyncio.sleep(0.01)
    await worker.stop()


# --- failures ---


async def test_retries_until_it_works(hall: Hall) -> None:
    await hall.worker(behaviours={"flaky": Behaviour(fail_times=2, output=["ok"])}).start()
    task = hall.task("flaky", max_retries=2, retry=QUICK)
    await hall.queue(task)
    (ended,) = await hall.ends()
    assert ended.outcome == Completed(output=["ok"])
    assert (ended.attempt, ended.starts) == (3, 3)
    said = [message.message for message in hall.progress if message.kind is ProgressKind.RETRY]
    assert said[0].startswith("attempt 1 failed, next in 0 s: mock failure") or "next in 0.0 s" in said[0]
    assert said[1].startswith("attempt 2 failed")
    await drained(hall)
    assert await hall.note(task) is None


async def test_an_error_says_when_to_try_again_and_what_came_of_it(hall: Hall) -> None:
    def body(execution: Execution) -> TaskOutcome:
        raise OperativeError("busy", retry_after=0.3, data=inline({"status": 503}), output=["too busy"])

    await hall.worker(Doing(body)).start()
    await hall.queue(hall.task(max_retries=1, retry=RetryPolicy(delay=0)))
    (ended,) = await hall.ends()
    assert ended.outcome == Failed(error="busy", output=["too busy"], data=inline({"status": 503}))
    assert ended.attempt == 2
    (said,) = [message.message for message in hall.progress if message.kind is ProgressKind.RETRY]
    assert said == "attempt 1 failed, next in 0.3 s: busy"


async def test_a_broken_task_fails_after_its_retries(hall: Hall) -> None:
    await hall.worker(behaviours={"broken": Behaviour(fail_times=99, error="boom", exit_code=7)}).start()
    task = hall.task("broken", max_retries=2, retry=QUICK)
    await hall.queue(task)
    (ended,) = await hall.ends()
    assert ended.outcome == Failed(error="boom", exit_code=7)
    assert ended.attempt == 3
    await drained(hall)
    assert await hall.note(task) is None


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("boom"), Failed(error="RuntimeError: boom")),
        (ValueError(), Failed(error="ValueError")),
        (SystemExit(3), Failed(error="SystemExit: 3")),
        (OperativeError("no", kind=FailureKind.REJECTED), Failed(error="no", kind=FailureKind.REJECTED)),
        (OperativeError("no", retryable=False), Failed(error="no")),
    ],
)
@pytest.mark.parametrize("delay", [0.0, 0.001])
async def test_whatever_is_raised_fails_the_task_only(
    hall: Hall, error: BaseException, outcome: Failed, delay: float
) -> None:
    await hall.worker(behaviours={"bad": Behaviour(raises=error, delay=delay)}).start()
    await hall.queue(hall.task("bad"), hall.task("good"))
    await hall.ends(2)
    by_name = {end.task_name: end.outcome for end in hall.ended}
    assert by_name == {"bad": outcome, "good": Completed()}


async def test_an_operative_that_cancels_itself(hall: Hall) -> None:
    await hall.worker(behaviours={"bad": Behaviour(raises=asyncio.CancelledError(), delay=0.001)}).start()
    await hall.queue(hall.task("bad"), hall.task("good"))
    await hall.ends(2)
    assert [end.outcome.error for end in hall.ended if end.task_name == "bad"] == ["the Operative cancelled itself"]


async def test_what_is_not_retryable_is_not_retried(hall: Hall) -> None:
    operative = MockOperative(behaviours={"bad": Behaviour(raises=OperativeError("no", retryable=False))})
    await hall.worker(operative).start()
    await hall.queue(hall.task("bad", max_retries=5, retry=QUICK))
    await hall.ends()
    assert operative.runs["bad"] == 1


async def test_a_wrong_result_is_a_failure(hall: Hall) -> None:
    await hall.worker(Doing(lambda execution: "done")).start()  # type: ignore[arg-type, return-value]
    await hall.queue(hall.task())
    (ended,) = await hall.ends()
    assert ended.outcome == Failed(error="the Operative returned str, not an outcome")


async def test_a_time_limit(hall: Hall) -> None:
    await hall.worker(behaviours={"slow": HANG}).start()
    await hall.queue(hall.task("slow", timeout_secs=0.05))
    (ended,) = await hall.ends()
    assert ended.outcome == Failed(error="timed out after 0.05 s", kind=FailureKind.TIMEOUT, exit_code=124)


async def test_a_timeout_is_a_failed_attempt(hall: Hall) -> None:
    operative = MockOperative(behaviours={"slow": HANG})
    await hall.worker(operative).start()
    await hall.queue(hall.task("slow", timeout_secs=0.02, max_retries=1, retry=QUICK))
    (ended,) = await hall.ends()
    assert ended.attempt == 2
    assert operative.runs["slow"] == 2


async def test_who_watches_may_clean_up(hall: Hall) -> None:
    async def body(execution: Execution) -> TaskOutcome:
        await execution.cancelled.wait()
        return Failed(error="cleaned up", stderr="last words", output=["partly"])

    await hall.worker(Doing(body)).start()
    await hall.queue(hall.task(timeout_secs=0.02))
    (ended,) = await hall.ends()
    assert ended.outcome == Failed(
        error="timed out after 0.02 s", kind=FailureKind.TIMEOUT, exit_code=124, stderr="last words", output=["partly"]
    )


async def test_who_asks_to_be_called_may_clean_up_too(hall: Hall) -> None:
    async def body(execution: Execution) -> TaskOutcome:
        over = asyncio.Event()
        execution.when_cancelled(over.set)
        await over.wait()
        assert execution.cancelled.is_set()
        execution.when_cancelled(over.clear)  # called at once: it is cancelled already
        assert not over.is_set()
        return Failed(error="cleaned up", output=["partly"])

    async def unwatched(execution: Execution) -> TaskOutcome:
        execution.when_cancelled(lambda: None)
        execution.when_cancelled(None)
        await asyncio.get_running_loop().create_future()
        return Completed()

    await hall.worker(Doing(body)).start()
    await hall.queue(hall.task(timeout_secs=0.02))
    (ended,) = await hall.ends()
    assert (ended.outcome.error, ended.outcome.output) == ("timed out after 0.02 s", ["partly"])
    await hall.worker(Doing(unwatched, "other")).start()
    await hall.queue(hall.task("x", "other", timeout_secs=0.02))
    assert (await hall.ends(2))[1].outcome.kind is FailureKind.TIMEOUT, "cancelled as an asyncio task is"


async def test_an_operative_that_can_not_start_is_a_matter_of_settings(hall: Hall) -> None:
    class Unable(MockOperative):
        async def start(self, context: OperativeContext) -> None:
            raise OperativeError("no licence")

    with pytest.raises(ConfigurationError, match=r"^no licence$"):
        await hall.worker(Unable()).start()


# --- deliveries after the first ---


async def test_a_lost_task_runs_again(hall: Hall, transport: MemoryTransport) -> None:
    task = hall.task()
    await hall.queue(task)
    (message,) = await delivered(hall, transport)
    message.nak()
    await hall.worker().start()
    (ended,) = await hall.ends()
    assert (ended.attempt, ended.starts) == (1, 2)
    await drained(hall)
    assert await hall.note(task) is None


async def test_a_first_delivery_that_was_one_before_does_not_run_twice(hall: Hall, transport: MemoryTransport) -> None:
    """After its death a server may give out as new what it had given to another worker, which runs it."""
    operative = MockOperative(behaviours={"t": Behaviour(hang=True)})
    task = hall.task(on_lost=OnLost.FAIL)
    await hall.queue(task)
    busy = hall.worker(operative)
    await busy.start()
    await operative.started.wait()
    notes = await transport.state_store(subjects.NOTES_BUCKET)
    assert await notes.get(task.task_id) is not None
    second = MockOperative(behaviours={"t": Behaviour()})
    await hall.worker(second).start()
    await hall.queue(task)
    (ended,) = await hall.ends()
    assert ended.outcome.kind is FailureKind.LOST
    assert second.runs["t"] == 0


async def test_what_must_not_run_twice_does_not_after_its_end_either(hall: Hall, transport: MemoryTransport) -> None:
    """Its queue message comes again before any Oracle has recorded its end."""
    operative = MockOperative(behaviours={"t": Behaviour()})
    task = hall.task(on_lost=OnLost.FAIL)
    await hall.queue(task)
    await hall.worker(operative).start()
    (ended,) = await hall.ends()
    assert isinstance(ended.outcome, Completed)
    await drained(hall)
    await hall.queue(task)
    await drained(hall)
    assert operative.runs["t"] == 1
    assert (await hall.ends())[0].outcome == ended.outcome


async def test_a_lost_task_that_must_not_run_twice_fails(hall: Hall, transport: MemoryTransport) -> None:
    operative = MockOperative(behaviours={"t": Behaviour()})
    task = hall.task(on_lost=OnLost.FAIL)
    await hall.queue(task)
    (message,) = await delivered(hall, transport)
    message.nak()
    await hall.worker(operative).start()
    (ended,) = await hall.ends()
    assert ended.outcome.kind is FailureKind.LOST
    assert "on_lost: fail" in ended.outcome.error
    await drained(hall)
    await hall.queue(task)  # a healing Oracle dispatches it once more
    await drained(hall)
    assert operative.runs["t"] == 0
    assert not hall.dead


async def test_a_task_that_kills_its_workers_is_dead_lettered(hall: Hall, transport: MemoryTransport) -> None:
    task = hall.task()
    await hall.queue(task)
    (message,) = await delivered(hall, transport)
    await write_note(hall, task, TaskNote(lost=2, starts=3, running=True))
    message.nak()
    await hall.worker().start()
    (ended,) = await hall.ends()
    assert ended.outcome.kind is FailureKind.LOST
    assert "3 starts without an end" in ended.outcome.error
    await drained(hall)
    await hall.until(lambda: hall.dead)
    assert await hall.note(task) is None


async def test_the_attempt_goes_on_from_the_note(hall: Hall, transport: MemoryTransport) -> None:
    task = hall.task("flaky", max_retries=3)
    await hall.queue(task)
    (message,) = await delivered(hall, transport)
    await write_note(hall, task, TaskNote(failed=2, starts=2, last_error="x"))
    message.nak()
    await hall.worker(behaviours={"flaky": Behaviour(fail_times=2)}).start()
    (ended,) = await hall.ends()
    assert (ended.attempt, ended.starts, ended.outcome) == (3, 3, Completed())


async def test_a_note_is_there_while_a_later_delivery_runs(hall: Hall, transport: MemoryTransport) -> None:
    task = hall.task("slow")
    await hall.queue(task)
    (message,) = await delivered(hall, transport)
    message.nak()
    operative = MockOperative(behaviours={"slow": HANG})
    await hall.worker(operative).start()
    await asyncio.wait_for(operative.started.wait(), 5)
    assert await hall.note(task) == TaskNote(lost=1, starts=2, running=True)


async def test_a_redelivery_of_what_is_in_hand_is_adopted(hall: Hall, transport: MemoryTransport) -> None:
    """A stopped worker that comes back finds its own task redelivered to itself."""
    release = asyncio.Event()
    runs = 0

    async def body(execution: Execution) -> TaskOutcome:
        nonlocal runs
        runs += 1
        await release.wait()
        return Completed()

    worker = hall.worker(Doing(body), slots=1)
    await worker.start()
    await hall.queue(hall.task(), hall.task("next"))
    lane = worker._lanes["mock"]
    await hall.until(lambda: runs == 1)
    (attempt,) = lane.attempts
    # The lease ends as for a process that stood still.
    attempt.message._subscription.group.give_back(attempt.message._lease, 0.0)
    lane.subscription.grant(1)
    await hall.until(lambda: attempt.message.deliveries == 2)
    release.set()
    ended = await hall.ends(2)
    assert [end.starts for end in ended] == [1, 1]
    await drained(hall)
    assert runs == 2


async def test_leases_are_renewed(hall: Hall) -> None:
    operative = MockOperative(behaviours={"slow": Behaviour(delay=1.0)})
    await hall.worker(operative, settings=WorkerSettings(ack_wait=0.3)).start()
    await hall.queue(hall.task("slow"))
    (ended,) = await hall.ends()
    assert ended.starts == 1
    await drained(hall)
    assert operative.runs["slow"] == 1


# --- what nobody wants any more ---


def ended_record(index: int) -> JournalRecord:
    """The journal has an outcome of the task with that index."""
    outcome = msgspec.Raw(encode(Completed()))
    return JournalRecord("x", outcomes=[OutcomeRecord(index, "completed", 1, 1, "w", 0, 0, outcome)])


async def test_what_was_queued_before_is_looked_up(hall: Hall) -> None:
    gone, wanted = hall.task("gone"), hall.task("wanted")
    await hall.queue(gone, wanted)
    await hall.record(ended_record(0))
    operative = MockOperative(behaviours={"gone": Behaviour(), "wanted": Behaviour()})
    await hall.worker(operative).start()
    await hall.ends()
    await drained(hall)
    assert operative.runs == {"wanted": 1}
    assert len(hall.ended) == 1


@pytest.mark.parametrize(
    "record",
    [
        JournalRecord("x", final=FinalRecord("failed", 1)),
        JournalRecord("x", cancel="by hand"),
        JournalRecord("x", control=["mock"], final=FinalRecord("cancelled", 1, reason="x")),
    ],
)
async def test_a_job_that_is_over_runs_nothing(hall: Hall, record: JournalRecord) -> None:
    await hall.queue(hall.task())
    await hall.record(record)
    worker = hall.worker()
    await worker.start()
    await drained(hall)
    assert not hall.ended
    assert worker.metrics.counter("tasks_dropped").value == 1


async def test_a_job_whose_journal_is_purged_is_over(hall: Hall) -> None:
    await hall.queue(hall.task())
    journal = await hall.transport.journal("GBE_JOURNAL")
    await journal.purge(subjects.journal("test", hall.job_id))
    await hall.worker().start()
    await drained(hall)
    assert not hall.ended


async def test_a_job_that_ended_and_was_purged_between_two_looks(hall: Hall) -> None:
    operative = MockOperative(behaviours={"slow": HANG})
    worker = hall.worker(operative, settings=WorkerSettings(ack_wait=0.3))
    await hall.queue(hall.task("slow"))
    await worker.start()  # the task was there before: looked up, and wanted
    await asyncio.wait_for(operative.started.wait(), 5)
    await hall.record(JournalRecord("x", final=FinalRecord("failed", 1)))
    journal = await hall.transport.journal("GBE_JOURNAL")
    await journal.purge(subjects.journal("test", hall.job_id))
    (ended,) = await hall.ends()
    assert ended.outcome.kind is FailureKind.CANCELLED


async def test_a_record_of_the_future_stops_nothing(hall: Hall) -> None:
    await hall.queue(hall.task())
    journal = await hall.transport.journal("GBE_JOURNAL")
    subject = subjects.journal("test", hall.job_id)
    await journal.append(subject, b'{"v":9,"ts":0,"id":"x","data":{}}', hall.journal_seq)
    await hall.worker().start()
    await hall.ends()


async def test_a_running_task_is_cancelled(hall: Hall) -> None:
    operative = MockOperative(behaviours={"slow": HANG})
    await hall.worker(operative).start()
    task = hall.task("slow", max_retries=5)
    await hall.queue(task)
    await asyncio.wait_for(operative.started.wait(), 5)
    await hall.cancel(task, "by hand")
    (ended,) = await hall.ends()
    assert ended.outcome == Failed(error="cancelled: by hand", kind=FailureKind.CANCELLED)
    await drained(hall)


async def test_a_cancel_that_is_heard_before_the_task(hall: Hall) -> None:
    operative = MockOperative(behaviours={"t": Behaviour()})
    worker = hall.worker(operative)
    await worker.start()
    known, unknown = hall.task(), hall.task()
    await hall.cancel(known)
    await hall.cancel(unknown)
    await hall.until(lambda: worker._standing.is_cancelled(unknown))
    await hall.record(ended_record(0))
    await hall.queue(known, unknown)
    (ended,) = await hall.ends()
    await drained(hall)
    assert operative.runs["t"] == 0
    assert (ended.task_id, ended.outcome.kind) == (unknown.task_id, FailureKind.CANCELLED)


async def test_a_missed_cancel_is_found_with_the_lease(hall: Hall) -> None:
    operative = MockOperative(behaviours={"slow": HANG})
    await hall.worker(operative, settings=WorkerSettings(ack_wait=0.3)).start()
    await hall.queue(hall.task("slow"))
    await asyncio.wait_for(operative.started.wait(), 5)
    await hall.record(JournalRecord("x", final=FinalRecord("failed", 1)))
    (ended,) = await hall.ends()
    assert ended.outcome.kind is FailureKind.CANCELLED


async def test_after_a_reconnect_everything_is_in_doubt(hall: Hall) -> None:
    worker = hall.worker()
    await worker.start()
    await hall.queue(hall.task())
    await hall.ends()
    refresh, worker._standing._refresh = worker._standing._refresh, lambda: None  # the answer takes a while
    worker._standing.doubt()
    await hall.record(ended_record(1))
    await hall.queue(hall.task("dropped"), hall.task("run"))
    await hall.until(lambda: len(hall.ended) == 2)
    assert hall.ended[1].task_name == "run"
    refresh()
    await hall.until(lambda: not worker._standing.in_doubt)


# --- stopping ---


async def test_a_stopping_worker_hands_back(hall: Hall) -> None:
    operative = MockOperative(behaviours={"slow": HANG})
    worker = hall.worker(operative)
    await worker.start()
    task = hall.task("slow", on_lost=OnLost.FAIL)
    await hall.queue(task)
    await asyncio.wait_for(operative.started.wait(), 5)
    await worker.stop()
    assert await hall.note(task) == TaskNote(handed_back=1, starts=1)
    assert not hall.ended


async def test_asked_to_stop_five_times_uses_up_nothing(hall: Hall) -> None:
    task = hall.task("slow", on_lost=OnLost.FAIL)
    await hall.queue(task)
    for _ in range(5):
        operative = MockOperative(behaviours={"slow": HANG})
        worker = hall.worker(operative, settings=WorkerSettings(crash_budget=1, stop_grace=0))
        await worker.start()
        await asyncio.wait_for(operative.started.wait(), 5)
        await worker.stop()
    assert await hall.note(task) == TaskNote(handed_back=5, starts=5)
    await hall.worker(behaviours={}).start()
    (ended,) = await hall.ends()
    assert (ended.attempt, ended.starts, ended.outcome) == (1, 6, Completed())


async def test_what_ends_within_the_grace_is_reported(hall: Hall) -> None:
    operative = MockOperative(behaviours={"slow": Behaviour(delay=0.1)})
    worker = hall.worker(operative, settings=WorkerSettings(stop_grace=5))
    await worker.start()
    await hall.queue(hall.task("slow"))
    await asyncio.wait_for(operative.started.wait(), 5)
    await worker.stop()
    (ended,) = await hall.ends()
    assert ended.outcome == Completed()
    await hall.emptied()


async def test_what_arrives_while_stopping_is_handed_back(hall: Hall) -> None:
    operative = MockOperative(behaviours={"t": Behaviour()})
    worker = hall.worker(operative)
    await worker.start()
    worker._lanes["mock"]._stopping = True
    task = hall.task(on_lost=OnLost.FAIL)
    await hall.queue(task)
    async with asyncio.timeout(5):
        while await hall.note(task) is None:
            await asyncio.sleep(0.005)
    await worker.stop()
    assert await hall.note(task) == TaskNote(handed_back=1)
    assert operative.runs["t"] == 0
    await hall.worker().start()
    await hall.ends()


class Away(MemoryTransport):
    """Loses its server when it is told to: everything waits for it then."""

    def __init__(self, broker: Any) -> None:
        super().__init__(broker)
        self.away = False

    @property
    def connected(self) -> bool:
        return not self.away

    async def state_store(self, bucket: str, *, ttl: float = 0) -> Any:
        store = await super().state_store(bucket, ttl=ttl)
        create = store.create

        async def create_when_there(*args: Any, **options: Any) -> int:
            while self.away:
                await asyncio.sleep(0.001)
            return await create(*args, **options)

        store.create = create_when_there  # type: ignore[method-assign]
        return store

    async def publish(self, *args: Any, **options: Any) -> PubAck:
        if self.away:
            raise Unavailable("gone")
        return await super().publish(*args, **options)


async def test_nothing_is_handed_back_to_a_server_that_is_gone(
    hall: Hall, transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "AWAY_PATIENCE", 0.05)
    monkeypatch.setattr(worker_module, "AWAY_POLL", 0.01)
    bus = Away(transport.broker)
    operative = MockOperative(behaviours={"slow": HANG})
    worker = hall.worker(operative, transport=bus, settings=WorkerSettings(stop_grace=0, interrupt_grace=60))
    await worker.start()
    await hall.queue(hall.task("slow"))
    await asyncio.wait_for(operative.started.wait(), 5)
    bus.away = True
    async with asyncio.timeout(5):
        await worker.stop()
    await bus.close()


async def test_who_cleans_up_is_waited_for_without_a_server_too(
    hall: Hall, transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "AWAY_PATIENCE", 0.05)
    monkeypatch.setattr(worker_module, "AWAY_POLL", 0.01)
    bus = Away(transport.broker)
    began = asyncio.Event()

    async def body(execution: Execution) -> TaskOutcome:
        cancelled = execution.cancelled
        began.set()
        await cancelled.wait()
        await asyncio.sleep(0.2)
        bus.away = False
        return Completed()

    worker = hall.worker(Doing(body), transport=bus, settings=WorkerSettings(stop_grace=0, interrupt_grace=60))
    await worker.start()
    task = hall.task()
    await hall.queue(task)
    await asyncio.wait_for(began.wait(), 5)
    bus.away = True
    async with asyncio.timeout(5):
        await worker.stop()
    assert await hall.note(task) == TaskNote(handed_back=1, starts=1)
    await bus.close()


# --- messages that make no sense ---


async def test_undecodable_messages_are_dead_lettered(hall: Hall) -> None:
    await hall.worker().start()
    for body in (b"nonsense", b"\xff", b'{"v":1,"ts":1,"id":"x","data":{}}'):
        await hall.transport.publish(subjects.queue("mock"), body)
    await hall.queue(hall.task())
    await hall.ends()
    await hall.until(lambda: len(hall.dead) == 3)
    await drained(hall)


async def test_messages_of_a_newer_version_are_left_to_newer_workers(hall: Hall) -> None:
    settings = WorkerSettings(unknown_version_delay=0.02, unknown_version_for=0.1)
    await hall.worker(settings=settings).start()
    await hall.transport.publish(subjects.queue("mock"), b'{"v":2,"ts":1,"id":"x","data":{}}')
    await hall.until(lambda: hall.dead)
    assert b"newer" in hall.dead[0]
    await drained(hall)


# --- the bus is away, or refuses ---


class Wayward(MemoryTransport):
    """Refuses what it is told to."""

    def __init__(self, broker: Any) -> None:
        super().__init__(broker)
        self.answers: list[NexusError] = []

    def publish_many(self, messages: Sequence[Outgoing]) -> Answers[PubAck | NexusError]:
        if self.answers:
            answers: Answers[PubAck | NexusError] = Answers()
            answers.settle([self.answers.pop(0)] * len(messages))
            return answers
        return super().publish_many(messages)


@pytest.mark.parametrize("delay", [0.0, 0.001])
async def test_reports_wait_for_the_bus(hall: Hall, transport: MemoryTransport, delay: float) -> None:
    wayward = Wayward(transport.broker)
    operative = MockOperative(behaviours={"t": Behaviour(delay=delay)})
    worker = hall.worker(operative, transport=wayward)
    await worker.start()
    wayward.answers = [Unavailable("gone"), Unavailable("still gone")]
    await hall.queue(hall.task())
    (ended,) = await hall.ends()
    assert ended.outcome == Completed()
    await drained(hall)
    assert operative.runs["t"] == 1
    await worker.stop()
    await wayward.close()


@pytest.mark.parametrize("delay", [0.0, 0.001])
async def test_a_report_that_is_too_large_all_the_same(hall: Hall, transport: MemoryTransport, delay: float) -> None:
    wayward = Wayward(transport.broker)
    worker = hall.worker(transport=wayward, behaviours={"t": Behaviour(delay=delay, output=["x" * 1000])})
    await worker.start()
    wayward.answers = [PayloadTooLarge(1000, 100)] * (1 if delay else 2)
    await hall.queue(hall.task())
    (ended,) = await hall.ends()
    assert "payload too large: 1000 bytes, the limit is 100" in ended.outcome.error
    await drained(hall)
    await worker.stop()
    await wayward.close()


async def test_a_report_that_is_refused_is_left_to_another_worker(hall: Hall, transport: MemoryTransport) -> None:
    wayward = Wayward(transport.broker)
    worker = hall.worker(transport=wayward, behaviours={"t": Behaviour(delay=0.001)})
    await worker.start()
    wayward.answers = [PermissionDenied("not you")]
    task = hall.task()
    await hall.queue(task)
    async with asyncio.timeout(5):
        while await hall.note(task) is None:
            await asyncio.sleep(0.005)
    assert await hall.note(task) == TaskNote(handed_back=1, starts=1)
    assert await hall.queued() == 1
    await worker.stop()
    await wayward.close()


# --- sizes ---


async def test_large_data_goes_by_reference(hall: Hall) -> None:
    value = ["\0" * 1000] * 250
    await hall.worker(behaviours={"t": Behaviour(data=value)}).start()
    await hall.queue(hall.task())
    (ended,) = await hall.ends()
    ref = ended.outcome.data
    assert isinstance(ref, Ref)
    assert (ref.items, ref.media_type) == (250, "application/json")
    assert ref.size > 1_500_000
    assert ref.key.startswith(hall.job_id + "/")
    artifacts = await hall.transport.artifact_store(ARTIFACT_STORE)
    assert msgspec.json.decode(await artifacts.read(ref.key, limit=ref.size)) == value


async def test_a_terminal_stays_below_half_a_message(hall: Hall) -> None:
    text = "\0" * 100_000
    outcome = Completed(output=[text, "end"], stderr=text, data=inline("y" * 200_000))
    worker = hall.worker(behaviours={"t": Behaviour(outcome=outcome)})
    await worker.start()
    await hall.queue(hall.task())
    (ended,) = await hall.ends()
    assert len(encode(ended)) < hall.transport.max_payload // 2
    assert ended.outcome.output[-1] == "end"


async def test_five_inputs_of_250_kb(hall: Hall) -> None:
    worker = hall.worker(behaviours={"t": Behaviour()})
    operative: Any = worker._operative
    await worker.start()
    artifacts = await hall.transport.artifact_store(ARTIFACT_STORE)
    inputs: dict[str, Any] = {}
    for number in range(5):
        text = str(number) * 250_000
        stored = await artifacts.put(
            f"{hall.job_id}/in{number}", b'"%s"' % text.encode(), media_type="application/json"
        )
        inputs[f"u{number}"] = Ref(ARTIFACT_STORE, stored.key, stored.size, stored.sha256, stored.media_type)
    await hall.queue(hall.task(inputs=inputs, input_from={f"P{number}": f"u{number}" for number in range(5)}))
    (ended,) = await hall.ends()
    assert ended.outcome == Completed()
    assert {name: len(value) for name, value in operative.seen["t"].items()} == {f"P{n}": 250_000 for n in range(5)}


# --- params ---


async def test_params_come_along_the_edges(hall: Hall) -> None:
    operative = MockOperative(behaviours={"t": Behaviour()})
    await hall.worker(operative).start()
    inputs = {"produce": inline({"url": "http://x"}), "lines": inline(["first", "second"])}
    await hall.queue(
        hall.task(params={"A": "a", "U": "old"}, input_from={"U": "produce.url", "L": "lines.0"}, inputs=inputs)
    )
    await hall.ends()
    assert operative.seen["t"] == {"A": "a", "U": "http://x", "L": "first"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input_from": {"U": "produce.nope"}, "inputs": {"produce": inline({"a": 1})}}, "'produce.nope'"),
        ({"params": {"T": SecretRef("nope")}}, "'nope'"),
        ({"params": {"x_ref": "store://elsewhere/x"}}, "store://"),
    ],
)
async def test_params_that_cannot_be_made_reject_the_task(hall: Hall, fields: Mapping[str, Any], says: str) -> None:
    operative = MockOperative(behaviours={"t": Behaviour()})
    await hall.worker(operative).start()
    await hall.queue(hall.task(max_retries=3, **fields))
    (ended,) = await hall.ends()
    assert ended.outcome.kind is FailureKind.REJECTED
    assert says in ended.outcome.error
    assert operative.runs["t"] == 0


async def test_what_is_made_of_a_secret_is_concealed_too(hall: Hall) -> None:
    async def body(execution: Execution) -> TaskOutcome:
        execution.conceal("c2VjcmV0")
        return Completed(output=[f"{execution.params['P']} c2VjcmV0"])

    await hall.worker(Doing(body), secrets=Secrets({"GBE_SECRET_S": "tr0ub4dor"})).start()
    await hall.queue(hall.task(params={"P": SecretRef("s")}), hall.task(params={"P": "plain"}))
    ended = await hall.ends(2)
    assert sorted(end.outcome.output[0] for end in ended) == ["*** ***", "plain ***"]


async def test_a_field_is_opened_where_its_reference_stands_in(hall: Hall) -> None:
    """A text is then the string that the field would have been, not its lines."""
    seen: list[Execution] = []

    def body(execution: Execution) -> TaskOutcome:
        seen.append(execution)
        return Completed()

    await hall.worker(Doing(body)).start()
    artifacts = await hall.transport.artifact_store(ARTIFACT_STORE)
    text = await artifacts.put(f"{hall.job_id}/t", b"a\nb\n", media_type="text/plain")
    value = await artifacts.put(f"{hall.job_id}/j", b'{"n":[1,2]}', media_type="application/json")
    xml = await artifacts.put(f"{hall.job_id}/x", b"<x/>", media_type="application/xml; charset=utf-8")
    stored = {"text_ref": text, "json_ref": value, "xml_ref": xml}
    uris = {name: f"store://{artifact.store}/{artifact.key}" for name, artifact in stored.items()}
    wiring = {"T": "up.text", "X": "up.xml", "J": "up.json", "N": "up.json.n.1", "n_ref": "up.json.n"}
    await hall.queue(hall.task(input_from=wiring, inputs={"up": inline(uris)}))
    await hall.ends()
    params = seen[0].params
    assert (params["T"], params["X"], params["J"], params["N"]) == ("a\nb\n", "<x/>", '{"n":[1,2]}', "2")
    assert await artifacts.read(seen[0].refs["n_ref"].key, limit=100) == b"[1,2]"


async def test_artifacts_reach_params(hall: Hall) -> None:
    seen: list[Execution] = []

    def body(execution: Execution) -> TaskOutcome:
        seen.append(execution)
        return Completed()

    await hall.worker(Doing(body)).start()
    artifacts = await hall.transport.artifact_store(ARTIFACT_STORE)
    stored = await artifacts.put(f"{hall.job_id}/big", b'{"a":{"b":"deep"}}', media_type="application/json")
    ref = Ref(ARTIFACT_STORE, stored.key, stored.size, stored.sha256, stored.media_type)
    await hall.queue(
        hall.task(
            input_from={"D": "up.a.b", "whole_ref": "up", "text_ref": "lines"},
            inputs={"up": ref, "lines": inline(["b", "a"])},
            params={"own_ref": ref.uri},
        )
    )
    await hall.ends()
    execution = seen[0]
    assert execution.params["D"] == "deep"

    async def stored_as(value: list[Any] | str) -> bytes:
        """What a command would read of a value that was too large for a message."""
        kept = await artifacts.put(f"{hall.job_id}/spilled", encode(value), media_type="application/json")
        items = len(value) if isinstance(value, list) else None
        spilled = Ref(ARTIFACT_STORE, kept.key, kept.size, kept.sha256, kept.media_type, items)
        count = len(seen)
        await hall.queue(hall.task(input_from={"x_ref": "up"}, inputs={"up": spilled}))
        await hall.until(lambda: len(seen) > count)
        read: bytes = await artifacts.read(seen[-1].refs["x_ref"].key, limit=100)
        return read

    assert execution.refs["whole_ref"] == ref
    assert execution.refs["own_ref"] == ref
    assert [await stored_as(["b", "a"]), await stored_as("plain"), await stored_as([1])] == [
        b"b\na\n",
        b"plain",
        b"[1]",
    ]
    text = execution.refs["text_ref"]
    assert execution.params["text_ref"] == text.uri
    assert await artifacts.read(text.key, limit=100) == b"b\na\n"


@pytest.mark.parametrize(
    ("content", "media_type", "says"),
    [
        (b"{", "application/json", "not JSON"),
        (b"x" * 2000, "text/plain", "too large to open"),
        (b"", "image/png", "image"),
    ],
)
async def test_artifacts_that_cannot_be_opened(hall: Hall, content: bytes, media_type: str, says: str) -> None:
    await hall.worker(settings=WorkerSettings(fetch_limit=1000)).start()
    artifacts = await hall.transport.artifact_store(ARTIFACT_STORE)
    stored = await artifacts.put(f"{hall.job_id}/big", content, media_type=media_type)
    ref = Ref(ARTIFACT_STORE, stored.key, stored.size, stored.sha256, stored.media_type)
    missing = Ref(ARTIFACT_STORE, f"{hall.job_id}/none", 1, "0" * 64, "text/plain")
    await hall.queue(hall.task(input_from={"D": "up.a"}, inputs={"up": ref}))
    await hall.ends(1)
    await hall.queue(hall.task(input_from={"D": "up.0"}, inputs={"up": missing}))
    bad, gone = await hall.ends(2)
    assert says in bad.outcome.error
    assert bad.outcome.kind is gone.outcome.kind is FailureKind.REJECTED


async def test_secrets_never_come_out(hall: Hall) -> None:
    secret = "tr0ub4dor&3"

    async def body(execution: Execution) -> TaskOutcome:
        value = execution.params["TOKEN"]
        assert value == secret
        execution.progress(f"using {value}", lines=[f"line {value}"], data={"token": value})
        await asyncio.sleep(0.05)
        ref = await execution.spill(f"all of {value}".encode(), "x.txt", "text/plain")
        data = inline({"v": value, "r": ref.uri})
        if execution.attempt == 1:
            return Failed(error=f"bad {value}", stderr=value, output=[value], data=data)
        return Completed(output=[value], stderr=value, data=data)

    await hall.worker(Doing(body), secrets=Secrets({"GBE_SECRET_API_TOKEN": secret})).start()
    spy: list[bytes] = []
    await hall.transport.listen(["gbe.>"], lambda subject, body: spy.append(body))
    task = hall.task(params={"TOKEN": SecretRef("api-token")}, max_retries=1, retry=QUICK)
    await hall.queue(task)
    (ended,) = await hall.ends()
    assert ended.outcome.output == ["***"]
    assert ended.outcome.data.decoded()["v"] == "***"
    assert any(message.message == "using ***" for message in hall.progress)
    assert any("***" in message.message for message in hall.progress if message.kind is ProgressKind.RETRY)
    assert not [body for body in spy if secret.encode() in body]
    artifacts = await hall.transport.artifact_store(ARTIFACT_STORE)
    (*_, key) = await artifacts.keys(hall.job_id)
    assert await artifacts.read(key, limit=100) == b"all of ***"


# --- progress and work directories ---


async def test_progress_of_a_task_that_takes_longer(hall: Hall) -> None:
    async def body(execution: Execution) -> TaskOutcome:
        execution.progress("early")
        execution.progress(kind=ProgressKind.OUTPUT, lines=["one"])
        await asyncio.sleep(0.1)
        execution.progress("late", kind=ProgressKind.STEP, data={"step": 2})
        execution.progress(kind=ProgressKind.OUTPUT, lines=["two"])
        return Completed()

    await hall.worker(Doing(body)).start()
    await hall.queue(hall.task())
    (ended,) = await hall.ends()
    kinds = [message.kind for message in hall.progress]
    assert kinds[0] is ProgressKind.STARTED
    # Not when it is said: of a task that is cancelled, nothing else tells how long it took.
    assert hall.progress[0].at == ended.started_at
    assert [message.message for message in hall.progress if message.message] == ["early", "late"]
    assert [line for message in hall.progress for line in message.lines] == ["one", "two"]


async def test_chatter_is_bounded_and_counted(hall: Hall) -> None:
    async def body(execution: Execution) -> TaskOutcome:
        for number in range(50):
            for _ in range(400):  # more than one message holds, already before the first one is sent
                execution.progress(kind=ProgressKind.OUTPUT, lines=[f"line {number} " + "x" * 100])
            execution.progress(f"step {number}")
            await asyncio.sleep(0.01)
        return Completed()

    await hall.worker(Doing(body)).start()
    began = time.monotonic()
    await hall.queue(hall.task())
    await hall.ends()
    windows = int(time.monotonic() - began) + 2  # of a second each; the first and the last may be cut
    assert len(hall.progress) <= 10 * windows + 1  # and the start
    assert sum(len(encode(message)) for message in hall.progress) < (windows + 1) * 64 * 1024
    lines = sum(len(message.lines) for message in hall.progress)
    omitted = sum(message.omitted for message in hall.progress)
    assert omitted > 0
    assert lines + omitted <= 20_050


async def test_each_attempt_has_a_directory_of_its_own(hall: Hall) -> None:
    seen: list[Path] = []

    async def body(execution: Execution) -> TaskOutcome:
        (execution.work_dir / "sub").mkdir()
        (execution.work_dir / "sub" / "file").write_text("x")
        (execution.work_dir / "sub").chmod(0o500)
        seen.append(execution.work_dir)
        assert execution.work_dir.stat().st_mode & 0o777 == 0o700
        await asyncio.sleep(0)
        return Completed()

    worker = hall.worker(Doing(body))
    await worker.start()
    await hall.queue(hall.task(), hall.task())
    await hall.ends(2)
    await hall.until(lambda: not any(path.exists() for path in seen))
    assert len(set(seen)) == 2
    await worker.stop()
    assert not seen[0].parent.exists()


# --- the lifecycle every role has ---


class TestOperativeLifecycle(LifecycleContract):
    cycles = 30

    @pytest.fixture
    async def make_role(self, hall: Hall, monkeypatch: pytest.MonkeyPatch) -> MakeRole:
        monkeypatch.setattr(bus_role, "PATIENCE_PAUSE", 0.01)

        async def make() -> Role:
            return Worker(hall.transport, CompositeOperative([MockOperative(("a",)), MockOperative(("b",))]))

        return make
