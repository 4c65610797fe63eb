"""What goes by on the bus, noted from the beginning: records, events, dead letters, and hints of everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec import DecodeError, json

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.payloads import JobSummary, TaskSummary
from gbe_jobs_domain.records import JournalRecord
from gbe_nexus import ConsumerSpec, Message, PayloadDecoder, Transport
from gbe_nexus.deadletter import DeadLetter
from tests.chaos.evidence import Event, Run, Wire

_record = PayloadDecoder(JournalRecord)
_summary = PayloadDecoder(JobSummary)
_letter = PayloadDecoder(DeadLetter)
TERMINAL = ("completed", "failed", "cancelled")


class Observer:
    """Fills a `Run` from the bus. Needs the streams to be there."""

    def __init__(self, bus: Transport, run: Run, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._run = run
        self._clock = clock
        self.over: set[str] = set()
        """Jobs with a terminal event."""
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Observe from the very first message on."""
        await self._bus.subscribe(ConsumerSpec(streams.JOURNAL), self._on_records)
        await self._bus.subscribe(ConsumerSpec(streams.EVENTS, subjects=("gbe.jobs.*.*",)), self._on_events)
        await self._bus.subscribe(ConsumerSpec(streams.DEADLETTER), self._on_dead_letters)
        await self._bus.listen(["gbe.tasks.*.queue", "gbe.tasks.*.terminal", "gbe.tasks.*.control"], self._on_wire)

    async def until_over(self, job_ids: Sequence[str], timeout: float) -> None:
        """Wait until all of them have a terminal event, or until the time is up."""
        try:
            async with asyncio.timeout(timeout):
                while not self.over.issuperset(job_ids):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def histories(self, wanted: dict[str, str], timeout: float) -> None:
        """Read the histories of these jobs (id to type) until all are there, or the time is up."""
        journal = await self._bus.journal(streams.HISTORY)
        try:
            async with asyncio.timeout(timeout):
                while missing := [job for job in wanted if job not in self._run.histories]:
                    found = await journal.last_many([subjects.history(wanted[job], job) for job in missing])
                    for entry in found.values():
                        summary = _summary.decode(entry.payload).data
                        self._run.histories[summary.job_id] = await self._whole(summary)
                    if len(found) < len(missing):
                        await asyncio.sleep(0.2)
        except TimeoutError:
            pass

    async def _whole(self, summary: JobSummary) -> JobSummary:
        if summary.tasks_ref is None:
            return summary
        store = await self._bus.artifact_store("gbe-artifacts")
        text = await store.read(summary.tasks_ref.key, limit=64 << 20)
        summary.tasks[:] = json.decode(text, type=list[TaskSummary])
        return summary

    async def backlog(self, timeout: float) -> None:
        """What still waits, when it has had `timeout` seconds to get less."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._run.backlog = await self._waiting()
                    if not any(self._run.backlog.values()):
                        return
                    await asyncio.sleep(0.3)
        except TimeoutError:
            pass

    async def _waiting(self) -> dict[str, int]:
        queue = await self._bus.stream_state(streams.QUEUE)
        inbox = await self._bus.consumer_state(streams.INBOX, subjects.ORACLE_CONSUMER)
        stored = await self._bus.stream_state(streams.INBOX)
        return {
            "GBE_QUEUE": queue.messages,
            "GBE_INBOX (not acknowledged)": inbox.pending + inbox.ack_pending,
            "GBE_INBOX (not trimmed)": stored.messages,
        }

    async def notes(self) -> None:
        """How many notes are left in the state store."""
        store = await self._bus.state_store(subjects.NOTES_BUCKET)
        self._run.notes = len(await store.keys())

    # --- what arrives ---------------------------------------------------------------------------------------

    def _on_records(self, messages: Sequence[Message]) -> None:
        for message in messages:
            job_id = message.subject.rsplit(".", 1)[1]
            self._run.records[job_id][message.seq] = _record.decode(message.payload).data

    def _on_events(self, messages: Sequence[Message]) -> None:
        for message in messages:
            payload = json.decode(message.payload)
            job_id = payload["data"]["job_id"]
            name = message.subject.rsplit(".", 1)[1]
            self._run.events[job_id].append(Event(name, payload["id"], message.seq, payload["data"]))
            if name in TERMINAL:
                self.over.add(job_id)
                self._changed.set()

    def _on_dead_letters(self, messages: Sequence[Message]) -> None:
        for message in messages:
            letter = _letter.decode(message.payload).data
            self._run.dead_letters.append((letter.headers.get("Nats-Msg-Id", ""), f"{letter.subject}: {letter.reason}"))

    def _on_wire(self, subject: str, body: bytes) -> None:
        try:
            data = json.decode(body)["data"]
        except (DecodeError, KeyError):
            return
        kind = subject.rsplit(".", 1)[1]
        text = ""
        if kind == "terminal":
            text = f"attempt {data['attempt']} by {data['worker']}: {data['outcome'].get('state')}"
            text += f" {data['outcome'].get('kind', '')} {data['outcome'].get('error', '')}".rstrip()
        wire = Wire(self._clock(), kind, data.get("task_id", ""), text)
        self._run.wire[data["job_id"]].append(wire)
