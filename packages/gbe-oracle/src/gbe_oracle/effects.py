"""From records to the messages that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Raw, json, structs

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline, Ref
from gbe_jobs_domain.ids import task_id
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, TaskOutcome
from gbe_jobs_domain.paths import JSON, PathError
from gbe_jobs_domain.paths import opened as open_value
from gbe_jobs_domain.payloads import (
    ControlKind,
    JobCancelRequested,
    Parent,
    TaskControl,
    TaskDispatch,
    TaskEnded,
)
from gbe_jobs_domain.records import OutcomeRecord, ParentRecord
from gbe_jobs_domain.results import ToBeRead
from gbe_nexus import (
    ArtifactStore,
    IntegrityError,
    NotFound,
    Outgoing,
    PayloadDecoder,
    PayloadTooLarge,
    encode_payload,
    now_ms,
)
from gbe_oracle.core import messages
from gbe_oracle.core.job import Job
from gbe_oracle.loading import Loader
from gbe_oracle.slots import Entry, Slot

CHUNK = 8 << 20
"""Bytes written to the bus before its answers are awaited."""
EDGES_KEPT = 16
"""Edges per job kept opened, for dependents that are dispatched one after the other."""
STDERR_KEPT = 16_384
"""Characters of an inner task's stderr in a report to a parent that would be too large."""
OPENED = 64 << 20
"""Bytes of an artifact that is opened because the output of a molecule has a path into it."""
_HEADROOM = 512  # headers and protocol around a payload
_REF_SIZE = 400  # no gain in replacing an input smaller than a reference

_dispatch = PayloadDecoder(TaskDispatch)
_report = PayloadDecoder(TaskEnded)
_edge = json.Decoder(Inline | Ref)
_encode = json.Encoder().encode
_NO_INPUTS: dict[str, Raw] = {}


class Effects:
    """Builds the effects of committed records. `identity` is who reports for child jobs."""

    chunk = CHUNK

    def __init__(self, loader: Loader, artifacts: ArtifactStore, *, identity: str, max_payload: int) -> None:
        self._loader = loader
        self._artifacts = artifacts
        self._identity = identity
        self._max_payload = max_payload
        self._large = max_payload // 2

    def build(self, entry: Entry, outgoing: list[Outgoing]) -> int | None:
        """Append the record's effects that are still wanted; returns their bytes.

        None: an outcome that is needed is no longer in memory; nothing was appended then.
        """
        return self._build(entry, outgoing, {})

    async def build_reading(self, entry: Entry, outgoing: list[Outgoing]) -> int | None:
        """The same, reading from the journal what is missing; None where the journal was purged meanwhile."""
        job = entry.job
        found: dict[int, OutcomeRecord] = {}
        if job is not None:
            begin = len(outgoing)
            needed = {
                index
                for dispatched in entry.record.dispatch
                if job.is_open(dispatched)
                for index in job.graph.upstream_read(dispatched)
            }
            if entry.record.final is not None and job.spec.parent is not None:
                needed = {index for index in range(len(job.graph)) if job.applied_at[index]}
            # Also what is in memory now: it may be evicted while the rest is read.
            found = {index: entry.slot.outcomes[index] for index in needed if index in entry.slot.outcomes}
            for seq in sorted({job.applied_at[index] for index in needed if index not in found} - {0}):
                record = await self._loader.record(seq)
                if record is None:
                    return None
                for outcome in record.outcomes:
                    if outcome.index in needed:
                        found[outcome.index] = outcome
        opened: dict[str, object] = {}
        while True:
            try:
                size = self._build(entry, outgoing, found, slowly=True, opened=opened)
                break
            except ToBeRead as needed_too:
                opened[needed_too.ref.key] = await self._open(needed_too.ref)
        assert size is not None, "everything needed was read"
        if job is not None and job.spec.parent is not None:
            for place in range(begin, len(outgoing)):
                if outgoing[place].subject.endswith(".terminal"):
                    if _hands_on(outgoing[place]):
                        parent = _encode(ParentRecord(job.spec.parent.job_id))
                        await self._artifacts.put(subjects.parent_key(entry.slot.job_id), parent, media_type=JSON)
                    if len(outgoing[place].payload) > self._large:
                        outgoing[place] = await self._spill_report(outgoing[place])
        return size

    async def _open(self, ref: Ref) -> object:
        """What is in an artifact, or why that can't be said."""
        try:
            if ref.store != ARTIFACT_STORE:
                raise PathError(f"no artifact store {ref.store!r}")
            return open_value(await self._artifacts.read(ref.key, limit=OPENED), ref.media_type)
        except (NotFound, IntegrityError, PayloadTooLarge) as error:
            return PathError(str(error))
        except PathError as error:
            return error

    async def _spill_report(self, message: Outgoing) -> Outgoing:
        """A report for a parent with its data by reference, and of long texts the end."""
        payload = _report.decode(message.payload)
        report = payload.data
        outcome = report.outcome
        if isinstance(outcome, Completed) and isinstance(outcome.data, Inline):
            key = subjects.artifact_key(report.job_id, "children", report.task_id, "results.json")
            stored = await self._artifacts.put(key, bytes(outcome.data.value), media_type="application/json")
            ref = Ref(ARTIFACT_STORE, key, stored.size, stored.sha256, stored.media_type)
            outcome = structs.replace(outcome, data=ref)
        elif isinstance(outcome, Failed):
            outcome = structs.replace(outcome, stderr=outcome.stderr[-STDERR_KEPT:])
        body = _encode(structs.replace(payload, data=structs.replace(report, outcome=outcome)))
        return Outgoing(message.subject, body, message.msg_id)

    def _build(
        self,
        entry: Entry,
        outgoing: list[Outgoing],
        read: Mapping[int, OutcomeRecord],
        *,
        slowly: bool = False,
        opened: Mapping[str, object] | None = None,
    ) -> int | None:
        job, record, slot = entry.job, entry.record, entry.slot
        if job is None:
            return 0
        begin = len(outgoing)
        size = 0
        job_id, job_type = slot.job_id, slot.job_type
        ts = now_ms()
        # Before the end comes the beginning: its writer may have died before that was out, and the submit, which would
        # heal it, may come back when the job is over.
        if record.created is not None or (record.final is not None and slot.created_at_seq not in slot.settled):
            event_id = f"{job_id}:created"
            body = encode_payload(event_id, messages.created_event(job), job.spec.created_at)
            outgoing.append(Outgoing(subjects.job_event(job_type, "created"), body, event_id))
        tasks = job.outline.tasks
        for index in record.dispatch:
            if not job.is_open(index):
                continue
            inputs = self._inputs(slot, job, index, read) if tasks[index].input_from else _NO_INPUTS
            if inputs is None:
                del outgoing[begin:]
                return None
            event_id = f"{task_id(job_id, index)}:queue"
            body = encode_payload(event_id, messages.dispatch(job, index, inputs, entry.seq), ts)
            size += len(body)
            outgoing.append(Outgoing(subjects.queue(tasks[index].task_type), body, event_id))
        reason = "the job is over" if record.final is None else record.final.reason or record.final.error
        for task_type in record.control:
            event_id = f"{job_id}:{task_type}:control"
            control = TaskControl(ControlKind.CANCEL, job_id, reason=reason)
            outgoing.append(Outgoing(subjects.control(task_type), encode_payload(event_id, control, ts), event_id))
        for child_type, child_id in record.children:
            event_id = f"{child_id}:cancel"
            cancel = JobCancelRequested(child_id, reason)
            outgoing.append(Outgoing(subjects.cancel(child_type), encode_payload(event_id, cancel, ts), event_id))
        if record.final is not None:
            name, event = messages.final_event(job, record.final)
            event_id = f"{job_id}:{name}"
            body = encode_payload(event_id, event, record.final.at)
            outgoing.append(Outgoing(subjects.job_event(job_type, name), body, event_id))
            if job.spec.parent is not None:
                outcomes = {**slot.outcomes, **read}
                if any(job.applied_at[index] and index not in outcomes for index in range(len(job.graph))):
                    del outgoing[begin:]
                    return None
                try:
                    outcome = messages.parent_outcome(job, record.final, outcomes, opened)
                except ToBeRead:
                    del outgoing[begin:]
                    if slowly:
                        raise
                    return None
                message = self._parent_message(job, job.spec.parent, outcome, record.final.at)
                if not slowly and (len(message.payload) > self._large or _hands_on(message)):
                    del outgoing[begin:]
                    return None
                outgoing.append(message)
        return size

    def _parent_message(self, job: Job, parent: Parent, outcome: TaskOutcome, at: int) -> Outgoing:
        """The report for a parent's task, or that task's next attempt."""
        if messages.asks_again(job, outcome):
            event_id = f"{parent.task_id}:{parent.attempt}:again"
            return Outgoing(subjects.queue(parent.task_type), encode_payload(event_id, job.spec.again, at), event_id)
        return _terminal(messages.parent_report(parent, self._identity, job.spec.created_at, at, outcome))

    def _inputs(self, slot: Slot, job: Job, index: int, read: Mapping[int, OutcomeRecord]) -> dict[str, Raw] | None:
        inputs: dict[str, Raw] = {}
        edges = slot.edges
        for upstream in job.graph.upstream_read(index):
            edge = edges.get(upstream)
            if edge is None:
                outcome = slot.outcomes.get(upstream) or read.get(upstream)
                if outcome is None:
                    if job.applied_at[upstream]:
                        return None
                    continue
                found = messages.edge_of(outcome.outcome)
                if found is None:
                    continue
                edge = edges[upstream] = found
                if len(edges) > EDGES_KEPT:
                    del edges[next(iter(edges))]
            inputs[job.outline.tasks[upstream].name] = edge
        return inputs

    def chunks(self, outgoing: list[Outgoing]) -> Iterator[list[Outgoing]]:
        """The messages in portions of about `chunk` bytes."""
        portion: list[Outgoing] = []
        size = 0
        for message in outgoing:
            portion.append(message)
            size += len(message.payload)
            if size >= self.chunk:
                yield portion
                portion, size = [], 0
        if portion:
            yield portion

    async def spill_inputs(self, message: Outgoing) -> Outgoing | None:
        """A queue message too large for the bus with its largest inputs by reference; None where that is not enough."""
        limit = self._max_payload - _HEADROOM
        payload = _dispatch.decode(message.payload)
        inputs = dict(payload.data.inputs)
        for name in sorted(inputs, key=lambda name: len(bytes(inputs[name])), reverse=True):
            edge = _edge.decode(inputs[name])
            if isinstance(edge, Ref) or len(bytes(inputs[name])) <= _REF_SIZE:
                continue
            key = subjects.artifact_key(payload.data.job_id, "edges", name)
            stored = await self._artifacts.put(key, bytes(edge.value), media_type="application/json")
            ref = Ref(ARTIFACT_STORE, key, stored.size, stored.sha256, stored.media_type, edge.items)
            inputs[name] = Raw(_encode(ref))
            body = _encode(structs.replace(payload, data=structs.replace(payload.data, inputs=inputs)))
            if len(body) <= limit:
                return Outgoing(message.subject, body, message.msg_id)
        return None

    def refused_child(self, parent: Parent, reason: str, at: int) -> Outgoing:
        """The end of a task whose child job was refused."""
        outcome = Failed(f"the inner job was refused: {reason}", FailureKind.REJECTED)
        return _terminal(messages.parent_report(parent, self._identity, at, at, outcome))


def _hands_on(message: Outgoing) -> bool:
    """Whether a report refers to artifacts (or perhaps does: then they are kept in vain)."""
    return b"store://" in message.payload or b'"kind":"ref"' in message.payload


def too_large(message: Outgoing, limit: int) -> str:
    """Why no bus takes the queue message: which task, what of it is the largest part, and how large all may be."""
    task = _dispatch.decode(message.payload).data
    parts = {
        "params": len(bytes(task.params or b"")),
        "input_from": len(_encode(task.input_from)),
        "inputs": len(_encode(task.inputs)),
        "input_schema": len(bytes(task.input_schema or b"")),
        "output_schema": len(bytes(task.output_schema or b"")),
    }
    part = max(parts, key=lambda name: parts[name])
    return (
        f"task {task.task_name!r}: {part} of {parts[part]:,} bytes in a message of {len(message.payload):,}, "
        f"the limit is {limit:,}; store large values and pass references (params named *_ref)"
    )


def _terminal(report: TaskEnded) -> Outgoing:
    event_id = f"{report.task_id}:{report.attempt}:terminal"
    return Outgoing(subjects.terminal(report.task_type), encode_payload(event_id, report), event_id)
