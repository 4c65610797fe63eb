"""For tests of an Oracle, or with one: small definitions, a scripted Operative, the events and records of jobs."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from msgspec import Raw, json

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.definitions import JobDefinition, JobOutline, TaskDefinition
from gbe_jobs_domain.edges import inline
from gbe_jobs_domain.outcomes import Completed, TaskOutcome
from gbe_jobs_domain.payloads import JobSummary, TaskEnded, TaskQueued
from gbe_jobs_domain.records import JobRecord, JournalRecord
from gbe_nexus import ConsumerSpec, Message, Outgoing, PayloadDecoder, Transport, encode_payload
from gbe_oracle.core.job import Job
from gbe_oracle.settings import OracleSettings

Edges = dict[str, list[str]]
"""Task names with what each depends on."""

# As the defaults, only quicker: what a dead Oracle held is to come back within a test's patience.
QUICK = OracleSettings(ack_wait=0.15, pin_timeout=0.1, tick_interval=0.05, purge_after=0.0, stop_grace=1.0)


def definition(
    edges: Edges, *, task_type: str = "noop", job_type: str = "test", fail_fast: bool = True
) -> JobDefinition:
    """A job of no-op tasks."""
    tasks = [TaskDefinition(name, task_type, depends_on=needs) for name, needs in edges.items()]
    return JobDefinition("test", job_type, tasks, fail_fast=fail_fast)


def job_of(edges: Edges, *, window: int = 2048, job_id: str = "job_1", fail_fast: bool = True) -> Job:
    """The core's state for such a job, before its first record."""
    body = json.encode(definition(edges, fail_fast=fail_fast))
    outline = json.decode(body, type=JobOutline)
    return Job(JobRecord(job_id, "test", "org_default", 1, "sha", definition=Raw(body)), outline, window=window)


LINE: Edges = {"a": [], "b": ["a"], "c": ["b"]}
DIAMOND: Edges = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
FAN: Edges = {"a": [], **{f"t{i}": ["a"] for i in range(10)}, "z": [f"t{i}" for i in range(10)]}


class Script:
    """An Operative that answers as told and notes what it was given."""

    def __init__(self, bus: Transport) -> None:
        self.bus = bus
        self.answers: dict[str, TaskOutcome] = {}
        self.queued: Counter[str] = Counter()
        self.tasks: dict[str, TaskQueued] = {}
        self.held: dict[str, Message] = {}
        self.hold: set[str] = set()
        self._changed = asyncio.Event()
        self._decoder = PayloadDecoder(TaskQueued)

    async def start(self, task_type: str = "noop") -> None:
        spec = ConsumerSpec(
            streams.QUEUE, subjects.operative_consumer(task_type), (subjects.queue(task_type),), ack_wait=30
        )
        await self.bus.subscribe(spec, self._take)

    def _take(self, messages: Sequence[Message]) -> None:
        ready: list[tuple[Message, TaskQueued]] = []
        for message in messages:
            task = self._decoder.decode(message.payload).data
            self.queued[task.task_name] += 1
            self.tasks[task.task_name] = task
            if task.task_name in self.hold:
                self.held[task.task_name] = message
            else:
                ready.append((message, task))
        self._notify()
        if ready:
            asyncio.get_running_loop().create_task(self._answer(ready))

    async def _answer(self, ready: list[tuple[Message, TaskQueued]]) -> None:
        await self.bus.publish_many([report(task, self.answers.get(task.task_name)) for _, task in ready])
        for message, _ in ready:
            message.ack()

    async def release(self, name: str) -> None:
        """Answer a task that was held."""
        self.hold.discard(name)
        await self._answer([(self.held.pop(name), self.tasks[name])])

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; looked at after each delivery."""
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()


def report(task: TaskQueued, outcome: TaskOutcome | None = None, attempt: int = 1) -> Outgoing:
    """The terminal message of a task; without an outcome, success with the task's name as data."""
    ended = TaskEnded(
        task.task_id,
        task.job_id,
        task.job_type,
        task.task_name,
        task.task_type,
        attempt,
        "script",
        1,
        2,
        outcome or Completed(data=inline({"name": task.task_name})),
        attempt,
    )
    event_id = f"{task.task_id}:{attempt}:terminal"
    return Outgoing(subjects.terminal(task.task_type), encode_payload(event_id, ended), event_id)


class Events:
    """The job events on the bus, by job."""

    def __init__(self) -> None:
        self.of: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.bodies: dict[tuple[str, str], dict[str, object]] = {}
        self._changed = asyncio.Event()

    def seen(self, subject: str, body: bytes) -> None:
        payload = json.decode(body)
        name = subject.rsplit(".", 1)[1]
        job_id = payload["data"]["job_id"]
        self.of[job_id].append((name, payload["id"]))
        self.bodies[job_id, name] = payload["data"]
        self._changed.set()

    def names(self, job_id: str) -> list[str]:
        """Event names in order, each event once (a reader may see one again with the same id)."""
        return [name for name, _ in dict.fromkeys(self.of[job_id])]

    async def end(self, job_id: str, timeout: float = 60) -> str:
        """The event that ended the job, as soon as it is there."""
        async with asyncio.timeout(timeout):
            while True:
                ends = [name for name in self.names(job_id) if name != "created"]
                if ends:
                    return ends[0]
                self._changed.clear()
                await self._changed.wait()


async def history_of(bus: Transport, job_id: str) -> JobSummary:
    """The job's summary, as soon as it is written."""
    written = asyncio.Event()
    listening = await bus.listen([subjects.history("*", job_id)], lambda _subject, _body: written.set())
    journal = await bus.journal(streams.HISTORY)
    async with asyncio.timeout(10):
        while (entry := await journal.last(subjects.history("*", job_id))) is None:
            await written.wait()
            written.clear()
    await listening.stop()
    return PayloadDecoder(JobSummary).decode(entry.payload).data


async def records_of(bus: Transport, job_id: str) -> list[JournalRecord]:
    """The job's journal."""
    journal = await bus.journal(streams.JOURNAL)
    decoder = PayloadDecoder(JournalRecord)
    return [decoder.decode(e.payload).data async for e in journal.replay(subjects.journal("*", job_id))]
