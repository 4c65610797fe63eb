"""What a review looked for and found: each of these lost an outcome, doubled a job, hung it, or ended the Oracle."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec import Raw, json, structs

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline, Ref, inline
from gbe_jobs_domain.ids import new_job_id, task_id
from gbe_jobs_domain.outcomes import Completed, Failed
from gbe_jobs_domain.payloads import JobCancelRequested, JobSubmitted, JobSummary, Parent, TaskEnded
from gbe_jobs_domain.records import JournalRecord
from gbe_nexus import (
    Answers,
    Journal,
    JournalEntry,
    NexusError,
    Outgoing,
    PermissionDenied,
    PubAck,
    Transport,
    encode_payload,
    now_ms,
)
from gbe_oracle.contract import OracleError
from gbe_oracle.engine import Engine
from gbe_oracle.faults import HASTY, KEEP, Fate, MortalBus, UnpinnedBus, bury, inherited, mortal_oracle, outcome_counts
from gbe_oracle.inbox import RECORD_NESTING
from gbe_oracle.oracle import BusOracle
from gbe_oracle.slots import Commit, Entry
from gbe_oracle.testing import (
    DIAMOND,
    FAN,
    LINE,
    QUICK,
    Events,
    Script,
    definition,
    history_of,
    records_of,
    report,
)


async def submit(bus: Transport, job: JobDefinition, job_id: str | None = None, **more: object) -> str:
    job_id = job_id or new_job_id()
    message = JobSubmitted(job_id, job.job_type, job.org, Raw(json.encode(job)), **more)  # type: ignore[arg-type]
    await bus.publish(subjects.submit(job.job_type), encode_payload(f"{job_id}:submit", message))
    return job_id


async def cancel(bus: Transport, job_id: str, reason: str = "enough", job_type: str = "test") -> None:
    await bus.publish(subjects.cancel(job_type), encode_payload("c", JobCancelRequested(job_id, reason)))


def engine_of(role: BusOracle) -> Engine:
    assert role._engine is not None
    return role._engine


async def eventually(condition: Callable[[], bool]) -> None:
    """For what no event tells of: a few turns of the loop at a time."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def pretend_finished(bus: Transport, job_id: str) -> None:
    """What another Oracle leaves that ended the job: a history and no journal."""
    body = JobSummary(job_id, "org_default", "test", "test", "completed", 1, 2, "sha")
    await bus.publish(subjects.history("test", job_id), encode_payload("h", body))
    await (await bus.journal(streams.JOURNAL)).purge(subjects.journal("test", job_id))


# --- reports -----------------------------------------------------------------------------------------


async def test_two_reports_of_one_task_in_one_read(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """After an outage, or when a task's first worker died after its report: both wait in the inbox."""
    script.hold = {"a"}
    await script.start()
    job_id = await oracle.submit(definition({"a": []}))
    await script.until(lambda: "a" in script.held)
    task = script.tasks["a"]
    await bus.publish_many([report(task, attempt=attempt) for attempt in (1, 2, 3)])
    assert await events.end(job_id) == "completed"
    assert (await history_of(bus, job_id)).tasks[0].attempts == 1
    await eventually(engine_of(oracle).idle)


async def test_two_failures_of_one_task_in_one_read(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"a"}
    await script.start()
    job_id = await oracle.submit(definition({"a": [], "b": []}))
    await script.until(lambda: "a" in script.held)
    await bus.publish_many([report(script.tasks["a"], Failed("boom"), attempt=attempt) for attempt in (1, 2)])
    assert await events.end(job_id) == "failed"
    assert (await history_of(bus, job_id)).error == "boom"
    await eventually(engine_of(oracle).idle)


@pytest.mark.parametrize(
    "outcome",
    [
        {"state": "completed", "data": 5},
        {"state": "completed", "data": {"kind": "inline"}},
        {"state": "exploded"},
        {"error": "no state"},
        {"state": "failed", "error": "x", "exit_code": "seven"},
        {"state": "completed", "data": {"kind": "inline", "value": json.decode("[" * 800 + "]" * 800)}},
        {"state": "completed", "of_a_later_version": json.decode("[" * 800 + "]" * 800)},
        [1],
    ],
)
@pytest.mark.parametrize("in_a_child", [False, True])
async def test_an_outcome_that_is_none_fails_its_task(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, outcome: object, in_a_child: bool
) -> None:
    """Nobody reports this task again: letting the message go would leave its job waiting for ever."""
    script.hold = {"a", "outer"}
    await script.start()
    parent = None
    if in_a_child:
        outer = await oracle.submit(definition({"outer": []}))
        await script.until(lambda: "outer" in script.held)
        parent = Parent(outer, task_id(outer, 0), "test", "noop", "outer", 1)
    reader = TaskDefinition("b", "noop", depends_on=["a"], input_from={"X": "a"})
    job_id = await submit(bus, JobDefinition("t", "test", [TaskDefinition("a", "noop"), reader]), parent=parent)
    await script.until(lambda: "a" in script.held)
    body = json.decode(report(script.tasks["a"]).payload)
    body["data"]["outcome"] = outcome
    await bus.publish(subjects.terminal("noop"), json.encode(body))
    assert await events.end(job_id) == "failed"
    assert "can't be read" in (await history_of(bus, job_id)).error
    if in_a_child:
        assert await events.end(outer) == "failed"
    assert oracle.failure is None


async def test_an_unknown_kind_of_failure_is_a_failure(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """Additions are free: a newer Operative may know more kinds."""
    script.hold = {"outer", "a"}
    await script.start()
    outer = await oracle.submit(definition({"outer": []}))
    await script.until(lambda: "outer" in script.held)
    parent = Parent(outer, task_id(outer, 0), "test", "noop", "outer", 1)
    await submit(bus, definition({"a": []}), parent=parent)
    await script.until(lambda: "a" in script.held)
    body = json.decode(report(script.tasks["a"], Failed("boom", exit_code=7)).payload)
    body["data"]["outcome"]["kind"] = "eaten"
    await bus.publish(subjects.terminal("noop"), json.encode(body))
    assert await events.end(outer) == "failed"
    tasks = (await history_of(bus, outer)).tasks
    assert json.decode(bytes(tasks[0].outcome or b""), type=Failed).exit_code == 7


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [600_000, 1_048_000])
async def test_a_huge_error_fails_the_job_like_a_small_one(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, size: int
) -> None:
    script.hold = {"a"}
    await script.start()
    job_id = await oracle.submit(definition({"a": []}))
    await script.until(lambda: "a" in script.held)
    message = report(script.tasks["a"], Failed("x" * size))
    room = bus.max_payload - len(message.payload)
    if room < 600:  # as large as the bus takes, with its headers
        message = report(script.tasks["a"], Failed("x" * (size + room - 200)))
    assert isinstance((await bus.publish_many([message]))[0], PubAck)
    assert await events.end(job_id) == "failed"
    assert len(str(events.bodies[job_id, "failed"]["error"])) < 20_000
    assert (await history_of(bus, job_id)).state == "failed"


async def test_a_huge_reason_cancels_like_a_small_one(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"a"}
    await script.start()
    job_id = await oracle.submit(definition(LINE))
    await script.until(lambda: "a" in script.held)
    await cancel(bus, job_id, "y" * 700_000)
    assert await events.end(job_id) == "cancelled"


async def test_results_of_a_child_too_large_for_one_message(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"outer"}
    await script.start()
    for name in ("a", "b", "c"):
        script.answers[name] = Completed(data=inline(name * 400_000))
    outer = await oracle.submit(definition({"outer": []}))
    await script.until(lambda: "outer" in script.held)
    parent = Parent(outer, task_id(outer, 0), "test", "noop", "outer", 1)
    child = await submit(bus, definition({"a": [], "b": [], "c": []}), parent=parent)
    assert await events.end(child) == "completed"
    assert await events.end(outer) == "completed"
    outcome = json.decode(bytes((await history_of(bus, outer)).tasks[0].outcome or b""), type=Completed)
    assert isinstance(outcome.data, Ref)
    assert outcome.data.key.startswith(outer + "/")
    store = await bus.artifact_store(ARTIFACT_STORE)
    results = json.decode(await store.read(outcome.data.key, limit=4 << 20))
    assert results == {name: name * 400_000 for name in ("a", "b", "c")}


async def test_many_wide_task_types_at_once_fit_into_records(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """A record queues a bounded number of tasks, whatever the windows would take."""
    tasks = [TaskDefinition("root", "noop")]
    tasks += [TaskDefinition(f"t{i}", f"type{i % 20}", depends_on=["root"]) for i in range(20_000)]
    await script.start()
    for number in range(20):
        await script.start(f"type{number}")
    job_id = await oracle.submit(JobDefinition("wide", "test", tasks))
    assert await events.end(job_id, 300) == "completed"
    assert all(len(record.dispatch) <= 8192 for record in await records_of(bus, job_id))
    assert len(script.queued) == len(tasks)


# --- what is in the journal ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"\xff", b"{}", encode_payload("x", {"writer": "w", "dispatch": [3]})], ids=["binary", "empty", "gap"]
)
async def test_an_unreadable_journal_harms_no_other_job(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, garbage: bytes
) -> None:
    script.hold = {"a"}
    await script.start()
    job_id = await oracle.submit(definition(LINE))
    await script.until(lambda: "a" in script.held)
    await bus.publish(subjects.journal("test", job_id), garbage)
    await script.release("a")  # the append meets a conflict: the journal is read
    await eventually(lambda: bool(oracle.load().get("unreadable")))
    assert await events.end(await oracle.submit(definition({"x": []}))) == "completed"
    assert oracle.failure is None


async def test_a_definition_that_is_gone_harms_no_other_job(bus: Transport, script: Script, events: Events) -> None:
    script.hold = {"a"}
    await script.start()
    first = BusOracle(bus, QUICK)
    await first.start()
    body = json.encode(definition(LINE))
    store = await bus.artifact_store(ARTIFACT_STORE)
    stored = await store.put("job_ref/definition.json", body)
    ref = Ref(ARTIFACT_STORE, stored.key, stored.size, stored.sha256)
    message = JobSubmitted("job_ref", "test", definition_ref=ref)
    await bus.publish(subjects.submit("test"), encode_payload("s", message))
    await script.until(lambda: "a" in script.held)
    await first.stop()
    await store.put("job_ref/definition.json", json.encode(definition({"other": []})))
    heir = BusOracle(bus, QUICK)
    await heir.start()
    await script.release("a")
    await eventually(lambda: bool(heir.load().get("unreadable")))
    assert await events.end(await heir.submit(definition({"x": []}))) == "completed"
    assert heir.failure is None
    await heir.stop()


async def test_a_definition_that_comes_a_moment_late(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """A member of a cluster may answer that has not heard of the artifact yet. Others do not wait for it."""
    await script.start()
    body = json.encode(definition(LINE))
    ref = Ref(ARTIFACT_STORE, "job_late/definition.json", len(body), hashlib.sha256(body).hexdigest())
    message = JobSubmitted("job_late", "test", definition_ref=ref)
    await bus.publish(subjects.submit("test"), encode_payload("s", message))
    assert await events.end(await oracle.submit(definition({"x": []}))) == "completed"
    assert not events.names("job_late")
    await (await bus.artifact_store(ARTIFACT_STORE)).put(ref.key, body)
    assert await events.end("job_late") == "completed"


async def test_an_error_where_the_bus_calls_back_fails_the_role(bus: Transport, script: Script) -> None:
    """There it would be logged, and the job would wait for ever."""
    role = BusOracle(bus, QUICK)
    await role.start()
    engine_of(role)._effects.build = lambda entry, outgoing: 1 // 0  # type: ignore[method-assign]
    await role.submit(definition(LINE))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(role.wait(), 5)
    await role.stop()


@pytest.mark.parametrize("value", [b"5", b'{"state":"completed","data":7}', b'{"state":"failed","error":"x"}'])
async def test_reuse_that_is_no_outcome_is_refused(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, value: bytes
) -> None:
    await script.start()
    reader = TaskDefinition("b", "noop", depends_on=["a"], input_from={"X": "a"})
    job = JobDefinition("t", "test", [TaskDefinition("a", "noop"), reader])
    job_id = await submit(bus, job, reuse={"a": Raw(value)})
    assert await events.end(job_id) == "refused"
    assert "'a'" in str(events.bodies[job_id, "refused"]["reason"])


async def test_reused_outcomes_feed_their_dependents(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    reader = TaskDefinition("b", "noop", depends_on=["a", "s"], input_from={"X": "a"})
    job = JobDefinition("t", "test", [TaskDefinition("a", "noop"), TaskDefinition("s", "noop"), reader])
    reuse = {
        "a": Raw(json.encode(Completed(data=inline("z" * 300_000)))),
        "s": Raw(b'{"state":"skipped","reason":"r"}'),
    }
    job_id = await submit(bus, job, reuse=reuse)
    assert await events.end(job_id) == "completed"
    assert script.queued == {"b": 1}
    assert script.tasks["b"].inputs["a"] == inline("z" * 300_000)
    assert [task.state for task in (await history_of(bus, job_id)).tasks] == ["completed", "skipped", "completed"]


async def test_an_outcome_as_deep_as_the_journal_takes_can_be_reused(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    levels = RECORD_NESTING - 2  # what is around the value
    value = Raw(b"[" * levels + b"]" * levels)
    job = definition({"a": [], "b": ["a"]})
    job_id = await submit(bus, job, reuse={"a": Raw(json.encode(Completed(data=Inline(value))))})
    assert await events.end(job_id) == "completed"
    assert script.queued == {"b": 1}
    job_id = await submit(bus, job, reuse={"a": Raw(json.encode(Completed(data=Inline(Raw(b"[%b]" % bytes(value))))))})
    assert await events.end(job_id) == "refused"


# --- several Oracles -----------------------------------------------------------------------------------


async def test_a_record_that_another_oracle_purged_needs_no_healing(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"b"}
    await script.start()
    job_id = await oracle.submit(definition(LINE))
    await script.until(lambda: "b" in script.held)
    await eventually(engine_of(oracle).idle)
    engine_of(oracle)._slots[job_id].settled.clear()  # as after a load
    await pretend_finished(bus, job_id)
    await bus.publish_many([report(script.tasks["a"], attempt=2)])
    await eventually(lambda: engine_of(oracle).live_jobs == 0 and engine_of(oracle).idle())
    assert engine_of(oracle)._cache._total == 0


async def test_effects_that_need_a_purged_record_are_not_waited_for(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"b"}
    await script.start()
    tasks = [TaskDefinition("a", "noop"), TaskDefinition("b", "noop", depends_on=["a"], input_from={"X": "a"})]
    job_id = await oracle.submit(JobDefinition("t", "test", tasks))
    await script.until(lambda: "b" in script.held)
    engine = engine_of(oracle)
    await eventually(engine.idle)
    slot = engine._slots[job_id]
    record = (await records_of(bus, job_id))[1]
    assert slot.job is not None
    seq = slot.job.seq
    engine._cache.forget(slot)
    slot.edges.clear()
    slot.settled.clear()
    read = engine._loader.record

    async def once(at: int) -> JournalRecord | None:
        await pretend_finished(bus, job_id)
        return record if at < 0 else await read(at)

    engine._loader.record = once  # type: ignore[assignment, method-assign]
    entry = Entry(slot, slot.job, record, 0, [])
    entry.seq = seq
    slot.inflight[seq] = []
    commit = Commit()
    commit.entries = [entry]
    engine._commits.add(commit)
    engine._issue(commit)
    await eventually(lambda: engine.live_jobs == 0 and engine.idle())


async def test_outcomes_evicted_while_others_are_read(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """A slow dispatch needs one outcome from memory, which is evicted while it reads another."""
    script.hold = {"c"}
    await script.start()
    tasks = [
        TaskDefinition("a", "noop"),
        TaskDefinition("b", "noop", depends_on=["a"]),
        TaskDefinition("c", "noop", depends_on=["a", "b"], input_from={"A": "a", "B": "b"}),
    ]
    engine = engine_of(oracle)
    read = engine._loader.record
    reads: list[int] = []

    async def evicting(seq: int) -> JournalRecord | None:
        reads.append(seq)
        slot = next(iter(engine._slots.values()))
        slot.outcomes.clear()
        return await read(seq)

    build = engine._effects.build

    def forgetful(entry: Entry, outgoing: list[Outgoing]) -> int | None:
        if 2 in entry.record.dispatch:
            entry.slot.outcomes.pop(0, None)
            entry.slot.edges.clear()
        return build(entry, outgoing)

    engine._loader.record = evicting  # type: ignore[method-assign]
    engine._effects.build = forgetful  # type: ignore[method-assign]
    job_id = await oracle.submit(JobDefinition("t", "test", tasks))
    await script.until(lambda: "c" in script.held)
    assert set(script.tasks["c"].inputs) == {"a", "b"}
    assert reads
    await script.release("c")
    assert await events.end(job_id) == "completed"
    assert oracle.failure is None


async def test_a_history_is_not_replaced_by_one_without_outcomes(
    bus: Transport, script: Script, events: Events
) -> None:
    """Two Oracles end one job; the slower one reads the journal when the other has purged it."""
    role = BusOracle(bus, QUICK)
    await role.start()
    engine = engine_of(role)
    engine._cache._limit = 1  # every history needs the journal read
    await script.start()
    record = engine._loader.record

    async def purged(seq: int) -> Any:
        await (await bus.journal(streams.JOURNAL)).purge(subjects.journal("*", "*"))
        return await record(seq)

    engine._loader.record = purged  # type: ignore[method-assign]
    job_id = await role.submit(definition(LINE))
    assert await events.end(job_id) == "completed"
    await eventually(lambda: engine.live_jobs == 0 and engine.idle())
    assert await (await bus.journal(streams.HISTORY)).last(subjects.history("*", job_id)) is None
    await role.stop()


class SlowJournal:
    """Its looks at the history take as long as they are told to."""

    def __init__(self, journal: Journal, gate: asyncio.Event, looking: asyncio.Event) -> None:
        self._journal = journal
        self._gate = gate
        self._looking = looking

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def last_many(self, subjects: Sequence[str]) -> dict[str, JournalEntry]:
        found = await self._journal.last_many(subjects)
        self._looking.set()
        await self._gate.wait()
        return found


class SlowBus(MortalBus):
    def __init__(self, bus: Transport) -> None:
        super().__init__(bus, Fate(10**9))
        self.gate = asyncio.Event()
        self.looking = asyncio.Event()

    async def journal(self, stream: str) -> Journal:
        journal = await self._bus.journal(stream)
        return SlowJournal(journal, self.gate, self.looking) if stream == streams.HISTORY else journal  # type: ignore[return-value]


async def test_a_late_first_record_does_not_run_a_finished_job_again(
    bus: Transport, script: Script, events: Events
) -> None:
    """An Oracle stopped between its look at the history and the append; meanwhile the job ends and is purged."""
    await script.start()
    slow = SlowBus(bus)
    sleeper = BusOracle(slow, HASTY)  # type: ignore[arg-type]
    await sleeper.start()
    job_id = await sleeper.submit(definition(LINE))
    await slow.looking.wait()
    engine_of(sleeper).held = lambda: ()  # type: ignore[method-assign]  # a stopped process renews nothing
    await bury(sleeper)
    heir = BusOracle(bus, QUICK)
    await heir.start()
    assert await events.end(job_id) == "completed"
    journal = await bus.journal(streams.JOURNAL)
    await history_of(bus, job_id)
    while await journal.last(subjects.journal("test", job_id)) is not None:
        await heir.tick()
    await asyncio.sleep(0.1)  # longer than the sleeper may trust what it saw
    slow.gate.set()
    await eventually(lambda: engine_of(sleeper).live_jobs == 0 and engine_of(sleeper).idle())
    await sleeper.tick()
    assert script.queued == {"a": 1, "b": 1, "c": 1}
    assert events.names(job_id) == ["created", "completed"]
    assert await journal.last(subjects.journal("test", job_id)) is None, "the late record is swept away"
    await sleeper.stop()
    await heir.stop()


async def test_created_comes_first_whatever_ends_the_job(bus: Transport, script: Script, events: Events) -> None:
    """O3: the writer of the first record dies before its effects; a cancel comes before the submit comes back."""
    fate = Fate(1)  # the append gets through, the publish does not
    victim = BusOracle(MortalBus(bus, fate), structs.replace(HASTY, ack_wait=1.0))  # type: ignore[arg-type]
    await victim.start()
    job_id = await victim.submit(definition(LINE))
    await fate.died.wait()
    await bury(victim)
    await cancel(bus, job_id)
    heir = BusOracle(bus, QUICK)
    await heir.start()
    assert await events.end(job_id) == "cancelled"
    assert events.names(job_id) == ["created", "cancelled"]
    await heir.stop()
    await victim.stop()


async def test_jobs_that_others_ended_are_let_go(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """An Oracle that stands by again would keep in memory for ever what it held when it was replaced."""
    script.hold = {"b"}
    await script.start()
    gone = await oracle.submit(definition(LINE))
    await script.until(lambda: "b" in script.held)
    await eventually(engine_of(oracle).idle)
    await pretend_finished(bus, gone)
    assert oracle._housekeeping is not None
    oracle._housekeeping._next_sweep = 0.0
    await eventually(lambda: engine_of(oracle).live_jobs == 0)
    assert engine_of(oracle)._cache._total == 0


class RefusingBus:
    """Nobody may queue tasks of the type `forbidden`."""

    def __init__(self, bus: Transport) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def publish_many(self, messages: Sequence[Outgoing]) -> Answers[PubAck | NexusError]:
        answers: Answers[PubAck | NexusError] = Answers()
        allowed = [m for m in messages if m.subject != subjects.queue("forbidden")]

        def merge(results: list[PubAck | NexusError]) -> None:
            rest = iter(results)
            answers.settle(
                [
                    PermissionDenied("not this one") if m.subject == subjects.queue("forbidden") else next(rest)
                    for m in messages
                ]
            )

        self._bus.publish_many(allowed).then(merge)
        return answers


@pytest.mark.parametrize("forbidden", [1, 3])
async def test_a_refused_dispatch_fails_the_job_even_if_the_oracle_dies(
    bus: Transport, script: Script, events: Events, forbidden: int
) -> None:
    """O6 for the record that nobody's message leads to: the refusal of the bus."""
    await script.start()
    tasks = [TaskDefinition("a", "noop")]
    tasks += [TaskDefinition(f"f{i}", "forbidden", depends_on=["a"]) for i in range(forbidden)]
    for at in range(40):
        fate = Fate(at)
        victim = BusOracle(MortalBus(RefusingBus(bus), fate), HASTY)  # type: ignore[arg-type]
        await victim.start()
        job_id = await victim.submit(JobDefinition("t", "test", tasks))
        async with inherited(RefusingBus(bus), fate, victim, events.end(job_id)) as end:  # type: ignore[arg-type]
            assert end == "failed", f"step {at}"
            summary = await history_of(bus, job_id)
            assert "could not be queued" in summary.error
            assert events.names(job_id) == ["created", "failed"]
        if not fate.dead:
            return
    raise AssertionError("it always died")


async def test_a_deadline_holds_even_if_the_oracle_dies(bus: Transport, script: Script, events: Events) -> None:
    """Nobody's message leads to the record of a deadline either."""
    script.hold = {"a"}
    await script.start()
    for at in range(40):
        fate = Fate(at)
        victim = await mortal_oracle(bus, fate)
        job_id = await submit(bus, definition({"a": []}), deadline_at=now_ms() + 20)
        async with inherited(bus, fate, victim, events.end(job_id)) as end:
            assert end == "failed", f"step {at}"
            await history_of(bus, job_id)
        if not fate.dead:
            return
    raise AssertionError("it always died")


async def test_a_standby_ends_what_was_decided_and_not_ended(bus: Transport, script: Script, events: Events) -> None:
    """Should a final record ever have nobody's message behind it: the sweep sees it."""
    script.hold = {"a"}
    await script.start()
    fate = Fate(10**9)
    victim = await mortal_oracle(bus, fate)
    job_id = await victim.submit(definition({"a": []}))
    await script.until(lambda: "a" in script.held)
    await eventually(engine_of(victim).idle)
    fate.left = 1
    await cancel(bus, job_id)
    await fate.died.wait()
    await bury(victim)
    inbox = await bus.stream_state(streams.INBOX)
    await bus.trim(streams.INBOX, inbox.last_seq + 1)  # as if it had been acknowledged
    heir = BusOracle(bus, KEEP)
    await heir.start()
    assert await events.end(job_id) == "cancelled"
    assert (await history_of(bus, job_id)).state == "cancelled"
    await heir.stop()
    await victim.stop()


# --- odd messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task_name", ["", "not a name", "x" * 1000])
@pytest.mark.parametrize("attempt", [-3, 0])
async def test_a_parent_that_says_little_gets_its_report(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, task_name: str, attempt: int
) -> None:
    script.hold = {"outer"}
    await script.start()
    outer = await oracle.submit(definition({"outer": []}))
    await script.until(lambda: "outer" in script.held)
    parent = Parent(outer, task_id(outer, 0), "test", "noop", task_name, attempt)
    await submit(bus, definition({"inner": []}), parent=parent)
    assert await events.end(outer) == "completed"


async def test_a_refused_child_fails_the_outer_task(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"outer"}
    await script.start()
    outer = await oracle.submit(definition({"outer": []}))
    await script.until(lambda: "outer" in script.held)
    await submit(bus, JobDefinition("t", "test", []), parent=Parent(outer, task_id(outer, 0), "test", "noop"))
    assert await events.end(outer) == "failed"


async def test_a_job_that_is_its_own_parent_ends(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"a"}
    await script.start()
    job_id = new_job_id()
    parent = Parent(job_id, task_id(job_id, 0), "test", "noop", "a", 1)
    await submit(bus, definition({"a": []}), job_id, parent=parent)
    await script.until(lambda: "a" in script.held)
    await script.release("a")
    assert await events.end(job_id) == "completed"
    await eventually(lambda: engine_of(oracle).idle() and engine_of(oracle).live_jobs == 0)


@pytest.mark.parametrize("index", [0, 10**20])
async def test_a_child_of_nobody_runs(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, index: int
) -> None:
    await script.start()
    parent = Parent("job_ghost", task_id("job_ghost", index), "test", "noop", "a", 1)
    job_id = await submit(bus, definition(LINE), parent=parent)
    assert await events.end(job_id) == "completed"
    await eventually(lambda: engine_of(oracle).idle() and engine_of(oracle).live_jobs == 0)


async def test_a_message_that_names_the_wrong_job_type_takes_nothing_with_it(
    bus: Transport, script: Script, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The wrong cancel leaves a tombstone, which keeps the journal from being cut off.
    monkeypatch.setattr("gbe_oracle.housekeeping.STRAGGLER_AGE", 0.0)
    script.hold = {"a"}
    await script.start()
    first = BusOracle(bus, QUICK)
    await first.start()
    job_id = await first.submit(definition(LINE))
    await script.until(lambda: "a" in script.held)
    await first.stop()
    await cancel(bus, job_id, job_type="other")
    await script.release("a")
    heir = BusOracle(bus, QUICK)
    await heir.start()
    assert await events.end(job_id) == "completed"
    await eventually(lambda: engine_of(heir).idle() and engine_of(heir).live_jobs == 0)
    await heir.stop()


async def test_the_same_submit_is_not_refused_because_there_is_no_room_for_new_jobs(
    bus: Transport, script: Script, events: Events
) -> None:
    script.hold = {"a"}
    await script.start()
    first = BusOracle(bus, QUICK)
    await first.start()
    job_id = await submit(bus, definition(LINE))
    await script.until(lambda: "a" in script.held)
    await first.stop()
    heir = BusOracle(bus, structs.replace(QUICK, tick_interval=60.0))
    await heir.start()
    engine_of(heir).refusing = "full"
    await submit(bus, definition(LINE), job_id)
    await script.release("a")
    assert await events.end(job_id) == "completed"
    await heir.stop()


async def test_a_deadline_in_the_past_fails_the_job(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = set(FAN)
    await script.start()
    job_id = await submit(bus, definition(FAN), deadline_at=1)
    assert await events.end(job_id) == "failed"
    assert events.names(job_id) == ["created", "failed"]


# --- stopping ------------------------------------------------------------------------------------------


async def test_task_reported_says_when_it_could_not(bus: Transport, script: Script, events: Events) -> None:
    """Returning means: in the journal, with its effects out."""
    script.hold = {"a"}
    await script.start()
    fate = Fate(10**9)
    role = await mortal_oracle(bus, fate)
    job_id = await role.submit(definition({"a": []}))
    await script.until(lambda: "a" in script.held)
    await eventually(engine_of(role).idle)
    ended = TaskEnded(task_id(job_id, 0), job_id, "test", "a", "noop", 1, "direct", 1, 2, Completed())
    fate.left = 0  # its next append is never answered
    reported = asyncio.ensure_future(role.task_reported(ended))
    await fate.died.wait()
    await role.stop()
    with pytest.raises(OracleError):
        await asyncio.wait_for(reported, 5)
    with pytest.raises(OracleError):
        await asyncio.wait_for(role.task_reported(ended), 5)


async def test_a_stop_does_not_wait_when_nothing_is_left_to_do(bus: Transport, script: Script) -> None:
    role = BusOracle(bus, structs.replace(QUICK, stop_grace=60.0))
    await role.start()
    await bus.publish(subjects.submit("test"), b"garbage")
    await bus.publish(subjects.submit("test"), encode_payload("s", JobSubmitted("job_x", "test", definition=Raw(b"1"))))
    await eventually(lambda: bool(role.load().get("refused")))
    await asyncio.wait_for(role.stop(), 5)


async def test_two_oracles_and_reports_sent_twice(bus: Transport, script: Script, events: Events) -> None:
    """Each report three times over, in any batch, on two Oracles without affinity."""
    await script.start()
    roles = [BusOracle(UnpinnedBus(bus), KEEP) for _ in range(2)]  # type: ignore[arg-type]
    for role in roles:
        await role.start()
    answer = script._answer

    async def thrice(ready: Any) -> None:
        await bus.publish_many([report(task, attempt=attempt) for _, task in ready for attempt in (1, 2, 3)])
        for message, _ in ready:
            message.ack()

    script._answer = thrice  # type: ignore[method-assign]
    jobs = [await roles[0].submit(definition(DIAMOND)) for _ in range(10)]
    for job_id in jobs:
        assert await events.end(job_id) == "completed"
        assert sorted(await outcome_counts(bus, job_id)) == [0, 1, 2, 3]
    await eventually(lambda: all(engine_of(role).idle() for role in roles))
    script._answer = answer  # type: ignore[method-assign]
    for role in roles:
        await role.stop()
