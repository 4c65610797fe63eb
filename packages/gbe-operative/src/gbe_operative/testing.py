"""A hall to test Operatives in: the streams, somebody who queues tasks as the Oracle does, and somebody who listens.

    async with Hall.on(transport) as hall:
        await hall.worker(MyOperative()).start()
        await hall.queue(hall.task("t", "my-type", params={"a": "b"}))
        (ended,) = await hall.ends()

No Oracle is needed, and nothing of a test framework.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from gbe_jobs_domain import subjects
from gbe_jobs_domain.ids import new_job_id, task_id
from gbe_jobs_domain.payloads import ControlKind, TaskControl, TaskEnded, TaskNote, TaskProgress, TaskQueued
from gbe_jobs_domain.records import JobRecord, JournalRecord
from gbe_jobs_domain.streams import JOURNAL, QUEUE, streams
from gbe_nexus import ConsumerSpec, Message, PayloadDecoder, PubAck, Transport, encode_payload
from gbe_operative.contract import Operative
from gbe_operative.mock import Behaviour, MockOperative
from gbe_operative.secrets import Secrets
from gbe_operative.settings import WorkerSettings
from gbe_operative.worker import Worker

PATIENCE = 60.0

_ended = PayloadDecoder(TaskEnded)
_progress = PayloadDecoder(TaskProgress)


class Hall:
    """One bus with the streams of an ecumene, and the tasks of one job."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.job_id = new_job_id()
        self.job_type = "test"
        self.ack_wait = 5.0
        self.ended: list[TaskEnded] = []
        self.progress: list[TaskProgress] = []
        self.dead: list[bytes] = []
        self.acks: list[PubAck] = []
        self._changed = asyncio.Event()
        self._count = 0
        self._controls = 0
        self._last_seq = 0
        self._workers: list[Worker] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, transport: Transport) -> AsyncIterator[Hall]:
        """A hall on that bus; its workers are stopped at the end."""
        hall = cls(transport)
        await hall.open()
        try:
            yield hall
        finally:
            await hall.close()

    async def open(self) -> None:
        """Make the streams, start to listen, begin the job's journal."""
        for stream in streams():
            await self.transport.ensure_stream(stream)
        await self.transport.subscribe(ConsumerSpec("GBE_INBOX"), self._on_inbox)
        await self.transport.subscribe(ConsumerSpec("GBE_DEADLETTER"), self._on_dead)
        await self.transport.listen(["gbe.tasks.*.progress"], self._on_progress)
        self.journal_seq = await self.record(
            JournalRecord("test", created=JobRecord(self.job_id, self.job_type, "org_default", 1, "0" * 64))
        )

    async def close(self) -> None:
        """Stop the workers made here."""
        for worker in self._workers:
            await worker.stop()

    def _on_inbox(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.subject.endswith(".terminal"):
                self.ended.append(_ended.decode(message.payload).data)
            message.ack()
        self._changed.set()

    def _on_dead(self, messages: Sequence[Message]) -> None:
        self.dead += [message.payload for message in messages]
        for message in messages:
            message.ack()
        self._changed.set()

    def _on_progress(self, subject: str, body: bytes) -> None:
        self.progress.append(_progress.decode(body).data)
        self._changed.set()

    async def until(self, condition: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until something that is reported makes the condition true."""
        async with asyncio.timeout(patience):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.02)

    async def record(self, record: JournalRecord) -> int:
        """Append to the job's journal."""
        journal = await self.transport.journal(JOURNAL)
        payload = encode_payload("record", record)
        self._last_seq = await journal.append(subjects.journal(self.job_type, self.job_id), payload, self._last_seq)
        return self._last_seq

    def task(self, name: str = "t", task_type: str = "mock", **fields: Any) -> TaskQueued:
        """A task of the job."""
        index = self._count
        self._count += 1
        defaults: dict[str, Any] = {"org_id": "org_default", "job_type": self.job_type, "journal_seq": self.journal_seq}
        return TaskQueued(
            task_id=task_id(self.job_id, index),
            job_id=self.job_id,
            task_name=name,
            task_type=task_type,
            **{**defaults, **fields},
        )

    async def queue(self, *tasks: TaskQueued) -> None:
        """As the Oracle does."""
        for task in tasks:
            payload = encode_payload(f"{task.task_id}:queued", task)
            self.acks.append(await self.transport.publish(subjects.queue(task.task_type), payload))

    async def cancel(self, task: TaskQueued, reason: str = "test") -> None:
        """A control message, as the Oracle sends it."""
        control = TaskControl(ControlKind.CANCEL, task.job_id, [task.task_id], reason)
        await self.transport.publish(subjects.control(task.task_type), encode_payload("control", control))

    async def control(
        self, task: TaskQueued | None, kind: ControlKind, control_id: str = "", *, task_type: str = "mock"
    ) -> None:
        """A control message for the task, or for all of the job's of that type, as a service sends it. The same id
        again is the same message again."""
        self._controls += 1
        task_type = task_type if task is None else task.task_type
        control = TaskControl(kind, self.job_id, [] if task is None else [task.task_id])
        event_id = control_id or f"{self.job_id}:{task_type}:control:{self._controls}"
        await self.transport.publish(subjects.control(task_type), encode_payload(event_id, control))

    def worker(
        self,
        operative: Operative | None = None,
        *,
        slots: int = 4,
        settings: WorkerSettings | None = None,
        secrets: Secrets | None = None,
        transport: Transport | None = None,
        behaviours: dict[str, Behaviour] | None = None,
    ) -> Worker:
        """A worker that is stopped at the end; not started."""
        operative = operative or MockOperative(("mock",), behaviours)
        worker = Worker(
            transport or self.transport,
            operative,
            dict.fromkeys(operative.handles, slots),
            settings=settings or WorkerSettings(ack_wait=5, moment=0.02, stop_grace=0.05, interrupt_grace=2),
            secrets=secrets,
        )
        self._workers.append(worker)
        return worker

    async def ends(self, count: int = 1) -> list[TaskEnded]:
        """The reports, when there are so many."""
        await self.until(lambda: len(self.ended) >= count)
        return self.ended

    async def note(self, task: TaskQueued) -> TaskNote | None:
        """The task's note."""
        entry = await (await self.transport.state_store(subjects.NOTES_BUCKET)).get(task.task_id)
        return None if entry is None else msgspec.json.decode(entry.value, type=TaskNote)

    async def queued(self) -> int:
        """Messages in the queue."""
        return (await self.transport.stream_state(QUEUE)).messages

    async def emptied(self, patience: float = PATIENCE) -> None:
        """Wait until the queue is empty: a message is acknowledged only when the report is stored."""
        async with asyncio.timeout(patience):
            while await self.queued():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.01)
