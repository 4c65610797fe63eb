"""From bus messages to events: decoding what is addressed to the Oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from msgspec import DecodeError, Raw, Struct, json, structs

from gbe_jobs_domain.edges import MAX_NESTING, EdgeData, nested_deeper
from gbe_jobs_domain.ids import task_index
from gbe_jobs_domain.outcomes import FailureKind
from gbe_jobs_domain.payloads import JobCancelRequested, JobSubmitted, TaskEndedOpaque
from gbe_jobs_domain.states import TaskState
from gbe_nexus import Message, PayloadDecoder, UndecodableMessage
from gbe_oracle.core.events import CancelRequested, JobEvent, Reported, Submitted
from gbe_oracle.core.job import failed_outcome, shortened


class _OutcomeHead(Struct, frozen=True, gc=False):
    # Everything the Oracle ever opens of an outcome: checked here, so that nothing fails on it later.
    state: str
    error: str = ""
    kind: str = ""
    exit_code: int = 1
    stderr: str = ""
    data: EdgeData | None = None


_ended = PayloadDecoder(TaskEndedOpaque)
_submitted = PayloadDecoder(JobSubmitted)
_cancel = PayloadDecoder(JobCancelRequested)
_head = json.Decoder(_OutcomeHead)

SMALL = 4096
"""Bytes up to which an outcome is worth copying out of its message."""

RECORD_NESTING = MAX_NESTING + 64
"""Levels of what goes into the journal as it is: the data of an outcome and what is around it, in molecules as well."""

SUBMIT_NESTING = RECORD_NESTING + 8
"""Levels of a submit, which may bring any outcome along that is in a journal."""

UNREADABLE = (DecodeError, ValueError, RecursionError)

_STATE_OF = {
    "completed": TaskState.COMPLETED.value,
    "skipped": TaskState.SKIPPED.value,
    "failed": TaskState.FAILED.value,
}


def reported(body: TaskEndedOpaque) -> Reported | None:
    """The event of a report; None where its task id is not one of its job's.

    An outcome that can't be read fails the task: nobody will report its end again.
    """
    index = task_index(body.job_id, body.task_id)
    if index is None:
        return None
    outcome = body.outcome
    if memoryview(outcome).nbytes <= SMALL:
        outcome = outcome.copy()  # else it would keep its whole message in memory
    try:
        state, error = _read(outcome)
    except UNREADABLE as problem:
        state, error = TaskState.FAILED.value, shortened(f"the outcome in the task's report can't be read: {problem}")
        outcome = failed_outcome(error)
    return Reported(
        index,
        state,
        body.attempt,
        body.starts,
        body.worker,
        body.started_at,
        body.ended_at,
        outcome,
        error,
    )


def _read(outcome: Raw) -> tuple[str, str]:
    """The task state an outcome leads to, and its error."""
    if nested_deeper(bytes(outcome), RECORD_NESTING):
        raise ValueError(f"nested deeper than {RECORD_NESTING} levels")
    head = _head.decode(outcome)
    if head.state == "failed" and head.kind == FailureKind.CANCELLED:
        return TaskState.CANCELLED.value, shortened(head.error)
    state = _STATE_OF.get(head.state)
    if state is None:
        raise ValueError(f"unknown state {shortened(head.state)!r}")
    return state, shortened(head.error)


def oversized(event: Reported, size: int, limit: int) -> Reported:
    """The event of a report that no journal record can hold: its task fails, saying so."""
    error = f"the outcome in the task's report is too large for the journal: {size} bytes, the limit is {limit}"
    return structs.replace(event, state=TaskState.FAILED.value, outcome=failed_outcome(error), error=error)


def reuse_problem(reuse: Mapping[str, Raw]) -> str | None:
    """What is wrong with the outcomes that a submit brings along; None where nothing is."""
    for name, outcome in reuse.items():
        try:
            state, _ = _read(outcome)
        except UNREADABLE as error:
            return f"reuse: the outcome of {shortened(name)!r} can't be read: {error}"
        if not TaskState(state).satisfied:
            return f"reuse: the outcome of {shortened(name)!r} is no success"
    return None


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
        if nested_deeper(bytes(message.payload), SUBMIT_NESTING):
            raise UndecodableMessage(f"nested deeper than {SUBMIT_NESTING} levels")
        if submit.definition is not None:
            sha256 = hashlib.sha256(submit.definition).hexdigest()
        else:
            assert submit.definition_ref is not None
            sha256 = submit.definition_ref.sha256
        return job_type, submit.job_id, Submitted(submit, sha256)
    cancel = _cancel.decode(message.payload).data
    return job_type, cancel.job_id, CancelRequested(shortened(cancel.reason) or "cancelled on request")
