"""O1-O5, O10: an Oracle on a bus, with a scripted Operative."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw, json

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.edges import Inline, Ref, inline
from gbe_jobs_domain.ids import new_job_id, task_id
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_jobs_domain.payloads import (
    JobCancelRequested,
    JobSubmitted,
    Parent,
    TaskControl,
    TaskEnded,
    TaskQueued,
)
from gbe_nexus import Outgoing, PayloadDecoder, Stream, Transport, encode_payload
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import DIAMOND, FAN, LINE, QUICK, Edges, Events, Script, definition, history_of, records_of


async def submit(bus: Transport, job: JobDefinition, job_id: str | None = None, **more: object) -> str:
    """Submit under an id of our own."""
    job_id = job_id or new_job_id()
    message = JobSubmitted(job_id, job.job_type, job.org, Raw(json.encode(job)), **more)  # type: ignore[arg-type]
    event_id = f"{job_id}:submit"
    await bus.publish(subjects.submit(job.job_type), encode_payload(event_id, message))
    return job_id


async def cancel(bus: Transport, job_id: str, reason: str = "enough") -> None:
    await bus.publish(subjects.cancel("test"), encode_payload(f"{job_id}:cancel", JobCancelRequested(job_id, reason)))


@pytest.mark.parametrize("edges", [LINE, DIAMOND, FAN])
async def test_a_job_runs_each_task_once_and_ends_once(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, edges: Edges
) -> None:
    await script.start()
    job_id = await oracle.submit(definition(edges))
    assert await events.end(job_id) == "completed"
    assert events.names(job_id) == ["created", "completed"]
    assert script.queued == dict.fromkeys(edges, 1)
    summary = await history_of(bus, job_id)
    assert [(t.name, t.state, t.attempts) for t in summary.tasks] == [(name, "completed", 1) for name in edges]


async def test_edge_data_travels_unopened_to_those_that_name_it(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    value = b'{"url": "https://x",   "count": 42}'  # the blanks must survive: nobody on the way decodes this
    script.answers["a"] = Completed(data=Inline(Raw(value)))
    tasks = [
        TaskDefinition("a", "noop"),
        TaskDefinition("b", "noop", depends_on=["a"], input_from={"U": "a.url", "W": "a"}, params={"x": "1"}),
        TaskDefinition("c", "noop", depends_on=["a"]),
    ]
    await events.end(await oracle.submit(JobDefinition("test", "test", tasks)))
    got = script.tasks["b"]
    assert got.inputs["a"] == Inline(Raw(value))
    assert (got.input_from, got.params) == ({"U": "a.url", "W": "a"}, {"x": "1"})
    assert script.tasks["c"].inputs == {}


async def test_the_first_failure_fails_the_job_with_the_tasks_own_error(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"c"}
    script.answers["b"] = Failed("boom", exit_code=7)
    told: list[TaskControl] = []
    control = PayloadDecoder(TaskControl)
    await bus.listen(["gbe.tasks.*.control"], lambda _, body: told.append(control.decode(body).data))
    await script.start()
    job_id = await oracle.submit(definition(DIAMOND))
    assert await events.end(job_id) == "failed"
    body = events.bodies[job_id, "failed"]
    assert (body["error"], body["failed_task"], body["failed_task_id"]) == ("boom", "b", task_id(job_id, 1))
    assert "d" not in script.queued
    assert [(t.job_id, t.kind.value) for t in told] == [(job_id, "cancel")]
    summary = await history_of(bus, job_id)
    assert [t.state for t in summary.tasks] == ["completed", "failed", "cancelled", "cancelled"]
    await script.release("c")  # the sibling's late report changes nothing
    assert events.names(job_id) == ["created", "failed"]


async def test_without_fail_fast_the_job_fails_when_nothing_more_can_go_on(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"c"}
    script.answers["b"] = Failed("boom", exit_code=7)
    told: list[bytes] = []
    await bus.listen(["gbe.tasks.*.control"], lambda _, body: told.append(body))
    await script.start()
    edges: Edges = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["c"]}
    job_id = await oracle.submit(definition(edges, fail_fast=False))
    await script.until(lambda: "c" in script.held)
    await script.release("c")
    assert await events.end(job_id) == "failed"
    body = events.bodies[job_id, "failed"]
    assert (body["error"], body["failed_task"]) == ("boom", "b")
    summary = await history_of(bus, job_id)
    assert [(t.name, t.state) for t in summary.tasks] == [
        ("a", "completed"),
        ("b", "failed"),
        ("c", "completed"),
        ("d", "cancelled"),
        ("e", "completed"),
    ]
    assert not told, "nothing that runs is ended"


async def test_another_oracle_ends_a_job_that_went_on_after_a_failure(
    bus: Transport, script: Script, events: Events
) -> None:
    script.hold = {"b"}
    script.answers["a"] = Failed("boom")
    await script.start()
    first = BusOracle(bus, QUICK)
    await first.start()
    job_id = await first.submit(definition({"a": [], "b": [], "c": ["b"]}, fail_fast=False))
    await script.until(lambda: "b" in script.held)
    while not any(record.outcomes for record in await records_of(bus, job_id)):
        await asyncio.sleep(0.01)
    await first.stop()
    second = BusOracle(bus, QUICK)
    await second.start()
    await script.release("b")
    assert await events.end(job_id) == "failed"
    assert events.bodies[job_id, "failed"]["error"] == "boom"
    assert script.queued == {"a": 1, "b": 1, "c": 1}
    await second.stop()


async def test_cancel_ends_a_running_job_with_the_reason(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"a"}
    await script.start()
    job_id = await oracle.submit(definition(LINE))
    await script.until(lambda: "a" in script.held)
    await cancel(bus, job_id)
    assert await events.end(job_id) == "cancelled"
    assert events.bodies[job_id, "cancelled"]["reason"] == "enough"
    await cancel(bus, job_id)  # of a job that is over: no event
    other = await oracle.submit(definition({"x": []}))
    await events.end(other)
    assert events.names(job_id) == ["created", "cancelled"]


async def test_a_cancel_before_its_submit_leaves_a_tombstone(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    job_id = new_job_id()
    await cancel(bus, job_id, "changed my mind")
    await submit(bus, definition(LINE), job_id)
    assert await events.end(job_id) == "cancelled"
    assert events.names(job_id) == ["created", "cancelled"]
    assert events.bodies[job_id, "cancelled"]["reason"] == "changed my mind"
    assert not script.queued


async def test_the_same_submit_again_is_the_same_job(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """O10: while running, when finished, and after the purge."""
    script.hold = {"b"}
    await script.start()
    job_id = await submit(bus, definition(LINE))
    await script.until(lambda: "b" in script.held)
    await submit(bus, definition(LINE), job_id)
    await script.release("b")
    assert await events.end(job_id) == "completed"
    await submit(bus, definition(LINE), job_id)
    journal = await bus.journal(streams.JOURNAL)
    async with asyncio.timeout(5):
        while await journal.last(subjects.journal("*", job_id)) is not None:
            await oracle.tick()
    await submit(bus, definition(LINE), job_id)
    await events.end(await oracle.submit(definition({"x": []})))
    assert events.names(job_id) == ["created", "completed"]
    assert script.queued == {"a": 1, "b": 1, "c": 1, "x": 1}


@pytest.mark.parametrize("finished", [False, True])
async def test_the_same_id_with_another_definition_is_refused(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, finished: bool
) -> None:
    script.hold = set() if finished else {"a"}
    await script.start()
    job_id = await submit(bus, definition(LINE))
    if finished:
        await events.end(job_id)
    else:
        await script.until(lambda: "a" in script.held)
    await submit(bus, definition(DIAMOND), job_id)
    async with asyncio.timeout(5):
        while (job_id, "refused") not in events.bodies:
            await asyncio.sleep(0)
    assert "another definition" in str(events.bodies[job_id, "refused"]["reason"])


async def test_reports_about_nothing_are_counted_and_let_go(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """O5."""
    await script.start()
    ghosts = [
        TaskEnded(task_id(job, index), job, "test", "x", "noop", 1, "w", 1, 2, Completed())
        for job, index in (("job_nobody", 0), ("job_nobody", 7))
    ]
    ghosts.append(TaskEnded("task_else_0", "job_nobody", "test", "x", "noop", 1, "w", 1, 2, Completed()))
    await bus.publish_many([Outgoing(subjects.terminal("noop"), encode_payload("g", g)) for g in ghosts])
    await events.end(await oracle.submit(definition(LINE)))
    assert oracle.load()["ignored"] == 3


async def test_an_undecodable_message_is_dead_lettered_and_the_rest_flows(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    letters: list[bytes] = []
    await bus.listen(["gbe._deadletter.>"], lambda _, body: letters.append(body))
    bad = [b"\xff\x00", b"{}", encode_payload("x", {"job_id": "job_a.*"})]
    bad.append(encode_payload("x", {"job_id": "job_1", "job_type": "other", "definition": {}}))
    for body in bad:
        await bus.publish(subjects.submit("test"), body)
    await bus.publish(subjects.terminal("noop"), b"not json")
    assert await events.end(await oracle.submit(definition(LINE))) == "completed"
    async with asyncio.timeout(5):
        while len(letters) < 5:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"name": "x", "job_type": "test", "tasks": []}, "at least one task"),
        ({"name": "x", "job_type": "test"}, "tasks"),
        ({"name": "x", "job_type": "else", "tasks": [{"name": "a", "task_type": "noop"}]}, "job type"),
        (
            {"name": "x", "job_type": "test", "tasks": [{"name": "a", "task_type": "noop", "depends_on": ["a"]}]},
            "cycl",
        ),
    ],
)
async def test_a_definition_that_is_none_is_refused_with_the_reason(
    bus: Transport, oracle: BusOracle, events: Events, document: object, text: str
) -> None:
    job_id = new_job_id()
    message = JobSubmitted(job_id, "test", "org_default", Raw(json.encode(document)))
    await bus.publish(subjects.submit("test"), encode_payload("s", message))
    assert await events.end(job_id) == "refused"
    assert text in str(events.bodies[job_id, "refused"]["reason"]).lower()


async def test_a_full_stream_refuses_new_jobs_and_says_so(bus: Transport, script: Script, events: Events) -> None:
    role = BusOracle(bus, QUICK)
    await role.start()
    assert role._engine is not None
    role._engine.refusing = "stream GBE_QUEUE is 83% full"
    job_id = await submit(bus, definition(LINE))
    assert await events.end(job_id) == "refused"
    assert "83%" in str(events.bodies[job_id, "refused"]["reason"])
    await role.stop()


async def test_nothing_is_left_of_finished_jobs(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    jobs = [await oracle.submit(definition(DIAMOND)) for _ in range(20)]
    for job_id in jobs:
        await events.end(job_id)
    journal = await bus.journal(streams.JOURNAL)
    async with asyncio.timeout(10):
        while await journal.subjects("gbe.journal.>") or (await bus.stream_state(streams.INBOX)).messages:
            await asyncio.sleep(0.05)  # the ticks of the Oracle do it
    assert oracle.load()["live_jobs"] == 0


async def test_inputs_too_large_for_one_message_travel_as_references(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """P15: five inputs of 250 kB into one task."""
    await script.start()
    names = [f"p{i}" for i in range(5)]
    for name in names:
        script.answers[name] = Completed(data=inline(name * 125_000))
    join = TaskDefinition("join", "noop", depends_on=names, input_from={n.upper(): n for n in names})
    tasks = [*(TaskDefinition(n, "noop") for n in names), join]
    job_id = await oracle.submit(JobDefinition("test", "test", tasks))
    assert await events.end(job_id) == "completed"
    got = script.tasks["join"].inputs
    kinds = [type(got[name]) for name in names]
    assert Ref in kinds
    store = await bus.artifact_store("gbe-artifacts")
    for name, edge in got.items():
        text = edge.value if isinstance(edge, Inline) else await store.read(edge.key, limit=1 << 20)
        assert json.decode(text) == name * 125_000
        assert isinstance(edge, Inline) or edge.key.startswith(job_id + "/")


async def test_params_too_large_for_any_message_fail_the_task_in_words(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    fat = TaskDefinition("fat", "noop", params={"TEXT": "x" * 1_100_000})
    job_id = await oracle.submit(JobDefinition("test", "test", [fat]))
    assert await events.end(job_id) == "failed"
    error = (await history_of(bus, job_id)).error
    assert error.startswith(
        "the task could not be queued: task 'fat': params of 1,100,011 bytes in a message of 1,100,"
    )
    assert error.endswith("the limit is 1,048,576; store large values and pass references (params named *_ref)")


async def test_schemas_reach_the_operative_as_they_were_written(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    schema = {"type": "object", "properties": {"ß": {"multipleOf": 0.1}}}
    task = TaskDefinition("t", "noop", input_schema={"minProperties": 1}, output_schema=schema)
    job_id = await oracle.submit(JobDefinition("test", "test", [task]))
    assert await events.end(job_id) == "completed"
    assert bytes(script.tasks["t"].output_schema or b"") == json.encode(schema)
    assert bytes(script.tasks["t"].input_schema or b"") == b'{"minProperties":1}'


async def test_a_definition_by_reference_runs_like_any_other(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    tasks = [TaskDefinition(f"t{i}", "noop", params={"p": "x" * 2000}) for i in range(400)]
    job_id = await oracle.submit(JobDefinition("test", "test", tasks))
    assert await events.end(job_id) == "completed"
    assert len(script.queued) == 400
    assert script.tasks["t399"].params == {"p": "x" * 2000}
    summary = await history_of(bus, job_id)
    assert summary.definition_ref is not None


async def test_evicted_outcomes_are_read_from_the_journal(bus: Transport, script: Script, events: Events) -> None:
    role = BusOracle(bus, QUICK)
    await role.start()
    assert role._engine is not None
    role._engine._cache._limit = 1000  # room for about three
    await script.start()
    names = [f"t{i}" for i in range(50)]
    join = TaskDefinition("join", "noop", depends_on=names, input_from={n.upper(): n for n in names})
    tasks = [*(TaskDefinition(n, "noop") for n in names), join]
    job_id = await role.submit(JobDefinition("test", "test", tasks))
    assert await events.end(job_id) == "completed"
    assert len(script.tasks["join"].inputs) == 50
    summary = await history_of(bus, job_id)
    assert all(task.outcome is not None for task in summary.tasks)
    await role.stop()


async def test_a_history_that_is_large_goes_by_reference(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    for i in range(8):
        script.answers[f"t{i}"] = Completed(output=["y" * 100_000])
    job_id = await oracle.submit(definition({f"t{i}": [] for i in range(8)}))
    await events.end(job_id)
    summary = await history_of(bus, job_id)
    assert summary.tasks == []
    assert summary.tasks_ref is not None
    store = await bus.artifact_store("gbe-artifacts")
    assert len(json.decode(await store.read(summary.tasks_ref.key, limit=4 << 20))) == 8


class TestChildJobs:
    """A task may be a job of its own: the Oracle that ends the child reports the task's end."""

    @staticmethod
    async def parent_with_child(bus: Transport, oracle: BusOracle, script: Script) -> tuple[str, str]:
        script.hold = {"a", "inner"}
        await script.start()
        job_id = await oracle.submit(definition({"a": [], "b": ["a"]}))
        await script.until(lambda: "a" in script.held)
        parent = Parent(job_id, task_id(job_id, 0), "test", "noop", "a", 1)
        child = await submit(bus, definition({"inner": []}), "job_child" + job_id[-8:], parent=parent, depth=1)
        script.held.pop("a").ack()  # the Operative lets go of the outer task
        await script.until(lambda: "inner" in script.held)
        return job_id, child

    async def test_the_childs_results_are_the_outer_tasks_data(
        self, bus: Transport, oracle: BusOracle, script: Script, events: Events
    ) -> None:
        job_id, child = await self.parent_with_child(bus, oracle, script)
        await script.release("inner")
        assert await events.end(job_id) == "completed"
        assert events.names(child) == ["created", "completed"]
        summary = await history_of(bus, job_id)
        outcome = json.decode(bytes(summary.tasks[0].outcome or b""), type=Completed)
        assert isinstance(outcome.data, Inline)
        assert outcome.data.decoded() == {"inner": {"name": "inner"}}

    async def test_the_childs_failure_is_the_outer_tasks(
        self, bus: Transport, oracle: BusOracle, script: Script, events: Events
    ) -> None:
        """P11: inner failure 7 "boom" → outer failed 7 "boom"."""
        script.answers["inner"] = Failed("boom", exit_code=7)
        job_id, child = await self.parent_with_child(bus, oracle, script)
        await script.release("inner")
        assert await events.end(job_id) == "failed"
        summary = await history_of(bus, job_id)
        assert summary.error == "boom"
        failed = json.decode(bytes(summary.tasks[0].outcome or b""), type=Failed)
        assert (failed.error, failed.kind, failed.exit_code) == ("boom", FailureKind.ERROR, 7)
        assert isinstance(failed.data, Inline)
        assert failed.data.decoded() == {"failed_step": "inner", "job_id": child}

    async def test_cancelling_the_outer_job_cancels_the_child(
        self, bus: Transport, oracle: BusOracle, script: Script, events: Events
    ) -> None:
        job_id, child = await self.parent_with_child(bus, oracle, script)
        await cancel(bus, job_id)
        assert await events.end(job_id) == "cancelled"
        assert await events.end(child) == "cancelled"

    async def test_a_child_that_comes_when_the_outer_job_is_over_is_cancelled(
        self, bus: Transport, oracle: BusOracle, script: Script, events: Events
    ) -> None:
        script.hold = {"a", "inner"}
        await script.start()
        job_id = await oracle.submit(definition({"a": []}))
        await script.until(lambda: "a" in script.held)
        await cancel(bus, job_id)
        await events.end(job_id)
        parent = Parent(job_id, task_id(job_id, 0), "test", "noop", "a", 1)
        child = await submit(bus, definition({"inner": []}), parent=parent)
        assert await events.end(child) == "cancelled"

    async def test_a_childs_deadline_fails_the_outer_task_as_a_timeout(
        self, bus: Transport, oracle: BusOracle, script: Script, events: Events
    ) -> None:
        script.hold = {"a", "inner"}
        await script.start()
        job_id = await oracle.submit(definition({"a": []}))
        await script.until(lambda: "a" in script.held)
        parent = Parent(job_id, task_id(job_id, 0), "test", "noop", "a", 1)
        child = await submit(bus, definition({"inner": []}), parent=parent, deadline_at=1)
        assert await events.end(child) == "failed"
        assert await events.end(job_id) == "failed"
        summary = await history_of(bus, job_id)
        assert json.decode(bytes(summary.tasks[0].outcome or b""), type=Failed).exit_code == 124


async def test_task_reported_takes_a_report_that_did_not_come_over_the_bus(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"a"}
    await script.start()
    job_id = await oracle.submit(definition({"a": []}))
    await script.until(lambda: "a" in script.held)
    await oracle.task_reported(
        TaskEnded(task_id(job_id, 0), job_id, "test", "a", "noop", 1, "direct", 1, 2, Completed())
    )
    assert await events.end(job_id) == "completed"


async def test_a_stop_hands_back_and_another_oracle_goes_on(bus: Transport, script: Script, events: Events) -> None:
    first = BusOracle(bus, QUICK)
    await first.start()
    script.hold = {"b"}
    await script.start()
    job_id = await first.submit(definition(LINE))
    await script.until(lambda: "b" in script.held)
    await first.stop()
    second = BusOracle(bus, QUICK)
    await second.start()
    await script.release("b")
    assert await events.end(job_id) == "completed"
    assert script.queued == {"a": 1, "b": 1, "c": 1}
    await second.stop()


async def test_a_small_job_overtakes_a_wide_fan_out(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    """O11 in small: the window keeps room in the queue (the time is measured in the benchmarks)."""
    await script.start()
    wide = await oracle.submit(definition({f"t{i}": [] for i in range(6000)}))
    await script.until(lambda: len(script.queued) > 100)
    small = await oracle.submit(definition({"small": []}))
    assert await events.end(small) == "completed"
    assert "completed" not in events.names(wide)
    assert await events.end(wide, 300) == "completed"
    assert max(script.queued.values()) == 1


async def test_a_stream_of_ones_own_is_not_touched(bus: Transport, oracle: BusOracle) -> None:
    await bus.ensure_stream(Stream("MINE", ("mine.>",)))
    await bus.publish("mine.x", b"1")
    await oracle.tick()
    assert (await bus.stream_state("MINE")).messages == 1


async def test_queue_messages_decode_as_the_protocol_says(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    await script.start()
    tasks = [
        TaskDefinition("a", "noop", params={"x": "1"}, timeout_secs=3, max_retries=2),
    ]
    job_id = await oracle.submit(JobDefinition("test", "test", tasks, org="org_acme"))
    await events.end(job_id)
    got = script.tasks["a"]
    assert got == TaskQueued(
        task_id(job_id, 0),
        job_id,
        "org_acme",
        "test",
        "a",
        "noop",
        params={"x": "1"},
        timeout_secs=3,
        max_retries=2,
        journal_seq=got.journal_seq,
    )
    assert got.journal_seq > 0
    assert (await records_of(bus, job_id)) == [] or got.journal_seq >= 1
