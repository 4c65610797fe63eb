"""4.2: scenarios."""

from __future__ import annotations

from fastapi import APIRouter

from trinity_gate.api.common import Observer, Operator, Overseer, TheGate
from trinity_gate.models import FIXED_FIELDS, CloneRequest, ScenarioDetail, ScenarioSummary, ScenarioUpdate

router = APIRouter(prefix="/scenarios")


@router.get("", response_model=list[ScenarioSummary])
async def list_scenarios(gate: TheGate, caller: Observer) -> list[ScenarioSummary]:
    """All scenarios, in the registry's order."""
    return gate.scenarios.summaries()


@router.get("/{id}", response_model=ScenarioDetail)
async def get_scenario(gate: TheGate, caller: Observer, id: str) -> ScenarioDetail:
    """Everything of one scenario."""
    return await gate.scenarios.detail(id)


@router.post("/{id}", response_model=ScenarioDetail)
async def update_scenario(gate: TheGate, caller: Overseer, id: str, patch: ScenarioUpdate) -> ScenarioDetail:
    """Change it: all of the patch, or nothing."""
    detail = patch.model_dump(exclude_unset=True, exclude=set(FIXED_FIELDS))
    found = await gate.audited(caller, "scenario.update", id, detail, lambda: gate.scenarios.update(id, patch))
    gate.hub.changed("scenarios")
    return found


@router.post("/{id}/activate", response_model=ScenarioSummary)
async def activate_scenario(gate: TheGate, caller: Operator, id: str) -> ScenarioSummary:
    """Make it the active one."""
    return await gate.audited(caller, "scenario.activate", id, {}, lambda: gate.activate(id))


@router.post("/{id}/clone", status_code=201, response_model=ScenarioDetail)
async def clone_scenario(gate: TheGate, caller: Overseer, id: str, request: CloneRequest) -> ScenarioDetail:
    """Save it under another id, with changes."""
    detail = request.model_dump(exclude_unset=True)
    found = await gate.audited(caller, "scenario.clone", id, detail, lambda: gate.scenarios.clone(id, request))
    gate.hub.changed("scenarios")
    return found
