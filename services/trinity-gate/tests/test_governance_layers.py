"""Governance: layers, precedence, presets, and changes of the base. No server."""

from __future__ import annotations

from typing import Any

import pytest

from trinity_gate.governance import (
    CUSTOM,
    KNOBS,
    PRESETS,
    Change,
    Impossible,
    caps,
    changed,
    merged,
    preset_of,
    with_both_modes,
    with_preset,
)

BASE = {
    "governance_mode": "OBSERVE",
    "codex_action_mode": "OBSERVE",
    "budget_policies": [{"policy_id": "default", **dict.fromkeys(KNOBS, 0), "notes": "careful"}],
}


@pytest.mark.parametrize(
    ("layer", "governance", "action"),
    [
        ({"codex_action_mode": "GOVERNED_APPLY"}, "ENFORCE", "GOVERNED_APPLY"),
        ({"governance_mode": "enforce"}, "ENFORCE", "GOVERNED_APPLY"),
        ({"governance_mode": "SUGGEST_ONLY"}, "OBSERVE", "OBSERVE"),
        ({"governance_mode": "OFF", "codex_action_mode": "DRY_RUN"}, "OFF", "OFF"),
        ({"governance_mode": None, "codex_action_mode": "DRY_RUN"}, "DRY_RUN", "DRY_RUN"),
    ],
)
def test_one_mode_sets_both(layer: dict[str, Any], governance: str, action: str) -> None:
    found = with_both_modes(layer)
    assert (found["governance_mode"], found["codex_action_mode"]) == (governance, action)


def test_a_layer_that_says_nothing_of_modes_leaves_them() -> None:
    assert with_both_modes({"budget_policies": []}) == {"budget_policies": []}
    assert with_both_modes({"governance_mode": ""}) == {"governance_mode": ""}


def test_a_mode_the_engine_does_not_know_is_left_for_it_to_refuse() -> None:
    assert with_both_modes({"codex_action_mode": "HARD"}) == {"codex_action_mode": "HARD", "governance_mode": "HARD"}


def test_base_then_the_scenarios_own_then_the_override() -> None:
    own = {"codex_action_mode": "GOVERNED_APPLY", "budget_policies": [{"policy_id": "own"}]}
    assert merged(BASE, None, None)["governance_mode"] == "OBSERVE"
    both = merged(BASE, own, None)
    assert (both["governance_mode"], both["budget_policies"]) == ("ENFORCE", [{"policy_id": "own"}])
    three = merged(BASE, own, {"governance_mode": "OFF"})
    assert (three["governance_mode"], three["codex_action_mode"]) == ("OFF", "OFF")
    assert three["budget_policies"] == [{"policy_id": "own"}]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_recognised_and_taken_away_again(name: str) -> None:
    own = {"topology_policies": [{"policy_id": "t"}]}
    assert preset_of(with_preset({}, name)) == name
    assert preset_of(with_preset(own, name)) == CUSTOM
    assert with_preset(with_preset(own, name), None) == own
    assert preset_of(with_preset(with_preset({}, name), "off")) == "off"


def test_a_scenario_without_governance_has_no_preset() -> None:
    assert preset_of(None) is None
    assert preset_of({}) is None


def test_caps_are_the_least_of_all_policies() -> None:
    policies = [
        {"policy_id": "a", "max_actions_per_window": 5},
        {"policy_id": "b", "max_actions_per_window": 2, "max_topology_changes": 7},
        {"policy_id": "c", "max_actions_per_window": None},
    ]
    assert caps({"budget_policies": policies}) == {"max_actions_per_window": 2, "max_topology_changes": 7}
    assert caps({"budget_policies": None}) == {}


def test_knobs_are_turned_in_the_first_policy() -> None:
    found = changed(BASE, Change(knobs={"max_actions_per_window": 4, "max_topology_changes": None}))
    assert caps(found) == {"max_actions_per_window": 4, "max_proposals_per_window": 0}
    assert found["budget_policies"][0]["notes"] == "careful"
    assert caps(BASE)["max_actions_per_window"] == 0  # the old one is untouched
    assert caps(changed({"governance_mode": "OFF"}, Change(knobs={"max_actions_per_window": 1}))) == {
        "max_actions_per_window": 1
    }


def test_a_knob_that_another_policy_holds_can_not_be_turned_beyond_it() -> None:
    base = {"governance_mode": "ENFORCE", "budget_policies": [{"policy_id": "a"}, {"policy_id": "b", KNOBS[0]: 3}]}
    assert caps(changed(base, Change(knobs={KNOBS[0]: 2}))) == {KNOBS[0]: 2}
    for value in (4, None):
        with pytest.raises(Impossible, match="'b' holds it at 3") as raised:
            changed(base, Change(knobs={KNOBS[0]: value}))
        assert raised.value.field == f"budget_knobs.{KNOBS[0]}"


def test_a_preset_comes_before_what_is_said_beside_it() -> None:
    found = changed(BASE, Change(preset="locked", mode="DRY_RUN", knobs={KNOBS[0]: 1}))
    assert found["governance_mode"] == "DRY_RUN"
    assert caps(found) == {KNOBS[0]: 1, KNOBS[1]: 0, KNOBS[2]: 0}


def test_modes_that_contradict_each_other_are_refused() -> None:
    assert changed(BASE, Change(mode="ENFORCE", action_mode="GOVERNED_APPLY"))["governance_mode"] == "ENFORCE"
    with pytest.raises(Impossible, match="contradict"):
        changed(BASE, Change(mode="ENFORCE", action_mode="OFF"))
    with pytest.raises(Impossible, match="no preset 'x'"):
        changed(BASE, Change(preset="x"))
