"""From bus messages to events: decoding what is addressed to the Oracle."""

from __future__ import annotations

import hashlib

from msgspec import Struct, ValidationError, json

from gbe_jobs_domain.ids import task_index
from gbe_jobs_domain.outcomes import FailureKind
from gbe_jobs_domain.payloads import JobCancelRequested, JobSubmitted, TaskEndedOpaque
from gbe_jobs_domain.states import TaskState
from gbe_nexus import Message, PayloadDecoder, UndecodableMessage
from gbe_oracle.core.events import CancelRequested, JobEvent, Reported, Submitted


class _OutcomeHead(Struct, frozen=True, gc=False):
    state: str
    error: str = ""
    kind: str = ""


_ended = PayloadDecoder(TaskEndedOpaque)
_submitted = PayloadDecoder(JobSubmitted)
_cancel = PayloadDecoder(JobCancelRequested)
_head = json.Decoder(_OutcomeHead)

_STATE_OF = {
    "completed": TaskState.COMPLETED.value,
    "skipped": TaskState.SKIPPED.value,
    "failed": TaskState.FAILED.value,
}


def reported(body: TaskEndedOpaque) -> Reported | None:
    """The event of a report; None where its task id is not one of its job's.

    Raises `UndecodableMessage` where the outcome is none.
    """
    index = task_index(body.job_id, body.task_id)
    if index is None:
        return None
    try:
        head = _head.decode(body.outcome)
    except ValidationError as error:
        raise UndecodableMessage(f"outcome: {error}") from error
    state = _STATE_OF.get(head.state)
    if state is None:
        raise UndecodableMessage(f"outcome: unknown state {head.state!r}")
    if head.kind == FailureKind.CANCELLED:
        state = TaskState.CANCELLED.value
    return Reported(
        index,
        state,
        body.attempt,
        body.starts,
        body.worker,
        body.started_at,
        body.ended_at,
        body.outcome,
        head.error,
    )


def decode(message: Message) -> tuple[str, str, JobEvent | Submitted | None]:
    """`(job type, job id, event)` of a message of `GBE_INBOX`; no event: a report that is about nothing.

    Raises `UndecodableMessage` and `UnknownVersion`.
    """
    subject = message.subject
    kind = subject[subject.rfind(".") + 1 :]
    if kind == "terminal":
        body = _ended.decode(message.payload).data
        return body.job_type, body.job_id, reported(body)
    job_type = subject.split(".")[2]
    if kind == "submit":
        submit = _submitted.decode(message.payload).data
        if submit.job_type != job_type:
            raise UndecodableMessage(f"job type {submit.job_type!r} on the subject of {job_type!r}")
        if (submit.definition is None) == (submit.definition_ref is None):
            raise UndecodableMessage("exactly one of definition and definition_ref is expected")
        if submit.definition is not None:
            sha256 = hashlib.sha256(submit.definition).hexdigest()
        else:
            assert submit.definition_ref is not None
            sha256 = submit.definition_ref.sha256
        return job_type, submit.job_id, Submitted(submit, sha256)
    cancel = _cancel.decode(message.payload).data
    return job_type, cancel.job_id, CancelRequested(cancel.reason or "cancelled on request")
