"""Runs as the bus knows them, for an index that was lost: which there were, what became of them, how they were started.

What only the index knew is not there: the overrides as they were asked for (their effect is in the documents), who
stopped a run in between, the rate over time. The rest is collected from the artifacts, as after any other restart.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Collection
from typing import Any, Final

from gbe_jobs_domain import subjects
from gbe_jobs_domain.states import JobState
from gbe_jobs_domain.streams import HISTORY, JOURNAL
from gbe_nexus import IntegrityError, NexusError, NotFound
from gbe_overseer.client import JobClient
from gbe_overseer.errors import NoEcumene
from trinity_gate import engine
from trinity_gate.exports import Definition, documents_of
from trinity_gate.index import CANCELLED, COMPLETED, FAULT, RUNNING, RunRecord
from trinity_gate.models import SCENARIO_ID

log = logging.getLogger(__name__)

MOST: Final = 1_000
"""Runs at most, the newest ones."""

RUN_NAME: Final = "run of "
"""How the name of a run's job begins; the scenario's id follows."""

_JOB_ID = re.compile(r"job_([0-9A-HJKMNP-TV-Z]{26})")
_ENDS: Final = {JobState.COMPLETED: COMPLETED, JobState.CANCELLED: CANCELLED, JobState.FAILED: FAULT}


async def runs_on_the_bus(client: JobClient, job_type: str, known: Collection[str]) -> list[RunRecord]:
    """Runs whose jobs the bus has and whose job ids are not `known`, oldest first. Raises `NexusError`."""
    found: set[str] = set()
    for stream, pattern in ((JOURNAL, subjects.journal(job_type, "*")), (HISTORY, subjects.history(job_type, "*"))):
        try:
            found.update(subject.rsplit(".", 1)[1] for subject in await (await client.log(stream)).subjects(pattern))
        except (NotFound, NoEcumene):
            continue
    records: list[RunRecord] = []
    for job_id in sorted(found - set(known))[-MOST:]:
        try:
            record = await _record(client, job_id)
        except Exception as error:  # anybody may have submitted it, with anything in it
            if isinstance(error, NexusError) and not isinstance(error, NotFound | IntegrityError):
                raise
            log.warning("job %s is not taken into the index: %s", job_id, error)
            continue
        if record is not None:
            records.append(record)
    return records


async def _record(client: JobClient, job_id: str) -> RunRecord | None:
    """Raises `NexusError`, `OverseerError`, and anything about a job that no gate submitted."""
    ulid = _JOB_ID.fullmatch(job_id)
    if ulid is None:
        raise ValueError("its id is not that of a run")
    summary = await client.summary(job_id)
    created = None if summary is not None else await client.created(job_id)
    if summary is not None:
        definition, at = Definition(summary.definition, summary.definition_ref), summary.created_at
    elif created is not None:
        definition, at = Definition(created.definition, created.definition_ref), created.created_at
    else:
        return None  # it went meanwhile
    name, documents = await documents_of(client, job_id, definition)
    scenario_id = name.removeprefix(RUN_NAME)
    if scenario_id == name or not re.fullmatch(SCENARIO_ID, scenario_id):
        raise ValueError("its name is not that of a run")
    run_config: dict[str, Any] = json.loads(documents)["run_config"]
    governance = await asyncio.to_thread(engine.governance_of, run_config.get("governance") or {})
    record = RunRecord(
        run_id=f"run-{ulid[1]}",
        job_id=job_id,
        scenario_id=scenario_id,
        state=RUNNING,
        started_at=at,
        ticks_total=int(run_config["ticks"]),
        governance=governance.snapshot(),
        log_state="live" if run_config["logging"]["enabled"] else "disabled",
    )
    if summary is not None:
        record.state = _ENDS[JobState(summary.state)]
        record.ended_at = max(summary.ended_at, record.started_at)
        if record.state == COMPLETED:
            # So it began, whatever its Operative left: a log that is gone is not an empty one.
            record.ticks_completed = record.ticks_total
        if record.state == FAULT:
            record.fault_reason = summary.error or "the job failed without saying why"
        elif record.state == CANCELLED:
            record.stop_reason = summary.reason or "cancelled on the bus"
    return record
