"""The submit of an inner job."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Raw
from msgspec.structs import replace

from gbe_jobs_domain import subjects
from gbe_jobs_domain.canonical import encode_definition
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.payloads import JobSubmitted, Parent, RetryPolicy, TaskQueued, encode
from gbe_nexus import ArtifactStore, NexusError, Transport, encode_payload, now_ms
from gbe_operative.core.backoff import retry_delay
from gbe_operative_molecule.plan import rejected

log = logging.getLogger(__name__)

PATIENCE = RetryPolicy(delay=0.2, factor=2.0, max_delay=5.0)
"""Between tries at what the bus does not take at the moment."""

_ENVELOPE = 4096  # room for the envelope and the fields around a definition

T = TypeVar("T")


async def insist(what: str, action: Callable[[], Awaitable[T]]) -> T:
    """Do something on the bus, again and again while it is away. Raises the errors that stay."""
    tries = 0
    while True:
        try:
            return await action()
        except NexusError as error:
            if not error.retryable:
                raise
            tries += 1
            log.log(logging.WARNING if tries == 3 else logging.DEBUG, "can't %s yet: %s", what, error)
            await asyncio.sleep(0.05 + retry_delay(PATIENCE, tries, random.random))


async def submit_child(
    transport: Transport,
    artifacts: ArtifactStore,
    task: TaskQueued,
    attempt: int,
    child: str,
    definition: JobDefinition,
    lineage: list[str],
) -> None:
    """Have the inner job accepted. The same task and attempt again is the same job: its id says so.

    Raises `OperativeError` for what can never be submitted, and `NexusError`.
    """
    limit = transport.max_payload // 2
    again: Raw | None = None
    room = limit - _ENVELOPE
    if attempt <= task.max_retries:
        # The Oracle that ends the child has the task's next attempt from here: it does not hold the parent job.
        again = Raw(encode(replace(task, retry_count=attempt)))
        room -= len(bytes(again))
        if room < 0:
            size, most = len(bytes(again)), limit - _ENVELOPE
            raise rejected(
                f"max_retries: inputs and params of {size:,} bytes are too large for a molecule that is to be repeated "
                f"(limit {most:,} bytes); pass large ones by reference (a param named *_ref)"
            )
    body = encode_definition(definition)
    inline: Raw | None = Raw(body)
    reference: Ref | None = None
    if len(body) > room:
        inline, reference = None, await insist("store a definition", lambda: _store(artifacts, child, body))
    submit = JobSubmitted(
        child,
        definition.job_type,
        definition.org,
        inline,
        reference,
        now_ms(),
        parent=Parent(task.job_id, task.task_id, task.job_type, task.task_type, task.task_name, attempt),
        depth=task.depth + 1,
        deadline_at=0 if task.timeout_secs is None else now_ms() + max(1, round(task.timeout_secs * 1000)),
        again=again,
        lineage=lineage,
    )
    event_id = f"{child}:submit"
    payload = encode_payload(event_id, submit)
    subject = subjects.submit(definition.job_type)
    await insist("submit an inner job", lambda: transport.publish(subject, payload, msg_id=event_id))


async def _store(artifacts: ArtifactStore, child: str, body: bytes) -> Ref:
    key = subjects.artifact_key(child, "definition.json")
    stored = await artifacts.put(key, body, media_type="application/json")
    return Ref(ARTIFACT_STORE, stored.key, stored.size, stored.sha256, stored.media_type)


async def adopted(artifacts: ArtifactStore, child: str, name: str, ref: Ref) -> str:
    """A copy of an artifact as one of the inner job's own: it reaches no other's. Returns its URI."""
    key = subjects.artifact_key(child, "vars", name)
    known = await insist("look up an artifact", lambda: artifacts.info(key))
    if known is None or known.sha256 != ref.sha256:
        await insist("copy an artifact", lambda: artifacts.put(key, artifacts.get(ref.key), media_type=ref.media_type))
    return f"store://{ARTIFACT_STORE}/{key}"
