"""Governance: its layers, their precedence, presets, and what the API shows of it. Pure.

Three layers, each a JSON object with the keys of section 6 of the engine specification: the service's base, the
scenario's own (`governance` of its run config), the run's override (a preset). A key of a later layer replaces that of
an earlier one, whole lists replace lists. The two mode fields are one thing said twice: a layer that sets one of them
sets both, so that an earlier layer's other field never wins over it (this replaces the merge rules of section 14).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Layer = Mapping[str, Any]

MODE, ACTION_MODE = "governance_mode", "codex_action_mode"

KNOBS: Final = ("max_actions_per_window", "max_proposals_per_window", "max_topology_changes")

MODES: Final[Mapping[str, tuple[str, str]]] = {
    "OFF": ("OFF", "OFF"),
    "OBSERVE": ("OBSERVE", "OBSERVE"),
    "SUGGEST_ONLY": ("OBSERVE", "OBSERVE"),
    "DRY_RUN": ("DRY_RUN", "DRY_RUN"),
    "GOVERNED_APPLY": ("ENFORCE", "GOVERNED_APPLY"),
    "ENFORCE": ("ENFORCE", "GOVERNED_APPLY"),
}
"""What a mode's name means: governance mode and codex action mode (engine specification 6.1)."""

CUSTOM: Final = "custom"


@dataclass(frozen=True, slots=True)
class Preset:
    """A named governance. `budgets`: None leaves the layers' own."""

    id: str
    name: str
    description: str
    mode: str
    budgets: Mapping[str, int] | None = None

    def layer(self) -> dict[str, Any]:
        """As a layer."""
        governance, action = MODES[self.mode]
        found: dict[str, Any] = {MODE: governance, ACTION_MODE: action}
        if self.budgets is not None:
            found["budget_policies"] = [{"policy_id": f"preset-{self.id}", **self.budgets}]
        return found


PRESETS: Final[Mapping[str, Preset]] = {
    preset.id: preset
    for preset in (
        Preset("off", "Off", "No governance: Codex is not asked, nothing is checked.", "OFF"),
        Preset(
            "observe", "Observe", "Codex proposes, everything is checked and logged, nothing is accepted.", "OBSERVE"
        ),
        Preset(
            "dry-run", "Dry run", "Decides as when enforcing, but marks what it accepts as hypothetical.", "DRY_RUN"
        ),
        Preset("enforce", "Enforce", "Accepts proposals within the policies and budgets that are set.", "ENFORCE"),
        Preset(
            "locked",
            "Locked",
            "Enforces with all budgets at zero: every proposal is refused and says so.",
            "ENFORCE",
            dict.fromkeys(KNOBS, 0),
        ),
    )
}


def with_both_modes(layer: Layer) -> dict[str, Any]:
    """The layer, in which a mode that stands alone is written into both fields. Unknown modes stay for the engine to
    refuse. An empty or null `governance_mode` says nothing (6.1)."""
    found = dict(layer)
    named = found.get(MODE) or found.get(ACTION_MODE)
    if not named:
        return found
    pair = MODES.get(str(named).upper())
    found[MODE], found[ACTION_MODE] = pair if pair else (named, named)
    return found


def merged(*layers: Layer | None) -> dict[str, Any]:
    """The layers in their precedence, the last one the strongest."""
    found: dict[str, Any] = {}
    for layer in layers:
        if layer:
            found |= with_both_modes(layer)
    return found


def preset_of(layer: Layer | None) -> str | None:
    """Which preset a scenario's own layer is: `custom` where it is none, None where it says nothing."""
    if not layer:
        return None
    said = with_both_modes(layer)
    kept = {key: value for key, value in said.items() if key not in ("gid", "run_id", "meta")}
    for preset in PRESETS.values():
        if kept == preset.layer():
            return preset.id
    return CUSTOM


def with_preset(layer: Layer | None, preset: str | None) -> dict[str, Any]:
    """A scenario's layer with another preset: its modes (and budgets, where the preset has some); None takes the modes
    and a preset's budgets away. Policies that are its own stay."""
    found = dict(layer or {})
    for key in (MODE, ACTION_MODE):
        found.pop(key, None)
    budgets = found.get("budget_policies")
    if isinstance(budgets, list) and any(_is_of_a_preset(policy) for policy in budgets):
        left = [policy for policy in budgets if not _is_of_a_preset(policy)]
        if left:
            found["budget_policies"] = left
        else:
            del found["budget_policies"]
    return found if preset is None else found | PRESETS[preset].layer()


def _is_of_a_preset(policy: object) -> bool:
    return isinstance(policy, dict) and str(policy.get("policy_id", "")).startswith("preset-")


def caps(layer: Layer) -> dict[str, int]:
    """The limits that hold: of each knob the least over all budget policies; none where no policy has one (6.4)."""
    policies = layer.get("budget_policies")
    found: dict[str, int] = {}
    for policy in policies if isinstance(policies, list) else ():
        for knob in KNOBS:
            value = policy.get(knob) if isinstance(policy, dict) else None
            if isinstance(value, int) and not isinstance(value, bool):
                found[knob] = min(value, found.get(knob, value))
    return found


@dataclass(frozen=True, slots=True)
class Change:
    """A wish for the base. `knobs`: None for a knob takes its limit away."""

    mode: str | None = None
    action_mode: str | None = None
    preset: str | None = None
    knobs: Mapping[str, int | None] = field(default_factory=dict)


class Impossible(ValueError):
    """A change that can't be made; `field` is where it was asked for."""

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message)
        self.field = where


def changed(base: Layer, change: Change) -> dict[str, Any]:
    """The base after the change: preset first, then modes, then knobs. Raises `Impossible`."""
    found = with_both_modes(base)
    if change.preset is not None:
        if change.preset not in PRESETS:
            raise Impossible(f"no preset {change.preset!r}; there are: {', '.join(PRESETS)}", "preset")
        found |= PRESETS[change.preset].layer()
    named = [mode for mode in (change.mode, change.action_mode) if mode is not None]
    if len({MODES[mode] for mode in named}) > 1:
        raise Impossible(
            f"mode {change.mode} and codex_action_mode {change.action_mode} contradict each other: one sets both",
            "codex_action_mode",
        )
    if named:
        found[MODE], found[ACTION_MODE] = MODES[named[0]]
    if change.knobs:
        found["budget_policies"] = _turned(found.get("budget_policies"), change.knobs)
    return found


def _turned(policies: object, knobs: Mapping[str, int | None]) -> list[dict[str, Any]]:
    """The first policy carries the knobs; the others must not stand in their way."""
    found = [dict(policy) for policy in policies if isinstance(policy, dict)] if isinstance(policies, list) else []
    if not found:
        found = [{"policy_id": "default"}]
    for knob, value in knobs.items():
        for other in found[1:]:
            limit = other.get(knob)
            if isinstance(limit, int) and (value is None or limit < value):
                raise Impossible(
                    f"budget policy {other.get('policy_id')!r} holds it at {limit}", f"budget_knobs.{knob}"
                )
        if value is None:
            found[0].pop(knob, None)
        else:
            found[0][knob] = value
    return found
