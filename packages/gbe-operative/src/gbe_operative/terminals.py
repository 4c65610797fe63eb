"""The report of a task's end, as it goes on the wire."""

from __future__ import annotations

import logging

from msgspec import Raw
from msgspec.structs import replace

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import Inline, nested_deeper
from gbe_jobs_domain.outcomes import Completed, Failed, TaskOutcome
from gbe_jobs_domain.payloads import TaskEnded, TaskQueued
from gbe_nexus import NexusError, Outgoing, encode_payload
from gbe_operative.contract import Execution, OperativeError
from gbe_operative.core.sizing import inline_data, too_large, trim_texts
from gbe_operative.workshop import Workshop

log = logging.getLogger(__name__)


def make_terminal(
    worker: str, task: TaskQueued, attempt: int, starts: int, started_at: int, ended_at: int, outcome: TaskOutcome
) -> Outgoing:
    """The message. Its id is the same however often this attempt's end is reported."""
    event_id = f"{task.task_id}:{attempt}:terminal"
    ended = TaskEnded(
        task.task_id,
        task.job_id,
        task.job_type,
        task.task_name,
        task.task_type,
        attempt,
        worker,
        started_at,
        ended_at,
        outcome,
        starts,
    )
    return Outgoing(subjects.terminal(task.task_type), encode_payload(event_id, ended, ended_at), event_id)


def masked(execution: Execution, outcome: TaskOutcome) -> TaskOutcome:
    """The outcome without the task's secrets. Errors tend to quote, and stderr is the end of one, so there pieces of
    secrets are looked for as well."""
    masker = execution.masker
    if masker is None:
        return outcome
    if not isinstance(outcome, Completed | Failed):
        return replace(outcome, reason=masker.excerpt(outcome.reason))
    data = outcome.data
    if isinstance(data, Inline):
        data = replace(data, value=Raw(masker.json(bytes(data.value))))
    clean = replace(
        outcome, output=[masker.text(line) for line in outcome.output], stderr=masker.excerpt(outcome.stderr), data=data
    )
    return replace(clean, error=masker.excerpt(clean.error)) if isinstance(clean, Failed) else clean


async def fitted(workshop: Workshop, execution: Execution, outcome: TaskOutcome) -> TaskOutcome:
    """The outcome as it can travel: large and deeply nested data goes to the artifact store, texts are cut to their
    ends."""
    limit = workshop.settings.inline_limit
    data = inline_data(outcome)
    if data is not None and (size := len(bytes(data.value))) > (most := workshop.settings.data_limit):
        return trim_texts(_without_large_data(execution, outcome, size, most), limit)
    if data is not None and (len(bytes(data.value)) > limit or nested_deeper(bytes(data.value))):
        outcome = await _spilled(workshop, execution, outcome, data)
        data = inline_data(outcome)
    outcome = trim_texts(outcome, limit)
    whole = workshop.transport.max_payload // 2
    if size_of(execution, outcome) > whole:
        if data is not None:
            outcome = await _spilled(workshop, execution, outcome, data)
        outcome = trim_texts(outcome, whole // 4)
    return outcome


def _without_large_data(execution: Execution, outcome: TaskOutcome, size: int, limit: int) -> Failed:
    """The failure that data beyond the hard limit is; a failure's own error is kept."""
    error = too_large(
        execution.task.task_name, "data", size, limit, "store it as an artifact and hand on its reference"
    )
    if isinstance(outcome, Failed):
        return replace(outcome, data=None, error=f"{outcome.error}\n{error}")
    assert isinstance(outcome, Completed)
    return Failed(error=error, output=outcome.output, stderr=outcome.stderr)


def size_of(execution: Execution, outcome: TaskOutcome) -> int:
    """Bytes of its terminal."""
    return len(make_terminal("w" * 80, execution.task, execution.attempt, 99, 10**13, 10**13, outcome).payload)


async def _spilled(workshop: Workshop, execution: Execution, outcome: TaskOutcome, data: Inline) -> TaskOutcome:
    raw = bytes(data.value)
    try:
        ref = await workshop.spill(execution, raw, "data.json", "application/json")
    except (NexusError, OperativeError) as error:
        log.warning("data of task %s (%d bytes) can't be stored: %s", execution.task.task_id, len(raw), error)
        return Failed(error=f"the data of {len(raw)} bytes fits in no message and can't be stored: {error}")
    assert isinstance(outcome, Completed | Failed)
    return replace(outcome, data=replace(ref, items=data.items))
