"""The service's governance base: the weakest of the three layers, kept in the index."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from trinity_gate import engine, governance
from trinity_gate.errors import conflict, invalid
from trinity_gate.index import GOVERNANCE_BASE, Index
from trinity_gate.models import GovernancePatch, GovernanceSnapshot


class GovernanceBase:
    """`load` first."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._layer: Mapping[str, Any] = {}
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """What was set before, or what the engine ships."""
        found = await self._index.choice(GOVERNANCE_BASE)
        if found is None:
            found = await asyncio.to_thread(engine.shipped_governance)
            await self._index.choose(GOVERNANCE_BASE, found)
        self._layer = governance.with_both_modes(found)

    def layer(self) -> Mapping[str, Any]:
        """As it is now."""
        return self._layer

    def snapshot(self) -> GovernanceSnapshot:
        """As the API shows it."""
        return GovernanceSnapshot(**engine.governance_of(self._layer).snapshot())

    async def change(self, patch: GovernancePatch) -> GovernanceSnapshot:
        """All of the patch or nothing. Raises 409, 422."""
        knobs = patch.budget_knobs
        wish = governance.Change(
            mode=patch.mode,
            action_mode=patch.codex_action_mode,
            preset=patch.preset,
            knobs={} if knobs is None else {name: getattr(knobs, name) for name in knobs.model_fields_set},
        )
        async with self._lock:
            if patch.policy_set_hash is not None and patch.policy_set_hash != self.snapshot().policy_set_hash:
                raise conflict("governance_changed", "governance was changed meanwhile: read it again")
            try:
                layer = governance.changed(self._layer, wish)
                engine.governance_of(layer)
            except governance.Impossible as error:
                raise invalid(str(error), error.field) from error
            except engine.Refused as error:
                raise invalid(str(error)) from error
            await self._index.choose(GOVERNANCE_BASE, layer)
            self._layer = layer
        return self.snapshot()
