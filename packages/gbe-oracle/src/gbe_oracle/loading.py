"""Reading what is durable: journals into job states, the history, definitions."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

from msgspec import DecodeError, Struct, json

from gbe_jobs_domain import subjects
from gbe_jobs_domain.dag import check_outline
from gbe_jobs_domain.definitions import JobOutline
from gbe_jobs_domain.payloads import JobSummary
from gbe_jobs_domain.records import JobRecord, JournalRecord, OutcomeRecord
from gbe_nexus import (
    ArtifactStore,
    IntegrityError,
    Journal,
    JournalEntry,
    NotFound,
    PayloadDecoder,
    PayloadTooLarge,
    UndecodableMessage,
    UnknownVersion,
)
from gbe_oracle.core.job import Job

MAX_DEFINITION = 64 << 20
"""Bytes of a definition that came by reference."""
RECORDS_KEPT = 64
"""Journal records in memory while a history is written."""
ARTIFACT_TRIES = 6
ARTIFACT_DELAY = 0.2


class LoadedJob(Struct, frozen=True):
    """A job with a journal."""

    job: Job
    created_at_seq: int


class TombstonedJob(Struct, frozen=True):
    """A job that was cancelled before its submit came."""

    seq: int
    reason: str


class FinishedJob(Struct, frozen=True):
    """A job whose journal is gone: only its history is left. `sha256` is of its definition."""

    sha256: str


class NewerJournal(Struct, frozen=True):
    """A job with records of a newer version: left to newer Oracles."""


class UnreadableJournal(Struct, frozen=True):
    """A job that no Oracle of this version can go on with: a record that is none, a definition that is gone."""

    reason: str


class InvalidDefinition(ValueError):
    """A submitted definition that is none, or whose DAG is not one."""


JobFound: TypeAlias = LoadedJob | TombstonedJob | FinishedJob | NewerJournal | UnreadableJournal

_outline = json.Decoder(JobOutline)
_record = PayloadDecoder(JournalRecord)
_summary = PayloadDecoder(JobSummary)


class Loader:
    """Reads for the engine. Everything may raise `NexusError`; the caller tries again."""

    def __init__(self, journal: Journal, history: Journal, artifacts: ArtifactStore) -> None:
        self._journal = journal
        self._history = history
        self._artifacts = artifacts

    async def load(self, job_type: str, job_id: str, window: int) -> JobFound | None:
        """Where the job is now, as the journal's leader has it; None where nobody ever heard of it."""
        subject = subjects.journal(job_type, job_id)
        job: Job | None = None
        created_at = 0
        tombstone: TombstonedJob | None = None
        try:
            async for entry in self._journal.replay(subject):
                record = _record.decode(entry.payload).data
                if job is not None:
                    job.replay(record, entry.seq)
                elif record.created is not None:
                    outline = await self.outline(record.created)
                    job = Job(record.created, outline, window=window)
                    job.replay(record, entry.seq)
                    created_at = entry.seq
                else:
                    tombstone = TombstonedJob(entry.seq, record.cancel or "")
        except UnknownVersion:
            return NewerJournal()
        except (ValueError, LookupError) as error:
            return UnreadableJournal(str(error) or repr(error))
        if job is not None and job.seq > created_at:
            return LoadedJob(job, created_at)
        if tombstone is not None:
            return tombstone
        # A lone first record may be a late one, of an Oracle that did not know that the job was over.
        found = await self._history.last(subjects.history("*", job_id))
        if found is not None:
            return _finished(found)
        return None if job is None else LoadedJob(job, created_at)

    async def finished(self, history_subjects: Sequence[str]) -> dict[str, FinishedJob]:
        """Those of the jobs that have a history, by history subject."""
        found = await self._history.last_many(history_subjects)
        return {subject: _finished(entry) for subject, entry in found.items()}

    async def record(self, seq: int) -> JournalRecord | None:
        """The journal record at a sequence; None where it was purged, as the job's history is written."""
        entry = await self._journal.read(seq)
        return None if entry is None else _record.decode(entry.payload).data

    async def outcomes(self, applied_at: Sequence[int]) -> AsyncIterator[OutcomeRecord | None]:
        """The outcome of each task, in order, from the records at these sequences (0: it has none).

        Neighbours tend to be in the same few records, so only some are in memory at a time. Raises `NotFound` where
        a record was purged.
        """
        kept: OrderedDict[int, dict[int, OutcomeRecord]] = OrderedDict()
        for index, seq in enumerate(applied_at):
            if not seq:
                yield None
                continue
            found = kept.get(seq)
            if found is None:
                record = await self.record(seq)
                if record is None:
                    raise NotFound(f"journal record {seq} is gone")
                found = kept[seq] = {outcome.index: outcome for outcome in record.outcomes}
                if len(kept) > RECORDS_KEPT:
                    kept.popitem(last=False)
            yield found[index]

    async def _read(self, key: str) -> bytes:
        """A definition. On a cluster a store may answer from a member that has not heard of it yet."""
        for _ in range(ARTIFACT_TRIES - 1):
            try:
                return await self._artifacts.read(key, limit=MAX_DEFINITION)
            except NotFound:
                await asyncio.sleep(ARTIFACT_DELAY)
        return await self._artifacts.read(key, limit=MAX_DEFINITION)

    async def outline(self, spec: JobRecord) -> JobOutline:
        """The definition as the Oracle reads it. Raises `InvalidDefinition`."""
        text: bytes | memoryview
        if spec.definition_ref is not None:
            ref = spec.definition_ref
            try:
                text = await self._read(ref.key)
            except (NotFound, IntegrityError, PayloadTooLarge) as error:
                raise InvalidDefinition(f"the definition at {ref.uri} can't be used: {error}") from error
            if hashlib.sha256(text).hexdigest() != ref.sha256:
                raise InvalidDefinition(f"the definition at {ref.uri} is not the one that was submitted")
        else:
            text = memoryview(spec.definition)  # type: ignore[arg-type]  # `Raw` is a buffer, which its types don't say
        try:
            outline = _outline.decode(text)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidDefinition(f"the definition is not a job: {error}") from error
        if outline.job_type != spec.job_type:
            raise InvalidDefinition(f"the definition's job type is {outline.job_type!r}, not {spec.job_type!r}")
        problem = check_outline(outline)
        if problem is not None:
            raise InvalidDefinition(problem)
        return outline


def _finished(entry: JournalEntry) -> FinishedJob:
    try:
        return FinishedJob(_summary.decode(entry.payload).data.definition_sha256)
    except (UndecodableMessage, UnknownVersion):
        return FinishedJob("")
