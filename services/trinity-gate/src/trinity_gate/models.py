"""The shapes of the HTTP API: sections 3 and 4 of the operator service's specification, field by field.

Fields that the specification doesn't have are optional additions, and say so. Requests refuse what they don't know.
Times are ISO 8601 in UTC. Integers beyond ±(2^53 - 1) are decimal text, since a browser could not read them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, StringConstraints

SCENARIO_ID = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
"""Without a dot at the front: clients take `/scenarios/..` for another path, so `..` could never be asked for again."""

MAX_TICKS = 1_000_000_000

RunState = Literal["idle", "running", "completed", "fault", "cancelled"]
RunResult = Literal["completed", "fault", "cancelled"]
Phase = Literal["queued", "running", "paused", "stopping", "finishing", "ended"]
PillarId = Literal["aether", "press", "umx", "loom", "codex"]
PillarState = Literal["idle", "warming", "running", "cooling", "fault", "unknown"]
Level = Literal["DEBUG", "INFO", "WARN", "ERROR"]
LogState = Literal["live", "complete", "partial", "disabled", "expired"]
Timestamp = Annotated[str, Field(examples=["2026-11-27T09:30:00.000000+00:00"])]
Figure = int | str


class Role(StrEnum):
    """What a caller may do: look; also steer runs; also change scenarios and governance."""

    OBSERVER = "observer"
    OPERATOR = "operator"
    OVERSEER = "overseer"


class Shape(BaseModel):
    """A response."""

    model_config = ConfigDict(extra="forbid")


class Request(BaseModel):
    """A request body: an unknown field is an error, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


# --- 3.1, 3.2 scenarios ---------------------------------------------------------------------------------------------


class ScenarioSummary(Shape):
    """3.1. `problem` (addition): why the scenario can't be started, where its files are broken."""

    id: str
    name: str
    description: str
    tags: list[str]
    runtime_hint: str
    pillars: list[str]
    problem: str | None = None


class CoreParams(Shape):
    """3.2 `core_params`; the last two are additions."""

    ticks_total: int
    primary_window_id: str
    metrics_enabled: bool
    logging_enabled: bool
    enable_codex: bool
    enable_pfna: bool


class NodeView(Shape):
    """A node of the topology, with its value before the first tick."""

    node_id: int
    label: str
    initial: Figure


class EdgeView(Shape):
    """An edge of the topology, from node `i` to node `j`."""

    e_id: int
    i: int
    j: int
    k: Figure
    cap: Figure


class TopologyView(Shape):
    """For the drawing. `truncated`: only the first nodes, and the edges between them, are here."""

    gid: str
    nodes: list[NodeView]
    edges: list[EdgeView]
    nodes_total: int
    edges_total: int
    truncated: bool


class WindowView(Shape):
    """A window of the run config."""

    window_id: str
    apx_name: str
    start_tick: int
    end_tick: int
    streams: list[str]


class GovernanceSnapshot(Shape):
    """3.5. A knob that is missing in `budget_knobs` has no limit."""

    mode: str
    codex_action_mode: str
    budget_knobs: dict[str, int]
    policy_set_hash: str


class AdvancedView(Shape):
    """3.2 `advanced`: what is only looked at. `governance`: as a run of this scenario would get it now, the service's
    base and the scenario's own together. `pfna_entries`: inputs from outside, 0 where there are none."""

    gid: str
    profile: str
    topology: TopologyView
    windows: list[WindowView]
    governance: GovernanceSnapshot
    pfna_entries: int


class ScenarioDetail(ScenarioSummary):
    """3.2. `governance_preset`: the preset that the scenario's own governance is, `custom`, or null where it has none.

    Additions: `revision` changes with every edit (send it back to be refused where somebody was faster); `shipped`: as
    it was delivered. Where `problem` is set, `core_params` and `advanced` may be null.
    """

    run_config_id: str
    core_params: CoreParams | None
    governance_preset: str | None = None
    advanced: AdvancedView | None = None
    revision: str
    shipped: bool


Name = Annotated[StrictStr, StringConstraints(min_length=1, max_length=120)]
Tag = Annotated[StrictStr, StringConstraints(min_length=1, max_length=40)]
Ticks = Annotated[StrictInt, Field(ge=1, le=MAX_TICKS)]


class CoreParamsPatch(Request):
    """What of `core_params` is to change."""

    ticks_total: Ticks | None = None
    primary_window_id: Name | None = None
    metrics_enabled: StrictBool | None = None
    logging_enabled: StrictBool | None = None
    enable_codex: StrictBool | None = None
    enable_pfna: StrictBool | None = None


class ScenarioPatch(Request):
    """4.2.3. What is missing stays. `governance_preset`: null takes the scenario's own modes away, so that the
    service's base decides. `revision`: 409 where the scenario has another one by now."""

    name: Name | None = None
    description: Annotated[StrictStr, StringConstraints(max_length=2000)] | None = None
    tags: Annotated[list[Tag], Field(max_length=20)] | None = None
    runtime_hint: Annotated[StrictStr, StringConstraints(max_length=40)] | None = None
    pillars: Annotated[list[Tag], Field(max_length=20)] | None = None
    core_params: CoreParamsPatch | None = None
    governance_preset: Name | None = None
    revision: Name | None = None


class ScenarioUpdate(ScenarioPatch):
    """4.2.3: a patch, or a whole `ScenarioDetail` with changes in it. What can't be changed is taken as long as it says
    what is so anyway."""

    id: StrictStr | None = None
    problem: StrictStr | None = None
    run_config_id: StrictStr | None = None
    advanced: dict[str, Any] | None = None
    shipped: StrictBool | None = None


FIXED_FIELDS = frozenset(ScenarioUpdate.model_fields) - frozenset(ScenarioPatch.model_fields)
"""Of a `ScenarioDetail`, what no request changes."""


class CloneRequest(Request):
    """ "Save as": a new scenario with its own run config. `changes` are applied to the copy before it is stored."""

    id: Annotated[StrictStr, StringConstraints(pattern=SCENARIO_ID)]
    name: Name | None = None
    changes: ScenarioPatch | None = None


# --- 3.3 runs -------------------------------------------------------------------------------------------------------


class RunStatus(Shape):
    """3.3. A paused run is `running` with `paused`.

    Additions: `phase` (finer than `state`; `queued`: waits for an Operative), `stop_reason` of a cancelled run,
    `note`: what is in the way right now ("no Operative handles 'aether-session'").
    """

    run_id: str
    state: RunState
    scenario_id: str
    started_at: Timestamp | None
    ended_at: Timestamp | None
    ticks_total: int | None
    ticks_completed: int | None
    progress: Annotated[float, Field(ge=0, le=1)] | None
    fault_reason: str | None = None
    paused: bool
    phase: Phase
    stop_reason: str | None = None
    note: str | None = None


class Overrides(Request):
    """4.1.2 `overrides`."""

    ticks_total: Ticks | None = None
    metrics_enabled: StrictBool | None = None
    logging_enabled: StrictBool | None = None
    governance_preset: Name | None = None


class StartRequest(Request):
    """4.1.2. `paused` (addition): wait before the first tick."""

    scenario_id: Annotated[StrictStr, StringConstraints(min_length=1, max_length=64)]
    overrides: Overrides | None = None
    paused: StrictBool = False


# --- 3.4 pillars ----------------------------------------------------------------------------------------------------


class PillarStatus(Shape):
    """3.4."""

    pillar_id: PillarId
    name: str
    status: PillarState
    load: Annotated[float, Field(ge=0, le=1)] | None = None
    headline_metric: str | None = None
    secondary_metric: str | None = None
    governance_mode: str | None = None


# --- 4.1.1 state ----------------------------------------------------------------------------------------------------


class Live(Shape):
    """Addition: what the charts show, of the run in `run`.

    `nodes`: values after `tick`, the first 200 of `nodes_total`. `flux`: points `[tick, sum of |flux|]` over the whole
    run so far; `rate`: points `[seconds since the start, ticks/s]`; both thinned out to a few dozen points.
    """

    run_id: str
    tick: int
    ticks_total: int
    ticks_per_s: float
    sum_abs_flux: Figure
    nodes: list[Figure]
    nodes_total: int
    flux: list[tuple[int, Figure]]
    rate: list[tuple[float, float]]


class StateResponse(Shape):
    """4.1.1. `run`: the one under way, else the last one, until it is dismissed (`POST /state/reset`)."""

    run: RunStatus | None
    active_scenario: ScenarioSummary | None
    pillars: list[PillarStatus]
    live: Live | None = None


# --- 3.5 governance -------------------------------------------------------------------------------------------------

Knob = Annotated[StrictInt, Field(ge=0, le=1_000_000_000)]
Mode = Literal["OFF", "OBSERVE", "SUGGEST_ONLY", "DRY_RUN", "GOVERNED_APPLY", "ENFORCE"]


class BudgetKnobs(Request):
    """A number sets the limit, null takes it away, what is missing stays."""

    max_actions_per_window: Knob | None = None
    max_proposals_per_window: Knob | None = None
    max_topology_changes: Knob | None = None


class GovernancePatch(Request):
    """4.4.2. One of the two modes sets both. `preset` sets modes (and budgets, where it has some) first, the other
    fields then. `policy_set_hash`: 409 where the base has another one by now."""

    mode: Mode | None = None
    codex_action_mode: Mode | None = None
    budget_knobs: BudgetKnobs | None = None
    preset: Name | None = None
    policy_set_hash: Annotated[StrictStr, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class GovernancePreset(Shape):
    """Addition: a named governance. `budget_knobs`: only those it sets."""

    id: str
    name: str
    description: str
    mode: str
    codex_action_mode: str
    budget_knobs: dict[str, int]


# --- 3.6 history ----------------------------------------------------------------------------------------------------


class HistoryEntry(Shape):
    """3.6."""

    run_id: str
    scenario_id: str
    started_at: Timestamp
    ended_at: Timestamp
    result: RunResult
    ticks_total: int
    summary_metrics: dict[str, Any] | None = None


class LogInfo(Shape):
    """Addition: a run's log. `complete`: it is the whole one, not what was heard while the run went on."""

    state: LogState
    entries: int
    complete: bool


class ExportInfo(Shape):
    """Addition: whether the run can be exported (it is over, and its results are collected). `complete`: with the
    session's bundle, of `size` bytes; otherwise the export has the run, its log and its inputs."""

    available: bool
    complete: bool
    size: int | None = None


class RunDetail(Shape):
    """4.5.2. Additions: `governance` as the run had it, `overrides` it was started with, `live` as reported last."""

    run: RunStatus
    summary_metrics: dict[str, Any]
    governance: GovernanceSnapshot
    overrides: dict[str, Any]
    log: LogInfo
    export: ExportInfo
    live: Live | None = None


class Difference(Shape):
    """One place where two session snapshots differ; `"<missing>"` where one has nothing there."""

    path: str
    baseline: Any
    candidate: Any


class Comparison(Shape):
    """Addition: two runs side by side. `compared`: the member of their exports that was compared, the session snapshot
    or (of a long run) `session.json`. `truncated`: there are more differences than were asked for."""

    baseline: RunStatus
    candidate: RunStatus
    compared: str
    equal: bool
    differences: list[Difference]
    truncated: bool


# --- 3.7 logs -------------------------------------------------------------------------------------------------------


class LogEntry(Shape):
    """3.7. Additions: `index` (its number in the run), `cursor` (what to ask for the entries after it), `tick`."""

    timestamp: Timestamp
    level: Level
    event_type: str
    run_id: str
    message: str
    payload: dict[str, Any] | None = None
    index: int
    cursor: str
    tick: int | None = None


class LogPage(Shape):
    """4.6.1. Additions: `complete` as in `LogInfo`; `total`: entries of the run known so far; `at_end`: there is
    nothing after this page now."""

    entries: list[LogEntry]
    next_cursor: str
    complete: bool
    total: int
    at_end: bool


# --- the service itself ---------------------------------------------------------------------------------------------


class WhoAmI(Shape):
    """Who the service takes the caller for."""

    name: str
    role: Role
    token_required: bool


class AuditEntry(Shape):
    """A write: who did what, and what came of it (`ok`, an error's code, null where the service was killed)."""

    id: int
    at: Timestamp
    actor: str
    role: Role
    action: str
    target: str
    detail: dict[str, Any]
    result: str | None


class Health(Shape):
    """`degraded`: it answers, but can't start runs now; `reasons` says why."""

    status: Literal["ok", "degraded"]
    bus: Literal["connected", "disconnected"]
    reasons: list[str]
    version: str


class ErrorBody(Shape):
    """What is wrong. `field`: the place in the request, `overrides.ticks_total`."""

    code: str
    message: str
    field: str | None = None


class ErrorResponse(Shape):
    """Every error, whatever its status."""

    error: ErrorBody
