"""`Gate`: what the service is without HTTP: scenarios, governance, runs, and the state that is shown of them."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gbe_nexus import NexusError, now_ms
from gbe_operative_aether import wire
from gbe_overseer.client import JobClient
from gbe_overseer.errors import OverseerError
from gbe_runtime.metrics import Metrics
from trinity_gate import edits, engine, governance, pillars
from trinity_gate.base import GovernanceBase
from trinity_gate.errors import GateError, invalid
from trinity_gate.exports import Export, written
from trinity_gate.hub import Hub
from trinity_gate.index import ACTIVE_SCENARIO, Caller, Index
from trinity_gate.models import (
    ExportInfo,
    GovernancePatch,
    GovernancePreset,
    GovernanceSnapshot,
    Health,
    LogInfo,
    RunDetail,
    RunStatus,
    ScenarioSummary,
    StartRequest,
    StateResponse,
)
from trinity_gate.runs import Runs
from trinity_gate.scenarios import Scenarios, prepared

T = TypeVar("T")

log = logging.getLogger(__name__)

UNCONDITIONAL = frozenset({"run.stop", "run.pause"})
"""What an operator must be able to do even where nothing can be written down any more."""

HEALTH_AGE = 2.0
"""Seconds for which an answer about the bus holds."""


class Gate:
    """Everything together. `start` first."""

    def __init__(
        self,
        *,
        index: Index,
        base: GovernanceBase,
        scenarios: Scenarios,
        runs: Runs,
        hub: Hub,
        client: JobClient,
        metrics: Metrics,
        temporary: Path,
    ) -> None:
        self.temporary = temporary
        """A directory for files of a moment; emptied at the start."""
        self.index = index
        self._base = base
        self.scenarios = scenarios
        self.runs = runs
        self.hub = hub
        self.metrics = metrics
        self._client = client
        self._active: str | None = None
        self._encoded: tuple[int, bytes] = (-1, b"")
        self._health: tuple[float, list[str]] = (float("-inf"), [])

    async def start(self) -> None:
        """Find what was chosen before, and the runs."""
        active = await self.index.choice(ACTIVE_SCENARIO)
        if active is not None and self.scenarios.find(active) is None:
            log.warning("the active scenario %r is no longer there", active)
            active = None
        self._active = active
        await self.runs.start()

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> StateResponse:
        """4.1.1."""
        run, cards, live = self.runs.current()
        active = self.scenarios.find(self._active)
        return StateResponse(
            run=run,
            active_scenario=None if active is None else active.summary(),
            pillars=pillars.idle() if cards is None else cards,
            live=live,
        )

    def encoded_state(self) -> bytes:
        """The same as JSON, made once per change however many ask."""
        if self._encoded[0] != self.hub.version:
            version = self.hub.version
            self._encoded = (version, self.state().model_dump_json().encode())
        return self._encoded[1]

    async def activate(self, scenario_id: str) -> ScenarioSummary:
        """4.2.4. Raises 404."""
        scenario = self.scenarios.get(scenario_id)
        await self.index.choose(ACTIVE_SCENARIO, scenario_id)
        self._active = scenario_id
        self.hub.changed()
        return scenario.summary()

    async def health(self, version: str) -> Health:
        """Whether runs can be started now."""
        connected = self._client.transport.connected
        reasons = ["the bus is not reachable"] if not connected else await self._missing()
        return Health(
            status="degraded" if reasons else "ok",
            bus="connected" if connected else "disconnected",
            reasons=reasons,
            version=version,
        )

    async def _missing(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        if now - self._health[0] < HEALTH_AGE:
            return self._health[1]
        reasons: list[str] = []
        try:
            async with asyncio.timeout(HEALTH_AGE):
                if await self._client.no_oracle():
                    reasons.append("no Oracle waits for work")
                if await self._client.nobody_handles(wire.TASK_TYPE):
                    reasons.append(f"no Operative handles '{wire.TASK_TYPE}'")
        except (NexusError, OverseerError, TimeoutError):
            reasons.append("the bus does not answer")
        trouble = await self.index.trouble()
        if trouble is not None:
            reasons.append(f"the index can't be written: {trouble}")
        self._health = (now, reasons)
        return reasons

    # --- runs ---------------------------------------------------------------------------------------------------------

    async def begin(self, request: StartRequest) -> RunStatus:
        """4.1.2. Raises 404, 409, 422, 503."""
        scenario = self.scenarios.get(request.scenario_id)
        if scenario.documents is None:
            raise invalid(f"scenario {scenario.id!r} can't be started: {scenario.problem}", "scenario_id")
        documents = scenario.documents
        overrides = {} if request.overrides is None else request.overrides.model_dump(exclude_none=True)
        preset = overrides.get("governance_preset")
        if preset is not None and preset not in governance.PRESETS:
            raise invalid(
                f"no preset {preset!r}; there are: {', '.join(governance.PRESETS)}", "overrides.governance_preset"
            )

        def prepare(run_id: str) -> tuple[engine.Documents, engine.Governance]:
            return _prepare(documents, scenario.declared, run_id, self._base.layer(), overrides)

        return await self.runs.begin(scenario.id, overrides, prepare, paused=request.paused)

    async def detail(self, run_id: str) -> RunDetail:
        """4.5.2. Raises 404."""
        record = await self.runs.record(run_id)
        log_state, entries = await self.runs.log_info(run_id)
        collected = self.runs.collected(record)
        left = collected and record.bundle_size is not None and record.bundle_size >= 0
        return RunDetail(
            run=await self.runs.status(run_id),
            summary_metrics=record.metrics or {},
            governance=GovernanceSnapshot(**record.governance),
            overrides=record.overrides,
            log=LogInfo(state=log_state, entries=entries, complete=log_state in ("complete", "disabled")),
            export=ExportInfo(available=collected, complete=left, size=record.bundle_size if left else None),
            live=await self.runs.live(run_id),
        )

    async def export(self, run_id: str) -> Export:
        """4.5.3: the session's bundle, or what is known here where it left none. Raises 404, 409, 503."""
        found = await self.runs.bundle(run_id)
        if found is not None:
            return found
        documents = await self.runs.inputs(run_id)
        log_lines = await self.runs.log_lines(run_id)
        return await written(self.temporary, await self.detail(run_id), documents, log_lines)

    # --- governance ---------------------------------------------------------------------------------------------------

    def governance(self) -> GovernanceSnapshot:
        """4.4.1."""
        return self._base.snapshot()

    async def set_governance(self, patch: GovernancePatch) -> GovernanceSnapshot:
        """4.4.2. Raises 409, 422."""
        found = await self._base.change(patch)
        self.hub.changed("governance")
        self.hub.changed("scenarios")  # what their runs would get
        return found

    @staticmethod
    def presets() -> list[GovernancePreset]:
        """What can be named in `governance_preset` and `preset`."""
        found = []
        for preset in governance.PRESETS.values():
            mode, action = governance.MODES[preset.mode]
            found.append(
                GovernancePreset(
                    id=preset.id,
                    name=preset.name,
                    description=preset.description,
                    mode=mode,
                    codex_action_mode=action,
                    budget_knobs=dict(preset.budgets or {}),
                )
            )
        return found

    # --- audit --------------------------------------------------------------------------------------------------------

    async def audited(
        self,
        caller: Caller,
        action: str,
        target: str,
        detail: Mapping[str, Any],
        work: Callable[[], Awaitable[T]],
        named: Callable[[T], str] | None = None,
    ) -> T:
        """Do a write, with what was asked on the disk before it, and what came of it after. `named`: what it was done
        to, where only the result says so."""
        number: int | None = None
        try:
            number = await self.index.begin(now_ms(), caller, action, target[:200], detail)
        except sqlite3.Error as error:
            if action not in UNCONDITIONAL:
                raise
            log.error("%s %s by %s is not in the audit: %s", action, target[:200], caller.name, error)
        try:
            result = await work()
        except GateError as error:
            await self._note(number, error.code)
            raise
        except Exception:
            await self._note(number, "internal")
            raise
        await self._note(number, "ok", None if named is None else named(result))
        self.metrics.counter(f"writes_{action.replace('.', '_')}").add()
        return result

    async def _note(self, number: int | None, result: str, target: str | None = None) -> None:
        """What is done is done, also where it can't be written down."""
        if number is None:
            return
        try:
            await self.index.finish(number, result, target)
        except sqlite3.Error as error:
            log.error("audit entry %d can't be completed (%s): %s", number, result, error)


def _prepare(
    documents: engine.Documents,
    declared: edits.Declared | None,
    run_id: str,
    base: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> tuple[engine.Documents, engine.Governance]:
    run_config: Mapping[str, Any] = documents.run_config
    if "ticks_total" in overrides:
        try:
            run_config = edits.with_ticks(run_config, overrides["ticks_total"], "overrides.ticks_total", declared)
        except edits.ImpossibleEdit as error:
            raise invalid(str(error), error.field) from error
    for name, section in (("metrics_enabled", "metrics"), ("logging_enabled", "logging")):
        if name in overrides:
            run_config = edits.with_switch(run_config, section, overrides[name])
    changed = engine.Documents(run_config, documents.topology, documents.profile, documents.pfna)
    final = prepared(changed, run_id, base, overrides.get("governance_preset"))
    try:
        return final, engine.check(final)
    except engine.Refused as error:
        raise invalid(f"the engine refuses it: {error}", "scenario_id") from error
