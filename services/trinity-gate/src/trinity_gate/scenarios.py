"""The scenarios in the data directory: a copy of the engine's fixtures at the first start, edited as a whole or not.

An edit writes a new run config under a new name first; the scenario changes when the registry, which names it, is
renamed into place. So there is one moment in which everything changes, whenever the service is killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from trinity_gate import edits, engine, governance
from trinity_gate.errors import DamagedFile, GateError, conflict, invalid, not_found
from trinity_gate.files import encode_document, read_document, sync_directory, write_atomically
from trinity_gate.models import (
    FIXED_FIELDS,
    SCENARIO_ID,
    AdvancedView,
    CloneRequest,
    CoreParams,
    CoreParamsPatch,
    EdgeView,
    GovernanceSnapshot,
    NodeView,
    ScenarioDetail,
    ScenarioPatch,
    ScenarioSummary,
    TopologyView,
    WindowView,
)

log = logging.getLogger(__name__)

REGISTRY: Final = Path("scenarios") / "registry.json"
CONFIGS: Final = Path("configs")

DECLARED: Final = "declared_windows"
"""In an entry of the registry whose ticks were changed: `edits.Declared`."""

MAX_SCENARIOS = 1_000

DRAWN_NODES = 200
DRAWN_EDGES = 1_000

_ID = re.compile(SCENARIO_ID)
_EDITED = re.compile(r".+\.r[0-9]+\.json\Z")

CHECK_RUN_ID = "check"


@dataclass(frozen=True, slots=True)
class Scenario:
    """An entry of the registry with the documents it stands for; None where they can't be used, and why."""

    entry: Mapping[str, Any]
    documents: engine.Documents | None
    problem: str | None = None
    revision: str = ""

    @property
    def id(self) -> str:
        """As the registry has it."""
        return str(self.entry["scenario_id"])

    @property
    def declared(self) -> edits.Declared | None:
        """Its windows before the ticks were changed; None where they never were, or by hand."""
        kept = self.entry.get(DECLARED)
        return None if kept is None or self.documents is None else edits.declared(self.documents.run_config, kept)

    def summary(self) -> ScenarioSummary:
        """For lists."""
        entry = self.entry
        return ScenarioSummary(
            id=self.id,
            name=str(entry.get("name") or self.id),
            description=str(entry.get("description", "")),
            tags=[str(tag) for tag in entry.get("tags") or ()],
            runtime_hint=str(entry.get("runtime_hint", "")),
            pillars=[str(pillar) for pillar in entry.get("pillars") or ()],
            problem=self.problem,
        )


@dataclass(slots=True)
class Scenarios:
    """`load` first. `root`: a directory of this class alone."""

    root: Path
    base: Callable[[], Mapping[str, Any]]
    """The service's governance base as it is now."""
    _known: dict[str, Scenario] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    # --- reading ---

    async def load(self) -> None:
        """Copy the fixtures where nothing is there yet, read everything. Raises `DamagedFile` about the registry."""
        await asyncio.to_thread(self._load)

    def _load(self) -> None:
        if not self.root.exists():
            self._copy_fixtures()
        for leftover in self.root.glob("*/.*.tmp"):
            leftover.unlink()
        path = self.root / REGISTRY
        document = read_document(path)
        try:
            engine.check_registry(document)
        except engine.Refused as error:
            raise DamagedFile(f"{path}: {error}") from error
        entries = document["scenarios"]
        bad = [str(entry["scenario_id"]) for entry in entries if not _ID.fullmatch(str(entry["scenario_id"]))]
        if bad or len(entries) > MAX_SCENARIOS:
            what = f"scenario_id {bad[0]!r} is not {SCENARIO_ID}" if bad else f"more than {MAX_SCENARIOS} scenarios"
            raise DamagedFile(f"{path}: {what}")
        known = [self._read(entry) for entry in entries]
        self._known = {scenario.id: scenario for scenario in known}
        self._sweep()

    def _copy_fixtures(self) -> None:
        draft = self.root.with_name(f"{self.root.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(engine.shipped_library(), draft, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        for folder, _, names in os.walk(draft):
            Path(folder).chmod(0o700)
            for name in names:
                (Path(folder) / name).chmod(0o600)
        os.replace(draft, self.root)
        sync_directory(self.root.parent)

    def _read(self, entry: Mapping[str, Any]) -> Scenario:
        """Its documents. What is wrong with them is said without the places where they lie."""
        try:
            documents = self._documents(self._config_path(entry))
        except DamagedFile as error:
            log.warning("scenario %s: %s", entry["scenario_id"], error)
            return Scenario(entry, None, "one of its files is missing or damaged", _revision(entry, None))
        scenario = Scenario(entry, documents, revision=_revision(entry, documents.run_config))
        try:
            engine.check(_checked(documents, self.base()))
        except engine.Refused as error:
            log.warning("scenario %s: %s", scenario.id, error)
            return Scenario(entry, documents, str(error), scenario.revision)
        return scenario

    def _config_path(self, entry: Mapping[str, Any]) -> Path:
        return self._inside((self.root / REGISTRY).parent / str(entry["run_config_path"]))

    def _documents(self, path: Path) -> engine.Documents:
        run_config = _an_object(read_document(path), path)
        parts: dict[str, Any] = {}
        for name in ("topology", "profile", "pfna"):
            where = run_config.get(f"{name}_path")
            if where is None and name == "pfna":
                parts[name] = None
                continue
            found = self._inside(path.parent / str(where))
            parts[name] = _an_object(read_document(found), found)
        return engine.Documents(run_config, **parts)

    def _inside(self, path: Path) -> Path:
        """A file of the library and of nowhere else, links followed."""
        found = path.resolve()
        if not found.is_relative_to(self.root.resolve()):
            raise DamagedFile(f"{path} is outside of {self.root}")
        return found

    def _sweep(self) -> None:
        """Remove run configs that an edit wrote and nothing names any more."""
        named = {self._config_path(scenario.entry) for scenario in self._known.values()}
        for path in (self.root / CONFIGS).glob("*.json"):
            if _EDITED.match(path.name) and path.resolve() not in named:
                path.unlink()

    # --- looking ---

    def ids(self) -> list[str]:
        """In the registry's order."""
        return list(self._known)

    def summaries(self) -> list[ScenarioSummary]:
        """In the registry's order."""
        return [scenario.summary() for scenario in self._known.values()]

    def get(self, scenario_id: str) -> Scenario:
        """Raises 404."""
        found = self._known.get(scenario_id)
        if found is None:
            raise not_found(f"no scenario {scenario_id!r}; there are: {', '.join(list(self._known)[:20])}")
        return found

    def find(self, scenario_id: str | None) -> Scenario | None:
        """The scenario, where there is one."""
        return None if scenario_id is None else self._known.get(scenario_id)

    async def detail(self, scenario_id: str) -> ScenarioDetail:
        """Everything of one. Raises 404."""
        scenario = self.get(scenario_id)
        return await asyncio.to_thread(self._detail, scenario)

    def _detail(self, scenario: Scenario) -> ScenarioDetail:
        documents = scenario.documents
        core = advanced = preset = None
        if documents is not None:
            preset = governance.preset_of(_own_layer(documents.run_config))
            core = _core(documents.run_config)
            try:
                found = engine.check(_checked(documents, self.base()))
                advanced = _advanced(documents, GovernanceSnapshot(**found.snapshot()))
            except engine.Refused:
                core = core if scenario.problem is None else None
        return ScenarioDetail(
            **scenario.summary().model_dump(),
            run_config_id=Path(str(scenario.entry["run_config_path"])).stem,
            core_params=core,
            governance_preset=preset,
            advanced=advanced,
            revision=scenario.revision,
            shipped=not scenario.entry.get("edited", False),
        )

    # --- changing ---

    async def update(self, scenario_id: str, patch: ScenarioPatch) -> ScenarioDetail:
        """All of the patch or nothing. Raises 404, 409, 422."""
        async with self._lock:
            scenario = self.get(scenario_id)
            _same_revision(scenario, patch)
            await self._leaves_fixed(scenario_id, patch)
            changed = await asyncio.to_thread(self._patched, scenario, dict(scenario.entry), patch)
            if changed.revision != scenario.revision:
                await self._commit(changed)
            return await self.detail(scenario_id)

    async def clone(self, scenario_id: str, request: CloneRequest) -> ScenarioDetail:
        """Save as: a new entry with its own run config. Raises 404, 409, 422."""
        async with self._lock:
            scenario = self.get(scenario_id)
            if request.id in self._known:
                raise conflict("scenario_exists", f"there is a scenario {request.id!r} already")
            if len(self._known) >= MAX_SCENARIOS:
                raise conflict("too_many_scenarios", f"there are {MAX_SCENARIOS} scenarios, no more are kept")
            patch = request.changes or ScenarioPatch()
            _same_revision(scenario, patch)
            old = scenario.summary().name
            entry = {**scenario.entry, "scenario_id": request.id, "name": request.name or f"{old} (copy)"}
            changed = await asyncio.to_thread(self._patched, scenario, entry, patch, True)
            await self._commit(changed)
            return await self.detail(request.id)

    async def _leaves_fixed(self, scenario_id: str, patch: ScenarioPatch) -> None:
        """Raises 422 where it would change what can't be changed."""
        said = patch.model_fields_set & FIXED_FIELDS
        if not said:
            return
        there = (await self.detail(scenario_id)).model_dump(mode="json")
        wrong = [name for name in sorted(said) if getattr(patch, name) != there[name]]
        if wrong:
            raise invalid(f"{wrong[0]} can't be changed: leave it out, or as it was read", wrong[0])

    def _patched(
        self, scenario: Scenario, entry: dict[str, Any], patch: ScenarioPatch, always: bool = False
    ) -> Scenario:
        """The scenario after the patch, checked as a run of it would be. Nothing is written. Raises 422."""
        if scenario.documents is None:
            raise invalid(f"scenario {scenario.id!r} can't be edited: {scenario.problem}")
        shown = scenario.summary()
        for name in ("name", "description", "tags", "runtime_hint", "pillars"):
            value = getattr(patch, name)
            if value is not None and (always or value != getattr(shown, name)):
                entry[name] = value
        try:
            run_config = _edited(scenario.documents, patch, scenario.declared)
        except edits.ImpossibleEdit as error:
            raise invalid(str(error), error.field) from error
        old = scenario.documents
        _keep_declared(entry, old.run_config, run_config)
        documents = engine.Documents(run_config, old.topology, old.profile, old.pfna)
        try:
            engine.check(_checked(documents, self.base()))
        except engine.Refused as error:
            raise invalid(f"the scenario could not be started any more: {error}", "core_params") from error
        if not always and run_config == old.run_config and entry == scenario.entry:
            return scenario
        entry["edited"] = True
        if always or run_config != old.run_config:
            entry["run_config_path"] = f"../{CONFIGS}/{self._new_name(str(entry['scenario_id']))}"
        return Scenario(entry, documents, revision=_revision(entry, run_config))

    def _new_name(self, scenario_id: str) -> str:
        taken = [path.name for path in (self.root / CONFIGS).glob(f"{scenario_id}.r*.json")]
        numbers = [int(name.split(".r")[-1][:-5]) for name in taken if _EDITED.match(name)]
        return f"{scenario_id}.r{max(numbers, default=0) + 1}.json"

    async def _commit(self, changed: Scenario) -> None:
        known = {**self._known, changed.id: changed}
        before = self._known.get(changed.id)
        try:
            await asyncio.to_thread(self._write, changed, before, known)
        except OSError as error:
            log.exception("scenario %s could not be written", changed.id)
            raise GateError(500, "not_written", f"nothing was changed: {error.strerror or 'write error'}") from error
        self._known = known

    def _write(self, changed: Scenario, before: Scenario | None, known: Mapping[str, Scenario]) -> None:
        path = (self.root / REGISTRY).parent / str(changed.entry["run_config_path"])
        moved = before is None or before.entry["run_config_path"] != changed.entry["run_config_path"]
        if moved:
            assert changed.documents is not None
            write_atomically(self.root / CONFIGS / path.name, encode_document(changed.documents.run_config))
        document = read_document(self.root / REGISTRY)
        document["scenarios"] = [dict(scenario.entry) for scenario in known.values()]
        write_atomically(self.root / REGISTRY, encode_document(document))
        if moved and before is not None:
            old = self._config_path(before.entry)
            if _EDITED.match(old.name):
                old.unlink(missing_ok=True)


def _same_revision(scenario: Scenario, patch: ScenarioPatch) -> None:
    if patch.revision is not None and patch.revision != scenario.revision:
        raise conflict("revision_mismatch", f"scenario {scenario.id!r} was changed meanwhile: read it again")


def _keep_declared(entry: dict[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Have the entry remember the windows as they were declared, while others than those are in force."""
    first = edits.declared(old, entry.get(DECLARED))
    entry.pop(DECLARED, None)
    if first != edits.declared(new):
        entry[DECLARED] = first.document()


def _edited(documents: engine.Documents, patch: ScenarioPatch, declared: edits.Declared | None) -> dict[str, Any]:
    found = dict(documents.run_config)
    core = _changes(patch.core_params, _core(found))
    if core is not None:
        if core.ticks_total is not None:
            found = edits.with_ticks(found, core.ticks_total, "core_params.ticks_total", declared)
        if core.primary_window_id is not None:
            windows = [str(window.get("window_id")) for window in found.get("windows") or ()]
            if core.primary_window_id not in windows:
                raise edits.ImpossibleEdit(
                    f"no window {core.primary_window_id!r}; there are: {', '.join(windows)}",
                    "core_params.primary_window_id",
                )
            found["primary_window_id"] = core.primary_window_id
        if core.logging_enabled is not None:
            found = edits.with_switch(found, "logging", core.logging_enabled)
        if core.metrics_enabled is not None:
            found = edits.with_switch(found, "metrics", core.metrics_enabled)
        if core.enable_codex is not None:
            found["enable_codex"] = core.enable_codex
        if core.enable_pfna is not None:
            if core.enable_pfna and documents.pfna is None:
                raise edits.ImpossibleEdit(
                    "this scenario has no PFNA document that could be enabled", "core_params.enable_pfna"
                )
            found["enable_pfna"] = core.enable_pfna
    name = patch.governance_preset
    if "governance_preset" in patch.model_fields_set and name != governance.preset_of(_own_layer(found)):
        if name is not None and name not in governance.PRESETS:
            raise edits.ImpossibleEdit(
                f"no preset {name!r}; there are: {', '.join(governance.PRESETS)}", "governance_preset"
            )
        found["governance"] = governance.with_preset(_own_layer(found), name)
    return found


def _changes(patch: CoreParamsPatch | None, now: CoreParams | None) -> CoreParamsPatch | None:
    """What of it isn't so already."""
    if patch is None or now is None:
        return patch
    wanted = patch.model_dump(exclude_none=True)
    return CoreParamsPatch(**{name: value for name, value in wanted.items() if value != getattr(now, name)})


def _checked(documents: engine.Documents, base: Mapping[str, Any]) -> engine.Documents:
    return prepared(documents, CHECK_RUN_ID, base, None)


def prepared(documents: engine.Documents, run_id: str, base: Mapping[str, Any], preset: str | None) -> engine.Documents:
    """The documents as a run gets them: governance merged (base, the scenario's own, the override), ids its own."""
    override = None if preset is None else governance.PRESETS[preset].layer()
    layer = governance.merged(base, _own_layer(documents.run_config), override)
    run_config = edits.for_run(documents.run_config, run_id, layer)
    pfna = documents.pfna if run_config.get("enable_pfna") else None
    return engine.Documents(
        run_config,
        documents.topology,
        documents.profile,
        None if pfna is None else edits.bound_pfna(pfna, run_id),
    )


def _own_layer(run_config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = run_config.get("governance")
    return found if isinstance(found, dict) and found else None


def _revision(entry: Mapping[str, Any], run_config: Mapping[str, Any] | None) -> str:
    text = json.dumps([entry, run_config], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _an_object(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DamagedFile(f"{path} is not a JSON object")
    return value


# --- views ----------------------------------------------------------------------------------------------------------


def _core(run_config: Mapping[str, Any]) -> CoreParams | None:
    try:
        return CoreParams(
            ticks_total=int(run_config["ticks"]),
            primary_window_id=str(run_config["primary_window_id"]),
            metrics_enabled=edits.enabled(run_config, "metrics"),
            logging_enabled=edits.enabled(run_config, "logging"),
            enable_codex=bool(run_config.get("enable_codex", False)),
            enable_pfna=bool(run_config.get("enable_pfna", False)),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _advanced(documents: engine.Documents, snapshot: GovernanceSnapshot) -> AdvancedView:
    run_config, topology, pfna = documents.run_config, documents.topology, documents.pfna
    state = run_config["initial_state"]
    nodes, edges = topology["nodes"], topology["edges"]
    drawn = nodes[:DRAWN_NODES]
    between = [edge for edge in edges if edge["i"] <= len(drawn) and edge["j"] <= len(drawn)][:DRAWN_EDGES]
    return AdvancedView(
        gid=str(run_config["gid"]),
        profile=str(documents.profile["name"]),
        topology=TopologyView(
            gid=str(topology["gid"]),
            nodes=[
                NodeView(node_id=node["node_id"], label=str(node.get("label", "")), initial=_figure(value))
                for node, value in zip(drawn, state, strict=False)
            ],
            edges=[
                EdgeView(e_id=edge["e_id"], i=edge["i"], j=edge["j"], k=_figure(edge["k"]), cap=_figure(edge["cap"]))
                for edge in between
            ],
            nodes_total=len(nodes),
            edges_total=len(edges),
            truncated=len(drawn) < len(nodes) or len(between) < len(edges),
        ),
        windows=[
            WindowView(
                window_id=str(window["window_id"]),
                apx_name=str(window["apx_name"]),
                start_tick=int(window["start_tick"]),
                end_tick=int(window["end_tick"]),
                streams=[str(stream["name"]) for stream in window.get("streams") or ()],
            )
            for window in run_config["windows"]
        ],
        governance=snapshot,
        pfna_entries=len(pfna["entries"]) if pfna is not None and run_config.get("enable_pfna") else 0,
    )


def _figure(value: int) -> int | str:
    from gbe_operative_aether.wire import figure

    return figure(value)
