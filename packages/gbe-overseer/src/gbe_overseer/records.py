"""Decoding what the bus says about jobs."""

from __future__ import annotations

import msgspec

from gbe_jobs_domain.definitions import JobOutline
from gbe_jobs_domain.payloads import JobRefused, JobSubmitted, JobSummary, TaskProgress, TaskSummary
from gbe_jobs_domain.records import JournalRecord
from gbe_nexus import PayloadDecoder, UndecodableMessage, UnknownVersion
from gbe_overseer.errors import OverseerError

SUMMARY = PayloadDecoder(JobSummary)
PROGRESS = PayloadDecoder(TaskProgress)
REFUSED = PayloadDecoder(JobRefused)
SUBMITTED = PayloadDecoder(JobSubmitted)
_RECORD = PayloadDecoder(JournalRecord)
_OUTLINE = msgspec.json.Decoder(JobOutline)
_TASKS = msgspec.json.Decoder(list[TaskSummary])


class SummaryHead(msgspec.Struct, frozen=True):
    """A summary without its tasks: what a list of jobs shows. Skipping is much faster than decoding."""

    job_id: str
    job_type: str
    name: str
    state: str
    created_at: int
    ended_at: int
    task_count: int = 0
    error: str = ""
    reason: str = ""
    definition_sha256: str = ""


SUMMARY_HEAD = PayloadDecoder(SummaryHead)


class Unreadable(OverseerError):
    """What is stored about a job is not what this release reads."""


def journal_record(body: bytes, subject: str) -> JournalRecord:
    """A record of a job's journal."""
    try:
        return _RECORD.decode(body).data
    except (UndecodableMessage, UnknownVersion) as error:
        raise Unreadable(f"{subject} can't be read: {error}") from error


def summary(body: bytes, subject: str) -> JobSummary:
    """An entry of the history."""
    try:
        return SUMMARY.decode(body).data
    except (UndecodableMessage, UnknownVersion) as error:
        raise Unreadable(f"{subject} can't be read: {error}") from error


def outline(body: bytes | msgspec.Raw, job_id: str) -> JobOutline:
    """A job's definition."""
    try:
        return _OUTLINE.decode(body)
    except msgspec.DecodeError as error:
        raise Unreadable(f"the definition of {job_id} can't be read: {error}") from error


def task_summaries(body: bytes, job_id: str) -> list[TaskSummary]:
    """The tasks of a summary that were too large to be a part of it."""
    try:
        return _TASKS.decode(body)
    except msgspec.DecodeError as error:
        raise Unreadable(f"the results of {job_id} can't be read: {error}") from error
