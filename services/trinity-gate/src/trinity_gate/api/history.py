"""4.5: past runs, their export, comparing two of them; and the audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from trinity_gate.active import run_status
from trinity_gate.api.common import NEXT_CURSOR, PAGED, Cursor, Limit, Observer, Overseer, TheGate, cursor_number
from trinity_gate.comparing import compare
from trinity_gate.entries import iso
from trinity_gate.index import RunRecord
from trinity_gate.models import (
    AuditEntry,
    Comparison,
    HistoryEntry,
    Role,
    RunDetail,
    RunResult,
)
from trinity_gate.security import HEAD

router = APIRouter()


@router.get("/history", response_model=list[HistoryEntry], responses=PAGED)
async def list_history(
    gate: TheGate,
    caller: Observer,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
    scenario: Annotated[str | None, Query(max_length=64)] = None,
    result: RunResult | None = None,
) -> list[HistoryEntry]:
    """Runs that are over, the one that was started last first."""
    found, more = await gate.index.history(limit, cursor_number(cursor), scenario, result)
    if more is not None:
        response.headers[NEXT_CURSOR] = str(more)
    return [_entry(record) for record in found]


@router.get("/history/{run_id}", response_model=RunDetail)
async def get_history(gate: TheGate, caller: Observer, run_id: str) -> RunDetail:
    """Everything that is known of a run."""
    return await gate.detail(run_id)


@router.get(
    "/history/{run_id}/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def export_run(gate: TheGate, caller: Observer, run_id: str, request: Request) -> Response:
    """Everything the session left, as a zip that `gbe-aether verify` checks; where it left nothing (its Operative
    died), a zip of the run, its log and its inputs."""
    found = await gate.export(run_id)
    headers = {
        "content-disposition": f'attachment; filename="{run_id}.zip"',
        "content-length": str(found.size),
        "cache-control": "no-store",
    }
    if request.scope.get(HEAD):
        return Response(headers=headers, media_type="application/zip")
    return StreamingResponse(found.chunks, headers=headers, media_type="application/zip")


RunId = Annotated[str, Query(min_length=1, max_length=64)]


@router.get("/compare", response_model=Comparison)
async def compare_runs(
    gate: TheGate,
    caller: Observer,
    baseline: RunId,
    candidate: RunId,
    max_diffs: Limit = 100,
) -> Comparison:
    """Where the session snapshots of two runs differ."""
    return await compare(gate.runs, gate.temporary, baseline, candidate, max_diffs)


@router.get("/audit", response_model=list[AuditEntry], responses=PAGED)
async def list_audit(
    gate: TheGate, caller: Overseer, response: Response, limit: Limit = 100, cursor: Cursor = None
) -> list[AuditEntry]:
    """Who changed what, newest first."""
    found, more = await gate.index.audit(limit, cursor_number(cursor))
    if more is not None:
        response.headers[NEXT_CURSOR] = str(more)
    return [
        AuditEntry(
            id=entry.id,
            at=iso(entry.at),
            actor=entry.actor,
            role=Role(entry.role),
            action=entry.action,
            target=entry.target,
            detail=entry.detail,
            result=entry.result,
        )
        for entry in found
    ]


def _entry(record: RunRecord) -> HistoryEntry:
    status = run_status(record)
    return HistoryEntry(
        run_id=record.run_id,
        scenario_id=record.scenario_id,
        started_at=iso(record.started_at),
        ended_at=iso(record.ended_at),
        result=status.state,  # type: ignore[arg-type] # it is over
        ticks_total=record.ticks_total,
        summary_metrics=record.metrics,
    )
