"""4.1.2 to 4.1.4, 4.3, 4.6: runs, their pillars and their logs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, WebSocket

from trinity_gate.api.common import Limit, Observer, Operator, TheGate
from trinity_gate.api.state import admitted, converse, told
from trinity_gate.entries import DEBUG, LEVELS, Entry, instant, level_named
from trinity_gate.errors import GateError, invalid
from trinity_gate.gate import Gate
from trinity_gate.models import Level, LogEntry, LogPage, PillarStatus, RunStatus, StartRequest
from trinity_gate.runlog import Wanted

router = APIRouter(prefix="/runs")

BATCH: Final = 500
STREAM_PACE: Final = 0.05

Since = Annotated[str | None, Query(max_length=64, description="A cursor (`next_cursor`), or an ISO 8601 time")]
EventType = Annotated[str | None, Query(max_length=100)]


@router.post("", status_code=201, response_model=RunStatus)
async def start_run(gate: TheGate, caller: Operator, request: StartRequest) -> RunStatus:
    """Start a run of a scenario. 409 while another one is under way."""
    detail = request.model_dump(exclude_none=True)
    status = await gate.audited(
        caller,
        "run.start",
        request.scenario_id,
        detail,
        lambda: gate.begin(request),
        named=lambda found: f"{request.scenario_id} {found.run_id}",
    )
    gate.metrics.counter("runs_started").add()
    return status


@router.get("/{run_id}", response_model=RunStatus)
async def get_run(gate: TheGate, caller: Observer, run_id: str) -> RunStatus:
    """The run's status."""
    return await gate.runs.status(run_id)


@router.post("/{run_id}/stop", response_model=RunStatus)
async def stop_run(gate: TheGate, caller: Operator, run_id: str) -> RunStatus:
    """Stop it between two ticks. 409 where it is over."""
    reason = f"stopped by {caller.name}"
    return await gate.audited(caller, "run.stop", run_id, {}, lambda: gate.runs.stop(run_id, reason))


@router.post("/{run_id}/pause", response_model=RunStatus)
async def pause_run(gate: TheGate, caller: Operator, run_id: str) -> RunStatus:
    """Pause it between two ticks. 409 where it doesn't run."""
    return await gate.audited(caller, "run.pause", run_id, {}, lambda: gate.runs.pause(run_id))


@router.post("/{run_id}/resume", response_model=RunStatus)
async def resume_run(gate: TheGate, caller: Operator, run_id: str) -> RunStatus:
    """Let it go on. 409 where it isn't paused."""
    return await gate.audited(caller, "run.resume", run_id, {}, lambda: gate.runs.resume(run_id))


@router.post("/{run_id}/step", response_model=RunStatus)
async def step_run(gate: TheGate, caller: Operator, run_id: str) -> RunStatus:
    """One tick. 409 where it isn't paused."""
    return await gate.audited(caller, "run.step", run_id, {}, lambda: gate.runs.step(run_id))


@router.get("/{run_id}/pillars", response_model=list[PillarStatus])
async def get_pillars(gate: TheGate, caller: Observer, run_id: str) -> list[PillarStatus]:
    """The run's five pillars."""
    return await gate.runs.pillars(run_id)


@router.get("/{run_id}/logs", response_model=LogPage)
async def get_logs(
    gate: TheGate,
    caller: Observer,
    run_id: str,
    since: Since = None,
    level: Annotated[Level | None, Query(description="The least level wanted")] = None,
    event_type: EventType = None,
    limit: Limit = 200,
) -> LogPage:
    """Log entries in order."""
    page, complete = await gate.runs.logs(run_id, wanted_of(since, level, event_type), limit)
    return LogPage(
        entries=[log_entry(run_id, entry) for entry in page.entries],
        next_cursor=str(page.next),
        complete=complete,
        total=page.total,
        at_end=page.at_end,
    )


@router.websocket("/{run_id}/logs/stream")
async def stream_logs(
    socket: WebSocket,
    run_id: str,
    since: str | None = None,
    level: str | None = None,
    event_type: str | None = None,
    batch: str = "false",
) -> None:
    """Log entries as they come, one per message (or arrays of them, `batch=true`)."""
    gate: Gate = socket.app.state.gate
    if not await admitted(socket):
        return
    try:
        wanted = wanted_of(since, level, event_type)
        if batch not in ("true", "false"):
            raise invalid("expected true or false", "batch")
        await gate.runs.record(run_id)
    except GateError as error:
        await socket.close(4000 + error.status, error.code)
        return
    await converse(socket, gate, _tell(socket, gate, run_id, wanted, together=batch == "true"))


async def _tell(socket: WebSocket, gate: Gate, run_id: str, wanted: Wanted, *, together: bool) -> None:
    cursor, heard_live = wanted.since, False
    with gate.hub.watch() as watcher:
        while True:
            page, complete = await gate.runs.logs(
                run_id, Wanted(cursor, wanted.since_time, wanted.level, wanted.event), BATCH
            )
            live = gate.runs.watched(run_id) is not None and not complete
            if heard_live and not live and cursor > 0:
                # The complete log is there: it has entries before the cursor that could not be heard.
                await socket.close(4000, "replaced")
                return
            heard_live = heard_live or live
            entries = [log_entry(run_id, entry) for entry in page.entries]
            if together and entries:
                await told(socket, "[" + ",".join(entry.model_dump_json() for entry in entries) + "]")
            elif not together:
                for entry in entries:
                    await told(socket, entry.model_dump_json())
            cursor = page.next
            if not page.at_end:
                continue
            if not live:
                await socket.close(1000, "complete")
                return
            await watcher.wait()
            await asyncio.sleep(STREAM_PACE)


def wanted_of(since: str | None, level: str | None, event_type: str | None) -> Wanted:
    """Which entries are asked for. Raises 422."""
    number, at = 0, None
    if since is not None:
        if since.isascii() and since.isdigit() and len(since) <= 18:
            number = int(since)
        else:
            # In a query string a plus sign of an offset arrives as a blank.
            at = instant(since.replace(" ", "+") if since.count(":") > 2 else since)
            if at is None:
                raise invalid("neither a cursor nor an ISO 8601 time", "since")
    least = DEBUG if level is None else level_named(level)
    if least is None:
        raise invalid(f"no level {level!r}; there are: {', '.join(LEVELS)}", "level")
    return Wanted(number, at, least, event_type)


def log_entry(run_id: str, entry: Entry) -> LogEntry:
    """An entry as the API shows it."""
    return LogEntry(
        timestamp=entry.timestamp,
        level=LEVELS[entry.level],
        event_type=entry.event,
        run_id=run_id,
        message=entry.message,
        payload=entry.payload,
        index=entry.index,
        cursor=str(entry.index + 1),
        tick=entry.tick,
    )
