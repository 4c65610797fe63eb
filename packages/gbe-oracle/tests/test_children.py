"""A task that is let go of: its child's end is its own, or brings its next attempt; whoever dies in between."""

from __future__ import annotations

import itertools

import pytest
from msgspec import Raw, json, structs

from gbe_jobs_domain import subjects
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.edges import inline
from gbe_jobs_domain.ids import task_id
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, TaskOutcome
from gbe_jobs_domain.payloads import JobSubmitted, Parent, encode
from gbe_nexus import Transport, encode_payload
from gbe_oracle.faults import Fate, inherited, mortal_oracle
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import Events, Script, definition, history_of, records_of


async def let_go(bus: Transport, script: Script, job_id: str, child: str, *, retries: int = 0) -> None:
    """As the molecule Operative does: submit the child, acknowledge without a report."""
    await script.until(lambda: "a" in script.held)
    task = script.tasks["a"]
    attempt = task.retry_count + 1
    job = JobDefinition("inner", "inner", [TaskDefinition("inner", "noop")], output="inner.name")
    submit = JobSubmitted(
        child,
        "inner",
        definition=Raw(json.encode(job)),
        parent=Parent(job_id, task_id(job_id, 0), "test", "noop", "a", attempt),
        depth=1,
        again=Raw(encode(structs.replace(task, retry_count=attempt))) if attempt <= retries else None,
    )
    await bus.publish(subjects.submit("inner"), encode_payload(f"{child}:submit", submit), msg_id=f"{child}:submit")
    script.held.pop("a").ack()


@pytest.mark.parametrize("kind", [FailureKind.ERROR, FailureKind.TIMEOUT])
async def test_a_failed_child_brings_the_next_attempt(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, kind: FailureKind
) -> None:
    script.hold = {"a"}
    script.answers["inner"] = Failed("boom", kind, 7)
    await script.start()
    job_id = await oracle.submit(definition({"a": []}))
    await let_go(bus, script, job_id, "job_c1", retries=1)
    assert await events.end("job_c1") == "failed"
    script.answers["inner"] = Completed(data=inline({"name": "second"}))
    await let_go(bus, script, job_id, "job_c2", retries=1)
    assert await events.end(job_id) == "completed"
    summary = await history_of(bus, job_id)
    assert json.decode(bytes(summary.tasks[0].outcome or b""))["data"]["value"] == "second"
    assert (summary.children, summary.tasks[0].attempts) == ({"a": "job_c2"}, 2)


@pytest.mark.parametrize(
    ("outcome", "retries"),
    [
        (Failed("no", FailureKind.REJECTED), 3),
        (Failed("gone", FailureKind.LOST), 3),
        (Failed("boom", exit_code=7), 0),
    ],
)
async def test_what_another_attempt_would_not_mend_is_reported(
    bus: Transport, oracle: BusOracle, script: Script, events: Events, outcome: TaskOutcome, retries: int
) -> None:
    script.hold = {"a"}
    script.answers["inner"] = outcome
    await script.start()
    job_id = await oracle.submit(definition({"a": []}))
    await let_go(bus, script, job_id, "job_c1", retries=retries)
    assert await events.end(job_id) == "failed"
    assert script.queued["a"] == 1


async def test_a_child_that_is_cancelled_by_itself_is_not_repeated(
    bus: Transport, oracle: BusOracle, script: Script, events: Events
) -> None:
    script.hold = {"a", "inner"}
    await script.start()
    job_id = await oracle.submit(definition({"a": []}))
    await let_go(bus, script, job_id, "job_c1", retries=3)
    await script.until(lambda: "inner" in script.held)
    from gbe_jobs_domain.payloads import JobCancelRequested

    await bus.publish(subjects.cancel("inner"), encode_payload("c", JobCancelRequested("job_c1", "enough")))
    assert await events.end("job_c1") == "cancelled"
    assert await events.end(job_id) in ("failed", "cancelled")
    assert script.queued["a"] == 1


@pytest.mark.parametrize("partly", [False, True])
async def test_death_between_any_two_steps(bus: Transport, script: Script, events: Events, partly: bool) -> None:
    """O6 with a child that fails and one that follows it: each outcome once, and no attempt more or less."""
    await script.start()
    for at in itertools.count():
        script.queued.clear()
        script.held.clear()
        script.hold = {"a"}
        first, second = f"job_c{at}x1{partly}", f"job_c{at}x2{partly}"
        script.answers["inner"] = Failed("boom")
        fate = Fate(at, partly)
        victim = await mortal_oracle(bus, fate)
        job_id = await victim.submit(definition({"a": []}))

        async def both(job_id: str = job_id, first: str = first, second: str = second) -> str:
            await let_go(bus, script, job_id, first, retries=1)
            await events.end(first)
            script.answers["inner"] = Completed(data=inline({"name": "x"}))
            await let_go(bus, script, job_id, second, retries=1)
            return await events.end(job_id)

        async with inherited(bus, fate, victim, both()) as end:
            assert end == "completed", f"step {at}"
            summary = await history_of(bus, job_id)
            assert (summary.children, summary.tasks[0].attempts) == ({"a": second}, 2), f"step {at}"
            assert events.names(first) == ["created", "failed"]
            assert events.names(second) == ["created", "completed"]
            outcomes = [outcome for record in await records_of(bus, job_id) for outcome in record.outcomes]
            assert len(outcomes) <= 1, f"step {at}: an outcome recorded twice"
        if not fate.dead:
            break
    assert at >= 10
