"""The history of a job: its summary with all outcomes, by reference where it is large."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import json, structs

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.payloads import JobSummary
from gbe_jobs_domain.records import OutcomeRecord
from gbe_nexus import ArtifactStore, Outgoing, encode_payload
from gbe_oracle.core import messages
from gbe_oracle.loading import Loader
from gbe_oracle.slots import Entry

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
        message = _message(entry, _summary(entry, slot.outcomes))
        return message if len(message.payload) <= self._limit else None

    async def build_reading(self, entry: Entry) -> Outgoing | None:
        """The history message, reading the journal for outcomes and storing what is large as artifacts.

        None where the journal is gone: another Oracle has written the history, and this one would have less in it.
        """
        slot, job = entry.slot, entry.job
        assert job is not None
        outcomes = slot.outcomes if slot.whole else await self._loader.outcomes(slot.subject)
        if any(seq and index not in outcomes for index, seq in enumerate(job.applied_at)):
            return None
        summary = _summary(entry, outcomes)
        message = _message(entry, summary)
        if len(message.payload) > self._limit:
            tasks_ref = await self._store(slot.job_id, "tasks.json", _encode(summary.tasks), len(summary.tasks))
            summary = structs.replace(summary, tasks=[], tasks_ref=tasks_ref)
            message = _message(entry, summary)
        if len(message.payload) > self._limit and summary.definition is not None:
            definition_ref = await self._store(slot.job_id, "definition.json", bytes(summary.definition), None)
            summary = structs.replace(summary, definition=None, definition_ref=definition_ref)
            message = _message(entry, summary)
        if len(message.payload) > 2 * self._limit - HEADROOM:  # thousands of child jobs, whose ids can be computed
            message = _message(entry, structs.replace(summary, children={}))
        return message

    async def _store(self, job_id: str, name: str, data: bytes, items: int | None) -> Ref:
        key = subjects.artifact_key(job_id, "history", name)
        stored = await self._artifacts.put(key, data, media_type="application/json")
        return Ref(ARTIFACT_STORE, key, stored.size, stored.sha256, stored.media_type, items)


def _summary(entry: Entry, outcomes: Mapping[int, OutcomeRecord]) -> JobSummary:
    assert entry.job is not None
    assert entry.record.final is not None
    return messages.summary(entry.job, entry.record.final, messages.task_summaries(entry.job, outcomes))


def _message(entry: Entry, summary: JobSummary) -> Outgoing:
    assert entry.record.final is not None
    event_id = f"{summary.job_id}:history"
    body = encode_payload(event_id, summary, entry.record.final.at)
    return Outgoing(subjects.history(summary.job_type, summary.job_id), body, event_id)
