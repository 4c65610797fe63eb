"""4.4: governance and budgets."""

from __future__ import annotations

from fastapi import APIRouter

from trinity_gate.api.common import Observer, Overseer, TheGate
from trinity_gate.models import GovernancePatch, GovernancePreset, GovernanceSnapshot

router = APIRouter(prefix="/governance")


@router.get("", response_model=GovernanceSnapshot)
async def get_governance(gate: TheGate, caller: Observer) -> GovernanceSnapshot:
    """The service's base."""
    return gate.governance()


@router.post("", response_model=GovernanceSnapshot)
async def set_governance(gate: TheGate, caller: Overseer, patch: GovernancePatch) -> GovernanceSnapshot:
    """Change the base; runs that are started afterwards get it."""
    detail = patch.model_dump(exclude_unset=True)
    return await gate.audited(caller, "governance.update", "base", detail, lambda: gate.set_governance(patch))


@router.get("/presets", response_model=list[GovernancePreset])
async def list_presets(gate: TheGate, caller: Observer) -> list[GovernancePreset]:
    """What can be named in `governance_preset`."""
    return gate.presets()
