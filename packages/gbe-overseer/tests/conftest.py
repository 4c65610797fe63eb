"""A bus within the process, and an Oracle that says what a test tells it to say."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from gbe_jobs_domain import subjects
from gbe_jobs_domain.canonical import encode_definition
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.edges import inline
from gbe_jobs_domain.ids import task_id
from gbe_jobs_domain.outcomes import Completed, TaskOutcome, state_of
from gbe_jobs_domain.payloads import JobSummary, ProgressKind, TaskProgress, TaskSummary
from gbe_jobs_domain.records import FinalRecord, JobRecord, JournalRecord, OutcomeRecord
from gbe_jobs_domain.streams import JOURNAL, streams
from gbe_nexus import Transport, connect, encode_payload
from gbe_overseer import JobClient


def definition(**edges: list[str]) -> JobDefinition:
    """A job of shell tasks: names with what each depends on."""
    tasks = [TaskDefinition(name, "shell", depends_on=needs) for name, needs in edges.items()]
    return JobDefinition("nightly", "etl", tasks)


class ScriptedOracle:
    """Writes the journal and the history of one job, as an Oracle would."""

    def __init__(self, bus: Transport, job_id: str, job: JobDefinition) -> None:
        self.bus = bus
        self.job_id = job_id
        self.job = job
        self.body = encode_definition(job)
        self.sha256 = hashlib.sha256(self.body).hexdigest()
        self._seq = 0
        self._ended: dict[int, TaskSummary] = {}

    async def write(self, record: JournalRecord) -> None:
        journal = await self.bus.journal(JOURNAL)
        subject = subjects.journal(self.job.job_type, self.job_id)
        self._seq = await journal.append(subject, encode_payload("record", record), self._seq)

    async def create(self, *dispatch: int) -> None:
        created = JobRecord(
            self.job_id, self.job.job_type, self.job.org, 1_000, self.sha256, definition=msgspec.Raw(self.body)
        )
        await self.write(JournalRecord("oracle", created=created, dispatch=list(dispatch)))

    def outcome(self, index: int, outcome: TaskOutcome, attempt: int = 1) -> OutcomeRecord:
        raw = msgspec.Raw(msgspec.json.encode(outcome))
        state = state_of(outcome).value
        task = self.job.tasks[index]
        self._ended[index] = TaskSummary(task.name, task.task_type, state, attempt, "w", 1_100, 1_300, raw)
        return OutcomeRecord(index, state, attempt, attempt, "w", 1_100, 1_300, raw)

    async def end_task(self, index: int, *dispatch: int, outcome: TaskOutcome | None = None) -> None:
        ended = self.outcome(index, outcome or Completed(output=[f"did {index}"], data=inline({"n": index})))
        await self.write(JournalRecord("oracle", outcomes=[ended], dispatch=list(dispatch)))

    async def finish(self, state: str = "completed", *, error: str = "", failed: int | None = None) -> None:
        final = FinalRecord(state, 2_000, error=error, failed_task=failed)
        await self.write(JournalRecord("oracle", final=final))
        await self.remember(state, error=error, failed=failed)

    async def remember(self, state: str = "completed", *, error: str = "", failed: int | None = None) -> None:
        """The history's entry."""
        summary = JobSummary(
            self.job_id,
            self.job.org,
            self.job.job_type,
            self.job.name,
            state,
            1_000,
            2_000,
            self.sha256,
            task_count=len(self.job.tasks),
            error=error,
            failed_task=None if failed is None else self.job.tasks[failed].name,
            tasks=[
                self._ended.get(index) or TaskSummary(task.name, task.task_type, "cancelled")
                for index, task in enumerate(self.job.tasks)
            ],
        )
        await self.bus.publish(subjects.history(self.job.job_type, self.job_id), encode_payload("history", summary))

    def progress(self, index: int, kind: ProgressKind, *lines: str, attempt: int = 1, message: str = "") -> None:
        task = self.job.tasks[index]
        said = TaskProgress(
            task_id(self.job_id, index),
            self.job_id,
            task.name,
            attempt,
            kind,
            lines=list(lines),
            message=message,
            at=1_100,
        )
        self.bus.hint(subjects.progress(task.task_type), encode_payload("progress", said))


@pytest.fixture
async def bus() -> AsyncIterator[Transport]:
    """A bus with the streams of an ecumene."""
    transport = await connect("memory://?max_payload=65536")
    for spec in streams():
        await transport.ensure_stream(spec)
    yield transport
    await transport.close()


@pytest.fixture
def client(bus: Transport) -> JobClient:
    return JobClient(bus)


@pytest.fixture
def job() -> JobDefinition:
    return definition(a=[], b=["a"])


@pytest.fixture
def make_job() -> Callable[..., JobDefinition]:
    """`make_job(a=[], b=["a"])`."""
    return definition


@pytest.fixture
def oracle(bus: Transport, job: JobDefinition) -> ScriptedOracle:
    return ScriptedOracle(bus, "job_1", job)


@pytest.fixture
def scripted() -> type[ScriptedOracle]:
    """For tests that need a job of their own."""
    return ScriptedOracle
