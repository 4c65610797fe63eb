"""Rules that no recorded result pins, or only one: windows that collide, external input, modes, envelopes."""

from typing import Any

import pytest

from gbe_aether import (
    SessionRunResult,
    build_introspection_view,
    run_session,
    session_config_from_documents,
    session_snapshot,
)
from gbe_aether.testing import LINE, line, pfna, profile, run_config


def window(window_id: str, apx_name: str, start: int = 1, end: int = 6, **more: Any) -> dict[str, Any]:
    return {"window_id": window_id, "apx_name": apx_name, "start_tick": start, "end_tick": end, **more}


def windows(*declared: dict[str, Any], primary: str = "W") -> SessionRunResult:
    return run_session(line(windows=list(declared), primary_window_id=primary))


# --- windows ---------------------------------------------------------------------------------------


def test_of_windows_with_one_id_the_later_takes_the_place_of_the_earlier() -> None:
    result = windows(window("W", "A"), window("V", "B"), window("W", "C", end=3))
    assert list(result.tick_result.manifests) == ["C", "B"]
    assert result.tick_result.primary_manifest.apx_name == "C"
    closed = [entry.window_id for entry in result.logs if entry.event == "window_closed"]
    assert closed == ["W", "V"]
    started, looping = result.logs[0].payload, result.logs[1].payload
    assert started is not None
    assert looping is not None
    assert (started["windows"], looping["windows"]) == (["V", "W", "W"], ["V", "W"])
    assert session_snapshot(result)["config"]["window_ids"] == ["V", "W", "W"]
    assert result.metrics is not None
    assert (result.metrics.window_count, result.metrics.apx_manifests) == (3, 2)
    assert build_introspection_view(result).window_ids == ["V", "W"]


def test_of_windows_with_one_apx_name_the_later_manifest_stays_in_the_place_of_the_first() -> None:
    result = windows(window("W", "A"), window("U", "B"), window("V", "A", end=2))
    ticks = result.tick_result
    assert list(ticks.manifests) == ["A", "B"]
    # The primary window points at the other window's manifest.
    assert (ticks.primary_manifest.window_id, ticks.u_ledger_entries[0].window_id) == ("V", "W")
    payloads = [entry.payload for entry in result.logs if entry.event == "window_closed"]
    checks = [payload["manifest_check"] for payload in payloads if payload is not None]
    assert len(set(checks)) == 3
    assert ticks.primary_manifest.manifest_check == checks[2]
    view = build_introspection_view(result)
    assert view.window_ids == ["U", "V"]
    with pytest.raises(KeyError, match="No APX manifest found for window_id 'W'"):
        view.get_manifest("W")


def test_envelopes_beyond_the_primary_window_carry_its_check_too() -> None:
    result = windows(window("W", "A", 3, 4))
    checks = {envelope.payload_ref for envelope in result.tick_result.envelopes}
    assert checks == {result.tick_result.primary_manifest.manifest_check}
    assert {scene.window_id for scene in result.tick_result.scenes} == {"W"}


def test_a_stream_without_a_description_is_described_by_its_name() -> None:
    streams = [
        {"name": "a", "source": "post_u"},
        {"name": "b", "source": "prev_chain", "description": "chain", "scheme_hint": "GR"},
    ]
    found = windows(window("W", "A", streams=streams)).tick_result.primary_manifest.streams
    assert [(stream.description, stream.scheme) for stream in found] == [("a", "R"), ("chain", "GR")]


@pytest.mark.parametrize(("preferred", "scheme"), [(None, "R"), ([], "R"), (["ID", "R"], "ID")])
def test_the_default_scheme(preferred: Any, scheme: str) -> None:
    numbers = profile(press_defaults={} if preferred is None else {"preferred_schemes": preferred})
    result = run_session(session_config_from_documents(run_config([90, 0, 3]), LINE, numbers))
    assert {stream.scheme for stream in result.tick_result.primary_manifest.streams} == {scheme}


# --- external input --------------------------------------------------------------------------------


def entry(pfna_id: str, tick: int, values: list[int], **more: Any) -> dict[str, Any]:
    return {"pfna_id": pfna_id, "tick": tick, "values": values, **more}


def fed(*entries: dict[str, Any]) -> SessionRunResult:
    return run_session(
        session_config_from_documents(run_config([90, 0, 3], enable_pfna=True), LINE, profile(), pfna(*entries))
    )


def test_of_entries_with_one_tick_and_id_the_first_of_the_file_counts() -> None:
    result = fed(
        entry("b", 2, [1, 0, 0]), entry("a", 2, [0, 2, 0]), entry("b", 2, [100, 0, 0]), entry("z", 7, [5, 5, 5])
    )
    ledgers = result.tick_result.ledgers
    assert ledgers[1].pre_u == [u + d for u, d in zip(ledgers[0].post_u, [1, 2, 0], strict=True)]
    assert sum(result.final_state) == 93 + 3
    (ingress,) = result.tick_result.ingress_envelopes
    assert (ingress.tick, ingress.seq, ingress.prev_chain) == (2, 2, 20987847)
    reference = 0
    for name, values in (("a", [0, 2, 0]), ("b", [1, 0, 0])):
        reference = reference * 31 + ord(name)
        for value in values:
            reference = reference * 17 + value
    assert ingress.payload_ref == reference % 1_000_000_007
    # The list of inputs keeps duplicates and ticks beyond the run.
    assert [each["pfna_id"] for each in session_snapshot(result)["config"]["pfna_inputs"]] == ["a", "b", "b", "z"]


def test_input_of_tick_0_changes_the_state_and_nothing_else() -> None:
    result = fed(entry("a", 0, [1, 1, 1], description="d"), entry("b", 0, [1, 0, 0]))
    assert result.tick_result.ledgers[0].pre_u == [92, 1, 4]
    assert list(result.tick_result.ingress_envelopes) == []
    assert result.tick_result.envelopes[0].meta == {"pfna_integerization": []}
    config = session_snapshot(result)["config"]
    assert config["initial_state"] == [90, 0, 3]
    assert config["pfna_inputs"][0]["description"] == "d"
    assert "description" not in config["pfna_inputs"][1]


def test_values_go_through_a_float() -> None:
    large = 2**53 + 1
    result = fed(entry("a", 1, [large, -3, 0]))
    (audited,) = result.tick_result.envelopes[0].meta["pfna_integerization"]
    assert audited["values"] == [2**53, -3, 0]
    assert audited["audit"][0] == {
        "index": 0,
        "raw": str(large),
        "shifted": f"{2**53}.000000",
        "scaled": f"{2**53}.000000",
        "rounded": 2**53,
        "clamped": 2**53,
    }
    assert sum(result.tick_result.ledgers[0].pre_u) == 90 + 2**53
    assert result.tick_result.scenes[0].meta["pfna_integerization"] == [{"pfna_id": "a", "values": [], "audit": []}]


def test_a_value_beyond_every_float_fails_the_run() -> None:
    with pytest.raises(OverflowError):
        fed(entry("a", 2, [10**400, 0, 0]))


# --- governance ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "codex", "modes"),
    [
        ({}, False, ("OFF", "OFF")),
        ({}, True, ("OBSERVE", "OBSERVE")),
        ({"codex_action_mode": "governed_apply"}, False, ("ENFORCE", "GOVERNED_APPLY")),
        ({"governance_mode": "suggest_only"}, False, ("OBSERVE", "OBSERVE")),
        ({"governance_mode": "DRY_RUN", "codex_action_mode": "OFF"}, True, ("DRY_RUN", "DRY_RUN")),
        ({"governance_mode": "", "codex_action_mode": "ENFORCE"}, True, ("ENFORCE", "GOVERNED_APPLY")),
        ({"governance_mode": None, "codex_action_mode": "OFF"}, True, ("OFF", "OFF")),
    ],
)
def test_the_mode(said: dict[str, Any], codex: bool, modes: tuple[str, str]) -> None:
    governance = line(governance=said, enable_codex=codex).governance
    assert (governance.governance_mode, governance.codex_action_mode) == modes


def test_the_decision_entries_carry_the_ids_of_governance() -> None:
    for said, ids in (({}, ("G", "R")), ({"gid": None, "run_id": None}, ("", "N/A")), ({"gid": "X"}, ("X", "R"))):
        result = run_session(line(governance={"governance_mode": "OBSERVE", **said}))
        entries = [each for each in result.logs if each.event == "gate_governance_decision"]
        assert len(entries) == 6
        assert {(each.gid, each.run_id) for each in entries} == {ids}


def test_envelopes_of_governance_are_in_the_order_of_their_emission() -> None:
    budget = [{"policy_id": "b", "max_proposals_per_window": 1}]
    result = run_session(line(governance={"governance_mode": "OBSERVE", "budget_policies": budget}))
    found = [(each.tick, each.seq, each.meta["event"]) for each in result.tick_result.governance_envelopes]
    assert found == [
        *((tick, 6 + tick, "GATE_GOVERNANCE_DECISION") for tick in range(1, 7)),
        (1, 1, "POLICY_SET_LOADED"),
        (6, 6, "GOVERNANCE_DECISION_SUMMARY"),
        (6, 7, "BUDGET_EXHAUSTION"),
    ]
    order = [(each.layer, each.tick, each.seq) for each in result.all_envelopes()]
    assert order[:4] == [("CTRL", 1, 1), ("GOV", 1, 1), ("GOV", 1, 7), ("DATA", 1, 1)]
    last = [("GOV", 6, 6), ("GOV", 6, 7), ("GOV", 6, 12), ("DATA", 6, 6), ("CTRL", 6, 7), ("EGRESS", 6, 8)]
    assert order[-6:] == last
    view = build_introspection_view(result)
    assert [(each.layer, each.seq) for each in view.envelopes[:3]] == [("CTRL", 1), ("CTRL", 7), ("GOV", 1)]
    assert [each.seq for each in view.get_envelopes(tick=6, layer="GOV")] == [6, 7, 12]


def test_a_graph_without_edges_has_one_motif() -> None:
    config = session_config_from_documents(
        run_config([90, 0, 3], governance={"governance_mode": "ENFORCE"}),
        LINE | {"edges": []},
        profile(I_block_spacing_W=7),
    )
    ticks = run_session(config).tick_result
    (motif,) = ticks.codex_motifs
    assert motif.pattern_descriptor["edge_ids"] == []
    (proposal,) = ticks.codex_proposals
    assert (proposal.status, proposal.target_location["edge_ids"]) == ("ACCEPTED", [])
    assert ticks.primary_manifest.streams[1].L_model == 16


def test_scores_are_floats_in_snapshots() -> None:
    budget = [{"policy_id": "b"}]
    result = run_session(line(governance={"governance_mode": "OBSERVE", "budget_policies": budget}))
    scores = session_snapshot(result)["tick_result"]["codex_proposals"][0]["governance_scores"]
    assert scores == {"topology_change_count": 2.0}
    assert isinstance(scores["topology_change_count"], float)
