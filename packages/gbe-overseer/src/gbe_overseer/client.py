"""`JobClient`: what anybody can do with jobs over a `Transport`: submit, find, list, watch, cancel.

It speaks wire protocol v1 and nothing else, so every service may use it. What it says about a job comes from the
job's journal and from the history, never from the memory of a process.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

import msgspec

from gbe_jobs_domain import subjects
from gbe_jobs_domain.canonical import encode_definition
from gbe_jobs_domain.definitions import JobDefinition, JobOutline
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.ids import check_job_id, check_type_name, new_job_id, new_ulid
from gbe_jobs_domain.payloads import (
    ControlKind,
    JobCancelRequested,
    JobSubmitted,
    JobSummary,
    TaskControl,
    TaskSummary,
)
from gbe_jobs_domain.records import JobRecord
from gbe_jobs_domain.states import JobState
from gbe_jobs_domain.streams import HISTORY, INBOX, JOURNAL, QUEUE, WORK_STREAMS, Retention, streams
from gbe_nexus import (
    Journal,
    NotFound,
    StreamState,
    Transport,
    Unavailable,
    UndecodableMessage,
    UnknownVersion,
    encode_payload,
    now_ms,
)
from gbe_overseer import records
from gbe_overseer.errors import EcumeneFull, NoEcumene, OtherDefinition, UnknownJob
from gbe_overseer.view import JobView
from gbe_overseer.watching import JobWatch

T = TypeVar("T")

log = logging.getLogger(__name__)

FULL: Final = 0.8
"""From this share of a work stream on, new jobs are refused."""

MAX_ARTIFACT: Final = 1 << 30
"""Bytes of a definition or of results that are read back."""

SUBMIT_PATIENCE: Final = 15.0
"""Seconds for which a submit asks again where nobody answers. A stream of a cluster has no leader for a while after a
member died, and a transport is silent for up to 10 s before it says so."""

_PAUSE = 0.5
_AT_ONCE = 32
_ENVELOPE = 4096  # room for the envelope and the fields around a definition


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that is durably accepted. `existed`: the same job had been submitted before."""

    job_id: str
    job_type: str
    definition_sha256: str
    existed: bool = False


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job in a list. Times in milliseconds, 0 = unknown or not yet."""

    job_id: str
    job_type: str
    name: str
    state: JobState
    created_at: int = 0
    ended_at: int = 0
    task_count: int = 0
    error: str = ""


class CancelAnswer(Enum):
    """What a cancel came to."""

    CANCELLED = "cancelled"
    ALREADY_OVER = "already over"
    UNKNOWN = "unknown"
    NO_ORACLE = "no Oracle alive"
    NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer, and the job's state as far as it is known."""

    answer: CancelAnswer
    state: JobState | None = None


class JobClient:
    """Jobs on one bus. The transport stays its maker's."""

    def __init__(self, transport: Transport, retention: Retention | None = None) -> None:
        self.transport = transport
        self._retention = retention
        self._journals: dict[str, Journal] = {}
        self._reconnected: set[Callable[[], None]] = set()
        transport.on_reconnect(self._tell_reconnected)

    # --- submit --------------------------------------------------------------------------------------

    async def submit(
        self,
        definition: JobDefinition,
        *,
        job_id: str | None = None,
        new_id: str | None = None,
        retry_of: str | None = None,
    ) -> Submitted:
        """Have the job accepted. The same `job_id` again is the same job, however often and from wherever.

        `new_id`: a fresh id (`new_job_id`) that the caller watches already; nothing is looked up for it.

        Silence is met with patience (`SUBMIT_PATIENCE`). Raises `OtherDefinition`, `EcumeneFull`, `InvalidId`, and what
        `Transport.publish` raises.
        """
        body = encode_definition(definition)
        sha256 = hashlib.sha256(body).hexdigest()
        accepted = Submitted(job_id or new_id or new_job_id(), definition.job_type, sha256)
        if job_id is not None:
            check_job_id(job_id)
        until = asyncio.get_running_loop().time() + SUBMIT_PATIENCE
        known = await _patiently(lambda: self._prepare(job_id), until, "not submitted")
        if known is not None:
            return self._same(accepted, *known)
        raw: msgspec.Raw | None = msgspec.Raw(body)
        ref: Ref | None = None
        if len(body) + _ENVELOPE > self.transport.max_payload // 2:
            raw = None
            ref = await _patiently(lambda: self._store_definition(accepted.job_id, body), until, "not submitted")
        payload = JobSubmitted(
            accepted.job_id,
            accepted.job_type,
            definition.org,
            definition=raw,
            definition_ref=ref,
            submitted_at=now_ms(),
            retry_of=retry_of,
        )
        return await self._publish_submit(accepted, payload, until, fresh=job_id is None)

    async def _publish_submit(
        self, accepted: Submitted, payload: JobSubmitted, until: float, *, fresh: bool
    ) -> Submitted:
        event_id = f"{accepted.job_id}:submit"
        subject, body = subjects.submit(accepted.job_type), encode_payload(event_id, payload)
        ack = await _patiently(
            lambda: self.transport.publish(subject, body, msg_id=event_id),
            until,
            f"whether {accepted.job_id} was submitted is unknown (submitted again under this id, it is the same job)",
        )
        if fresh or not ack.duplicate:  # nobody else has this id: a duplicate is our own try whose answer got lost
            return accepted
        # A submit of this id is there already, and no Oracle had taken it when we looked.
        entry = await (await self.log(INBOX)).read(ack.seq)
        other = None if entry is None else _submit_in(entry.payload)
        return accepted if other is None else self._same(accepted, other[0].job_type, other[1])

    async def _store_definition(self, job_id: str, body: bytes) -> Ref:
        store = await self.transport.artifact_store(ARTIFACT_STORE)
        stored = await store.put(subjects.artifact_key(job_id, "definition.json"), body, media_type="application/json")
        return Ref(stored.store, stored.key, stored.size, stored.sha256, stored.media_type)

    @staticmethod
    def _same(wanted: Submitted, job_type: str, sha256: str) -> Submitted:
        if sha256 != wanted.definition_sha256:
            raise OtherDefinition(wanted.job_id)
        return Submitted(wanted.job_id, job_type, sha256, existed=True)

    async def _known(self, job_id: str) -> tuple[str, str] | None:
        """`(job type, digest of its definition)` of a job that exists."""
        if (summary := await self.summary(job_id)) is not None:
            return summary.job_type, summary.definition_sha256
        if (created := await self.created(job_id)) is not None:
            return created.job_type, created.definition_sha256
        if (waiting := await self._waiting_submit(job_id)) is not None:
            return waiting[0].job_type, waiting[1]
        return None

    async def _prepare(self, job_id: str | None) -> tuple[str, str] | None:
        """See that there are streams with room, and what is known of a job of that id."""
        states = await asyncio.gather(*map(self._stream_state, WORK_STREAMS))
        if None in states:
            await self._make_streams()
        for state in states:
            if state is not None and state.fullness >= FULL:
                raise EcumeneFull(state.name, state.fullness)
        return None if job_id is None else await self._known(job_id)

    async def _make_streams(self) -> None:
        """Those that are missing: the others are as their maker wanted them."""
        for spec in streams(self._retention):
            if await self._stream_state(spec.name) is None:
                await self.transport.ensure_stream(spec)

    async def _stream_state(self, name: str) -> StreamState | None:
        try:
            return await self.transport.stream_state(name)
        except NotFound:
            return None

    # --- find ----------------------------------------------------------------------------------------

    async def log(self, stream: str) -> Journal:
        """One of the streams, as a log. Raises `NoEcumene` where there is none."""
        found = self._journals.get(stream)
        if found is None:
            try:
                found = self._journals[stream] = await self.transport.journal(stream)
            except NotFound:
                raise NoEcumene from None
        return found

    async def summary(self, job_id: str) -> JobSummary | None:
        """The job's entry in the history: there is one when it is over."""
        subject = subjects.history("*", job_id)
        entry = await (await self.log(HISTORY)).last(subject)
        return None if entry is None else records.summary(entry.payload, entry.subject)

    async def results(self, summary: JobSummary) -> list[TaskSummary]:
        """A summary's tasks, also where they are in the artifact store."""
        if summary.tasks_ref is None:
            return summary.tasks
        return records.task_summaries(await self.fetch(summary.tasks_ref), summary.job_id)

    async def created(self, job_id: str) -> JobRecord | None:
        """How the job's journal begins; None where it has no journal (not taken yet, unknown, or over)."""
        log = await self.log(JOURNAL)
        async for entry in log.replay(subjects.journal("*", job_id)):
            return records.journal_record(entry.payload, entry.subject).created
        return None

    async def fetch(self, ref: Ref) -> bytes:
        """What a reference refers to."""
        store = await self.transport.artifact_store(ref.store)
        return await store.read(ref.key, limit=MAX_ARTIFACT)

    async def find(self, job_id: str, *, unfold: bool = False) -> JobView:
        """The job as it is now; `unfold`: with the jobs that its molecules are. Raises `UnknownJob`."""
        check_job_id(job_id)
        async with self.watch(job_id, look_back=True, unfold=unfold) as watch:
            view = await watch.snapshot()
        if view.known or view.seq:
            return view
        waiting = await self._waiting_submit(job_id)
        if waiting is None:
            raise UnknownJob(job_id)
        view.job_type, view.created_at = waiting[0].job_type, waiting[0].submitted_at
        return view

    async def _waiting_submit(self, job_id: str) -> tuple[JobSubmitted, str] | None:
        """The job's submit and its definition's digest, where no Oracle has taken it yet."""
        async for submit, sha256 in self._waiting_submits():
            if submit.job_id == job_id:
                return submit, sha256
        return None

    async def _waiting_submits(self) -> AsyncIterator[tuple[JobSubmitted, str]]:
        try:
            floor = (await self.transport.consumer_state(INBOX, subjects.ORACLE_CONSUMER)).ack_floor
        except NotFound:  # there never was an Oracle
            floor = 0
        async for entry in (await self.log(INBOX)).replay(subjects.submit("*"), floor):
            if (found := _submit_in(entry.payload)) is not None:
                yield found

    # --- list ----------------------------------------------------------------------------------------

    async def jobs(self, states: frozenset[JobState] | None = None, limit: int = 100) -> list[JobLine]:
        """The newest jobs first: those under way, those in the history, those that wait for an Oracle."""
        live, over = await self.log(JOURNAL), await self.log(HISTORY)
        lines: dict[str, JobLine] = {}
        for submit in [submit async for submit, _ in self._waiting_submits()]:
            lines[submit.job_id] = JobLine(
                submit.job_id, submit.job_type, "", JobState.PENDING, created_at=submit.submitted_at
            )
        # Ids that were made here sort by time; whatever sorts first is looked at first.
        running = sorted(await live.subjects(subjects.journal("*", "*")), key=_id_in, reverse=True)
        for line in await _gathered(running[: limit * 2], self._live_line):
            if line is not None:
                lines[line.job_id] = line
        ended = sorted(await over.subjects(subjects.history("*", "*")), key=_id_in, reverse=True)
        wanted = ended if states is not None else ended[: limit * 2]
        for entry in (await over.last_many(wanted)).values():
            line = _ended_line(entry.payload)
            if line is not None:
                lines[line.job_id] = line
        found = [line for line in lines.values() if states is None or line.state in states]
        found.sort(key=lambda line: (line.created_at, line.job_id), reverse=True)
        return found[:limit]

    async def _live_line(self, subject: str) -> JobLine | None:
        log = await self.log(JOURNAL)
        _, _, job_type, job_id = subject.split(".")
        created: JobRecord | None = None
        async for entry in log.replay(subject):
            created = records.journal_record(entry.payload, subject).created
            break
        last = await log.last(subject)
        if last is None:  # purged meanwhile: the history has it
            return None
        final = records.journal_record(last.payload, subject).final
        state = JobState.RUNNING if final is None else JobState.FINISHING
        if created is None:
            return JobLine(job_id, job_type, "", state)
        outline = await self.outline(created)
        return JobLine(job_id, job_type, outline.name, state, created.created_at, 0, len(outline.tasks))

    async def outline(self, created: JobRecord) -> JobOutline:
        """The definition of a job that was created, as far as somebody who looks on needs it."""
        if created.definition_ref is not None:
            return records.outline(await self.fetch(created.definition_ref), created.job_id)
        return records.outline(created.definition or b"", created.job_id)

    # --- watch ---------------------------------------------------------------------------------------

    def watch(self, job_id: str, *, look_back: bool = False, unfold: bool = False) -> JobWatch:
        """Follow a job: `async with client.watch(id) as watch: async for changes in watch: …`.

        `look_back`: also read what running tasks said before (their progress); pointless for a fresh job.
        `unfold`: follow the jobs that its molecules are, too.
        """
        return JobWatch(self, job_id, look_back=look_back, unfold=unfold)

    async def nobody_handles(self, task_type: str) -> bool:
        """Whether no Operative waits for, or works at, tasks of this type."""
        try:
            state = await self.transport.consumer_state(QUEUE, subjects.operative_consumer(task_type))
        except NotFound:
            return True
        # Busy Operatives have no pull waiting, but they hold messages.
        return state.waiting == 0 and state.ack_pending == 0

    async def no_oracle(self) -> bool:
        """Whether no Oracle waits for messages now (look twice: one may be busy for a moment)."""
        try:
            return (await self.transport.consumer_state(INBOX, subjects.ORACLE_CONSUMER)).waiting == 0
        except NotFound:
            return True

    def when_reconnected(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each regained connection; returns what ends that."""
        self._reconnected.add(callback)
        return lambda: self._reconnected.discard(callback)

    def _tell_reconnected(self) -> None:
        for callback in tuple(self._reconnected):
            callback()

    # --- cancel --------------------------------------------------------------------------------------

    async def cancel(self, job_id: str, reason: str = "", *, timeout: float = 10.0) -> Cancelled:
        """Cancel the job and wait for what comes of it."""
        try:
            view = await self.find(job_id)
        except UnknownJob:
            return Cancelled(CancelAnswer.UNKNOWN)
        if view.over or view.state is JobState.FINISHING:
            return Cancelled(CancelAnswer.ALREADY_OVER, view.state)
        async with self.watch(job_id) as watch:
            await self.request_cancel(job_id, view.job_type, reason)
            try:
                async with asyncio.timeout(timeout):
                    state = await watch.end()
            except TimeoutError:
                answer = CancelAnswer.NO_ORACLE if await self.no_oracle() else CancelAnswer.NO_ANSWER
                return Cancelled(answer, watch.view.state)
        return Cancelled(CancelAnswer.CANCELLED if state is JobState.CANCELLED else CancelAnswer.ALREADY_OVER, state)

    async def request_cancel(self, job_id: str, job_type: str, reason: str = "") -> None:
        """Ask for the cancel; returns when the request is durable."""
        event_id = f"{job_id}:cancel"
        await self.transport.publish(
            subjects.cancel(job_type), encode_payload(event_id, JobCancelRequested(job_id, reason)), msg_id=event_id
        )

    # --- pause, resume, step -------------------------------------------------------------------------

    async def control(
        self,
        job_id: str,
        task_type: str,
        kind: ControlKind,
        *,
        task_ids: Sequence[str] = (),
        reason: str = "",
        control_id: str | None = None,
    ) -> str:
        """Tell the job's tasks of that type (or those of them with these ids) to pause, resume or step.

        What an Operative hears of it is a hint: one that is reconnecting, or has not got the task yet, misses it, and
        a task type that can't do it ignores it. So look at what the task says in its progress, and tell it again with
        `control_id`, which this returns: an attempt takes every id once, so a step that is told twice is one step.
        To cancel is the Oracle's: `cancel` (`ValueError` here).
        """
        if kind is ControlKind.CANCEL:
            raise ValueError("a job is cancelled by its Oracle: JobClient.cancel")
        subject = subjects.control(check_type_name(task_type))
        control = TaskControl(kind, check_job_id(job_id), list(task_ids), reason)
        event_id = control_id or f"{job_id}:{task_type}:control:{new_ulid()}"
        await self.transport.publish(subject, encode_payload(event_id, control), msg_id=event_id)
        return event_id


async def _patiently(action: Callable[[], Awaitable[T]], until: float, otherwise: str) -> T:
    """Do it, again and again while nobody answers; after `until`, raise `Unavailable`: `otherwise`, and why."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return await action()
        except Unavailable as error:
            if loop.time() + _PAUSE >= until:
                raise Unavailable(f"{otherwise}: {error}") from error
            log.warning("no answer yet: %s", error)
            await asyncio.sleep(_PAUSE)


def _submit_in(body: bytes) -> tuple[JobSubmitted, str] | None:
    try:
        submit = records.SUBMITTED.decode(body).data
    except (UndecodableMessage, UnknownVersion):  # somebody else's matter: the Oracle dead-letters it
        return None
    if submit.definition_ref is not None:
        return submit, submit.definition_ref.sha256
    return submit, hashlib.sha256(submit.definition or b"").hexdigest()


def _ended_line(body: bytes) -> JobLine | None:
    try:
        head = records.SUMMARY_HEAD.decode(body).data
        state = JobState(head.state)
    except (UndecodableMessage, UnknownVersion, ValueError):  # one entry that can't be read hides no other
        return None
    return JobLine(
        head.job_id,
        head.job_type,
        head.name,
        state,
        head.created_at,
        head.ended_at,
        head.task_count,
        head.error or head.reason,
    )


def _id_in(subject: str) -> str:
    return subject.rsplit(".", 1)[1]


async def _gathered(items: list[str], look: Callable[[str], Awaitable[JobLine | None]]) -> list[JobLine | None]:
    found: list[JobLine | None] = []
    for start in range(0, len(items), _AT_ONCE):
        found += await asyncio.gather(*map(look, items[start : start + _AT_ONCE]))
    return found
