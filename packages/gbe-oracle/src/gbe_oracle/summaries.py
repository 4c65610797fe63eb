"""The history of a job: its summary with all outcomes, by reference where it is large."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from msgspec import json, structs

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.payloads import JobSummary, TaskSummary
from gbe_nexus import ArtifactStore, NotFound, Outgoing, encode_payload
from gbe_oracle.core import messages
from gbe_oracle.loading import Loader
from gbe_oracle.slots import FEW, Entry

log = logging.getLogger("gbe.oracle")

PORTION = 128 << 10
"""Bytes of task summaries that are made before they are stored."""
HEADROOM = 512
"""Bytes of headers and protocol around a payload."""

_encode = json.Encoder().encode


class Summaries:
    """Builds history messages."""

    def __init__(self, loader: Loader, artifacts: ArtifactStore, *, max_payload: int) -> None:
        self._loader = loader
        self._artifacts = artifacts
        self._limit = max_payload // 2

    def build(self, entry: Entry) -> Outgoing | None:
        """The history message; None where outcomes were evicted from memory or it would be too large."""
        slot = entry.slot
        if not slot.whole:
            return None
        job, final = entry.job, entry.record.final
        assert job is not None
        assert final is not None
        tasks = [messages.task_summary(job, index, slot.outcomes.get(index)) for index in range(len(job.graph))]
        message = _message(entry, messages.summary(job, final, tasks))
        return message if len(message.payload) <= self._limit else None

    async def build_reading(self, entry: Entry) -> Outgoing | None:
        """The history message, reading the journal for outcomes and storing what is large as artifacts.

        None where the journal is gone: another Oracle has written the history, and this one would have less in it.
        """
        slot, job, final = entry.slot, entry.job, entry.record.final
        assert job is not None
        assert final is not None
        try:
            if not slot.whole and len(job.graph) <= FEW:  # of a whole one the size is known: too large
                tasks = [task async for task in self._tasks(entry)]
                message = _message(entry, messages.summary(job, final, tasks))
                if len(message.payload) <= self._limit:
                    return message
            tasks_ref = await self._store(slot.job_id, "tasks.json", self._portions(entry), len(job.graph))
        except NotFound as error:
            log.info("job %s: %s; its history is another Oracle's", slot.job_id, error)
            return None
        summary = structs.replace(messages.summary(job, final, []), tasks_ref=tasks_ref)
        message = _message(entry, summary)
        if len(message.payload) > self._limit and summary.definition is not None:
            definition_ref = await self._store(slot.job_id, "definition.json", bytes(summary.definition), None)
            summary = structs.replace(summary, definition=None, definition_ref=definition_ref)
            message = _message(entry, summary)
        if len(message.payload) > 2 * self._limit - HEADROOM:  # thousands of child jobs, whose ids can be computed
            message = _message(entry, structs.replace(summary, children={}))
        return message

    async def _tasks(self, entry: Entry) -> AsyncIterator[TaskSummary]:
        """All tasks in order. Raises `NotFound` where the journal is gone."""
        job = entry.job
        assert job is not None
        if entry.slot.whole:
            for index in range(len(job.graph)):
                yield messages.task_summary(job, index, entry.slot.outcomes.get(index))
        else:
            index = 0
            async for outcome in self._loader.outcomes(job.applied_at):
                yield messages.task_summary(job, index, outcome)
                index += 1

    async def _portions(self, entry: Entry) -> AsyncIterator[bytes]:
        """The JSON array of all tasks, piece by piece: of a wide job they are never all in memory."""
        held = [b"["]
        size = 0
        async for task in self._tasks(entry):
            text = _encode(task)
            held += (text, b",")
            size += len(text)
            if size >= PORTION:
                last = held.pop()
                yield b"".join(held)
                held, size = [last], 0
        yield b"".join(held).rstrip(b",") + b"]"

    async def _store(self, job_id: str, name: str, data: bytes | AsyncIterator[bytes], items: int | None) -> Ref:
        key = subjects.artifact_key(job_id, "history", name)
        stored = await self._artifacts.put(key, data, media_type="application/json")
        return Ref(ARTIFACT_STORE, key, stored.size, stored.sha256, stored.media_type, items)


def _message(entry: Entry, summary: JobSummary) -> Outgoing:
    assert entry.record.final is not None
    event_id = f"{summary.job_id}:history"
    body = encode_payload(event_id, summary, entry.record.final.at)
    return Outgoing(subjects.history(summary.job_type, summary.job_id), body, event_id)
