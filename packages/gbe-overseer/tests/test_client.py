"""`JobClient` on a bus, with an Oracle that says what the test tells it to."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gbe_jobs_domain import subjects
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.ids import InvalidId
from gbe_jobs_domain.outcomes import Failed
from gbe_jobs_domain.payloads import ControlKind, JobRefused, JobSubmitted, ProgressKind, TaskControl
from gbe_jobs_domain.states import JobState, TaskState
from gbe_jobs_domain.streams import HISTORY, INBOX, PROGRESS, QUEUE, WORK_STREAMS, Retention, streams
from gbe_nexus import ConsumerSpec, Message, PayloadDecoder, PubAck, Transport, Unavailable, connect, encode_payload
from gbe_overseer import CancelAnswer, JobClient
from gbe_overseer import client as client_module
from gbe_overseer import watching as watching_module
from gbe_overseer.errors import EcumeneFull, NoEcumene, OtherDefinition, UnknownJob
from gbe_overseer.view import Change, TaskChanged, TaskWrote, WaitingFor

Job = JobDefinition

SUBMIT = subjects.submit("etl")


async def submitted(bus: Transport) -> list[JobSubmitted]:
    decoder = PayloadDecoder(JobSubmitted)
    log = await bus.journal(INBOX)
    return [decoder.decode(entry.payload).data async for entry in log.replay(subjects.submit("*"))]


async def cancel_heard(bus: Transport) -> asyncio.Event:
    """Set when somebody asks for a cancel."""
    heard = asyncio.Event()
    await bus.listen([subjects.cancel("*")], lambda subject, body: heard.set())
    return heard


async def oracle_joins(bus: Transport) -> None:
    """An Oracle that takes everything and does nothing."""

    def take(messages: Sequence[Message]) -> None:
        for message in messages:
            message.ack()

    await bus.subscribe(ConsumerSpec(INBOX, subjects.ORACLE_CONSUMER), take)


async def test_submit_is_accepted_durably(client: JobClient, bus: Transport, job: Job) -> None:
    accepted = await client.submit(job)
    (submit,) = await submitted(bus)
    assert (submit.job_id, submit.job_type, submit.org_id) == (accepted.job_id, "etl", "org_default")
    assert submit.definition is not None
    assert (await client.find(accepted.job_id)).state is JobState.PENDING


async def test_submit_makes_the_streams_that_are_missing(job: Job) -> None:
    transport = await connect("memory://")
    client = JobClient(transport)
    with pytest.raises(NoEcumene):
        await client.jobs()
    await client.submit(job)
    assert len(await client.jobs()) == 1
    await transport.close()


async def test_a_large_definition_goes_by_reference(
    client: JobClient, bus: Transport, make_job: Callable[..., Job]
) -> None:
    accepted = await client.submit(make_job(**{f"task-{i}": [] for i in range(2_000)}))
    (submit,) = await submitted(bus)
    assert submit.definition is None
    assert submit.definition_ref is not None
    assert submit.definition_ref.key == f"{accepted.job_id}/definition.json"
    assert submit.definition_ref.sha256 == accepted.definition_sha256


async def test_the_same_id_and_definition_is_the_same_job(
    client: JobClient, bus: Transport, job: Job, make_job: Callable[..., Job], oracle: Any
) -> None:
    other = make_job(z=[])
    for step in (None, oracle.create, oracle.finish):  # not taken yet, running, over
        if step is not None:
            await step()
        again = await client.submit(job, job_id="job_1")
        assert again.existed is (step is not None)
        assert (await client.submit(job, job_id="job_1")).existed
        with pytest.raises(OtherDefinition):
            await client.submit(other, job_id="job_1")
    assert len(await submitted(bus)) == 1


async def test_a_malformed_id_is_refused(client: JobClient, job: Job) -> None:
    with pytest.raises(InvalidId):
        await client.submit(job, job_id="job_a.b")


async def test_a_full_stream_refuses_new_jobs(job: Job) -> None:
    transport = await connect("memory://")
    for spec in streams(Retention(work_bytes=1_000)):
        await transport.ensure_stream(spec)
    await transport.publish("gbe.tasks.x.queue", b"x" * 900)
    with pytest.raises(EcumeneFull, match="GBE_QUEUE is 9"):
        await JobClient(transport).submit(job)
    await transport.close()


async def test_watches_a_job_to_its_end(client: JobClient, oracle: Any) -> None:
    seen: list[Change] = []

    async def look() -> None:
        async with client.watch("job_1") as watch:
            async for changes in watch:
                seen.extend(changes)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(look())
        await oracle.create(0)
        oracle.progress(0, ProgressKind.STARTED)
        oracle.progress(0, ProgressKind.OUTPUT, "hello")
        await oracle.end_task(0, 1)
        await oracle.end_task(1)
        await oracle.finish()
    assert [change.lines for change in seen if isinstance(change, TaskWrote)] == [["hello"]]
    ends = [c.task.name for c in seen if isinstance(c, TaskChanged) and c.state is TaskState.COMPLETED]
    assert ends == ["a", "b"]


async def test_a_watcher_that_hears_nothing_finds_the_end_all_the_same(
    client: JobClient, oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching_module, "RESYNC", 0.02)
    async with asyncio.timeout(10), client.watch("job_1") as watch:
        assert watch._subscription is not None
        await watch._subscription.stop()  # every message from here on is lost
        ending = asyncio.ensure_future(watch.end())
        await oracle.create(0)
        await oracle.end_task(0, 1)
        await oracle.finish("failed", error="boom", failed=0)
        assert await ending is JobState.FAILED
    assert (watch.view.error, watch.view.failed_task) == ("boom", "a")


async def test_a_job_that_is_in_the_history_only(client: JobClient, oracle: Any) -> None:
    oracle.outcome(0, Failed("boom"))
    await oracle.remember("failed", error="boom", failed=0)
    view = await client.find("job_1")
    assert (view.state, view.tasks[0].error, view.tasks[1].state) == (JobState.FAILED, "boom", TaskState.CANCELLED)


async def test_an_unknown_job(client: JobClient) -> None:
    with pytest.raises(UnknownJob):
        await client.find("job_nowhere")
    assert (await client.cancel("job_nowhere")).answer is CancelAnswer.UNKNOWN


async def test_a_refused_submit_ends_the_watch(client: JobClient, bus: Transport) -> None:
    async with asyncio.timeout(10), client.watch("job_1") as watch:
        ending = asyncio.ensure_future(watch.end())
        body = encode_payload("refused", JobRefused("job_1", "etl", 5, "too many tasks"))
        await bus.publish(subjects.job_event("etl", "refused"), body)
        await ending
    assert watch.view.refused


async def test_says_what_is_missing(
    client: JobClient, bus: Transport, oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching_module, "PATIENCE", 0.01)
    monkeypatch.setattr(watching_module, "CHECK", 0.01)
    said: list[str] = []

    async def until(*texts: str) -> None:
        async for changes in watch:
            said.extend(change.text for change in changes if isinstance(change, WaitingFor))
            if said[-len(texts) :] == list(texts):
                return

    async with asyncio.timeout(10), client.watch("job_1") as watch:
        await until("no Oracle is alive")
        await oracle.create(0)
        await until("", "no Operative handles 'shell'")
        consumer = ConsumerSpec(QUEUE, subjects.operative_consumer("shell"), (subjects.queue("shell"),))
        await bus.subscribe(consumer, lambda messages: None)
        await until("")


async def test_lists_jobs_the_newest_first(client: JobClient, oracle: Any, job: Job, scripted: Any) -> None:
    done = scripted(client.transport, "job_0", job)
    await done.create()
    await done.finish("failed", error="boom", failed=0)
    await (await client.log("GBE_JOURNAL")).purge(subjects.journal("etl", "job_0"))
    await oracle.create(0)
    waiting = await client.submit(job)
    found = await client.jobs()
    assert [(line.job_id, line.state.value) for line in found] == [
        (waiting.job_id, "pending"),
        ("job_1", "running"),
        ("job_0", "failed"),
    ]
    assert [line.job_id for line in await client.jobs(frozenset({JobState.FAILED}))] == ["job_0"]
    assert [line.job_id for line in await client.jobs(limit=1)] == [waiting.job_id]


async def test_cancel_says_which_it_was(client: JobClient, bus: Transport, oracle: Any) -> None:
    await oracle.create(0)
    assert (await client.cancel("job_1", timeout=0.05)).answer is CancelAnswer.NO_ORACLE
    await oracle_joins(bus)
    assert (await client.cancel("job_1", timeout=0.05)).answer is CancelAnswer.NO_ANSWER
    heard = await cancel_heard(bus)
    cancelling = asyncio.ensure_future(client.cancel("job_1", "enough"))
    await heard.wait()
    await oracle.finish("cancelled")
    assert (await cancelling).answer is CancelAnswer.CANCELLED
    again = await client.cancel("job_1")
    assert (again.answer, again.state) == (CancelAnswer.ALREADY_OVER, JobState.CANCELLED)


async def test_a_job_that_ends_while_it_is_cancelled_is_already_over(
    client: JobClient, bus: Transport, oracle: Any
) -> None:
    await oracle.create(0)
    heard = await cancel_heard(bus)
    cancelling = asyncio.ensure_future(client.cancel("job_1"))
    await heard.wait()
    await oracle.finish("completed")
    found = await cancelling
    assert (found.answer, found.state) == (CancelAnswer.ALREADY_OVER, JobState.COMPLETED)


async def test_a_late_watcher_learns_what_runs(client: JobClient, oracle: Any) -> None:
    await oracle.create(0)
    oracle.progress(0, ProgressKind.STARTED, attempt=2)
    view = await client.find("job_1")
    assert (view.tasks[0].state, view.tasks[0].attempts) == (TaskState.RUNNING, 2)


def deaf(bus: Transport, monkeypatch: pytest.MonkeyPatch, name: str, first: str, times: int | None = None) -> list[str]:
    """Calls of that name with that first argument are met with silence, so many times. What was asked."""
    asked: list[str] = []
    call = getattr(bus, name)

    async def ask(what: str, *args: Any, **options: Any) -> Any:
        asked.append(what)
        if what == first and (times is None or asked.count(first) <= times):
            raise Unavailable(f"{what} has no leader")
        return await call(what, *args, **options)

    monkeypatch.setattr(bus, name, ask)
    return asked


async def test_a_submit_does_not_ask_about_streams_that_may_lose_messages(
    client: JobClient, bus: Transport, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = deaf(bus, monkeypatch, "stream_state", PROGRESS)
    await client.submit(job)
    assert sorted(asked) == sorted(WORK_STREAMS)


@pytest.mark.parametrize(("name", "first"), [("stream_state", INBOX), ("journal", HISTORY), ("publish", SUBMIT)])
async def test_a_submit_is_patient_with_an_election(
    client: JobClient, bus: Transport, job: Job, monkeypatch: pytest.MonkeyPatch, name: str, first: str
) -> None:
    monkeypatch.setattr(client_module, "_PAUSE", 0.001)
    deaf(bus, monkeypatch, name, first, times=3)
    assert not (await client.submit(job, job_id="job_1")).existed
    assert len(await submitted(bus)) == 1


@pytest.mark.parametrize(
    ("name", "first", "says"),
    [
        ("stream_state", INBOX, "^not submitted: GBE_INBOX has no leader"),
        ("publish", SUBMIT, "^whether job_1 was submitted is unknown .*: gbe.jobs.etl.submit has no leader"),
    ],
)
async def test_a_submit_whose_patience_ends_says_what_is_known(
    client: JobClient, bus: Transport, job: Job, monkeypatch: pytest.MonkeyPatch, name: str, first: str, says: str
) -> None:
    monkeypatch.setattr(client_module, "_PAUSE", 0.001)
    monkeypatch.setattr(client_module, "SUBMIT_PATIENCE", 0.02)
    deaf(bus, monkeypatch, name, first)
    with pytest.raises(Unavailable, match=says):
        await client.submit(job, job_id="job_1")


async def test_a_fresh_submit_that_meets_itself_is_no_other_job(
    client: JobClient, bus: Transport, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_PAUSE", 0.001)
    publish = bus.publish
    tries = 0

    async def lose_the_first_answer(*args: Any, **options: Any) -> PubAck:
        nonlocal tries
        tries += 1
        ack = await publish(*args, **options)
        if tries == 1:
            raise Unavailable("no answer")
        return ack

    monkeypatch.setattr(bus, "publish", lose_the_first_answer)
    assert not (await client.submit(job)).existed
    assert (tries, len(await submitted(bus))) == (2, 1)


# --- pause, resume, step ---


async def test_a_control_is_published_for_tasks_of_a_type(client: JobClient, bus: Transport) -> None:
    heard: list[tuple[str, str, TaskControl]] = []
    decoder = PayloadDecoder(TaskControl)

    def hear(subject: str, body: bytes) -> None:
        payload = decoder.decode(body)
        heard.append((subject, payload.id, payload.data))

    await bus.listen(["gbe.tasks.*.control"], hear)
    first = await client.control("job_1", "aether-session", ControlKind.STEP, task_ids=["task_1_0"], reason="look")
    again = await client.control("job_1", "aether-session", ControlKind.STEP, control_id=first)
    other = await client.control("job_1", "aether-session", ControlKind.STEP)
    assert first == again != other
    assert heard == [
        (
            "gbe.tasks.aether-session.control",
            first,
            TaskControl(ControlKind.STEP, "job_1", ["task_1_0"], "look"),
        ),
        ("gbe.tasks.aether-session.control", first, TaskControl(ControlKind.STEP, "job_1")),
        ("gbe.tasks.aether-session.control", other, TaskControl(ControlKind.STEP, "job_1")),
    ]


async def test_a_control_that_makes_no_sense_is_not_published(client: JobClient) -> None:
    with pytest.raises(ValueError, match=r"JobClient\.cancel"):
        await client.control("job_1", "aether-session", ControlKind.CANCEL)
    with pytest.raises(InvalidId):
        await client.control("job_1", "a.b", ControlKind.PAUSE)
    with pytest.raises(InvalidId):
        await client.control("*", "aether-session", ControlKind.PAUSE)
