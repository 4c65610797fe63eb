"""Input that is refused: in words that say what is wrong, in bounded time and memory."""

import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gbe_aether import (
    MAX_DOCUMENT_BYTES,
    BudgetPolicyV1,
    GovernanceConfigV1,
    LoggingConfigV1,
    RunConfigV1,
    RunStreamV1,
    RunWindowV1,
    SafetyPolicyV1,
    ScenarioRegistryV1,
    ScenarioV1,
    TopologyPolicyV1,
    cmp0_profile,
    load_run_config,
    load_run_session_config,
    load_scenario_registry,
    registry_from_document,
    run_session,
    session_config_from_documents,
)
from gbe_aether.pfna import PFNAInputV1
from gbe_aether.testing import LINE, line, pfna, profile, run_config


def write(folder: Path, **documents: Any) -> Path:
    everything = {"run_config": run_config([90, 0, 3]), "topology": LINE, "profile": profile(), **documents}
    for name, document in everything.items():
        (folder / f"{name}.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return folder / "run_config.json"


def test_a_config_from_files(tmp_path: Path) -> None:
    config = load_run_session_config(write(tmp_path))
    assert config == session_config_from_documents(run_config([90, 0, 3]), LINE, profile())


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a": NaN}', '{"a": -Infinity}', "\ufeff{}", "nul"])
def test_what_is_not_json_raises_the_json_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        load_run_config(write(tmp_path, run_config=text))


def test_yaml_is_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.YML"):
        with pytest.raises(ValueError, match="YAML is not supported"):
            load_run_config(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_run_config(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"topology_path does not exist: .*/none.json"):
        load_run_config(write(tmp_path, run_config=run_config([1, 2, 3], topology_path="none.json")))
    with pytest.raises(ValueError, match="profile_path must be a file: "):
        load_run_config(write(tmp_path, run_config=run_config([1, 2, 3], profile_path=".")))


def test_a_pfna_file_must_exist_even_where_it_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pfna_path does not exist"):
        load_run_config(write(tmp_path, run_config=run_config([1, 2, 3], pfna_path="none.json")))


def test_a_cycle_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to(tmp_path / "b.json")
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(ValueError, match="cycle of symbolic links"):
        load_run_config(tmp_path / "a.json")
    with pytest.raises(ValueError, match="topology_path cannot be resolved"):
        load_run_config(write(tmp_path, run_config=run_config([1, 2, 3], topology_path="a.json")))


def test_a_link_is_followed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "link.json").symlink_to(tmp_path / "topology.json")
    config = load_run_config(write(tmp_path, run_config=run_config([90, 0, 3], topology_path="link.json")))
    assert config.topology_path == str(tmp_path.resolve() / "topology.json")


def test_a_pipe_and_a_folder_are_no_documents(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="must be a regular file"):
        load_run_config(tmp_path / "pipe.json")
    with pytest.raises((ValueError, IsADirectoryError)):
        load_run_config(tmp_path)


def test_a_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as stream:
        stream.truncate(2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"too large: .* has {2**30} bytes, at most {MAX_DOCUMENT_BYTES} are read"):
        load_run_config(file)
    with pytest.raises(ValueError, match="Topology is too large"):
        load_run_session_config(write(tmp_path, run_config=run_config([1, 2, 3], topology_path="large.json")))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        load_run_config(write(tmp_path, run_config="[" * 200_000))


def test_an_integer_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Exceeds the limit \(\d+ digits\)"):
        load_run_config(write(tmp_path, run_config='{"v": 1' + "0" * 5000 + "}"))


def test_text_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin.json"
    file.write_bytes(b'{"gid": "\xfc"}')
    with pytest.raises(ValueError, match="not UTF-8 text"):
        load_run_config(file)
    with pytest.raises(ValueError, match="lone surrogate"):
        load_run_config(write(tmp_path, run_config='{"gid": "\\ud800"}'))


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    for path in ("a\0b", "x" * 5000):
        with pytest.raises(ValueError, match="topology_path"):
            load_run_config(write(tmp_path, run_config=run_config([1, 2, 3], topology_path=path)))


# --- values ----------------------------------------------------------------------------------------

RUN_CONFIG = [
    ({"v": 2}, "RunConfig_v1 requires v == 1"),
    ({"gid": ""}, "gid must be provided"),
    ({"run_id": ""}, "run_id must be provided"),
    ({"ticks": 0}, "ticks must be >= 1"),
    ({"ticks": "x"}, "invalid literal for int"),
    ({"initial_state": [1, True, 2]}, "initial_state must contain integers only"),
    ({"initial_state": [1, 2.0, 2]}, "initial_state must contain integers only"),
    ({"initial_state": [1, "2", 2]}, "initial_state must contain integers only"),
    ({"initial_state": "123"}, "initial_state must be a sequence of integers"),
    ({"initial_state": None}, "initial_state must be a sequence of integers"),
    ({"initial_state": []}, "initial_state must be non-empty"),
    ({"initial_state": [1, 2]}, "initial_state length must match topology N"),
    ({"windows": None}, "windows must be a list"),
    ({"windows": []}, "At least one window must be provided"),
    ({"windows": [3]}, "Window entry must be an object"),
    ({"primary_window_id": "X"}, "primary_window_id must reference a declared window"),
    ({"enable_pfna": 1}, "enable_pfna is true but pfna_path is missing"),
    ({"pfna_path": 3}, "pfna_path must be a string when provided"),
    ({"logging": None}, "logging must be an object"),
    ({"logging": {"destination": "mail"}}, "destination must be one of ['file', 'memory', 'stdout']"),
    ({"logging": {"destination": "file"}}, "file_path must be provided when destination is 'file'"),
    ({"metrics": 1}, "metrics must be an object"),
    ({"gid": "other"}, "RunConfig gid must match topology gid"),
    ({"governance": {"governance_mode": "x"}}, "codex_action_mode must be one of ['DRY_RUN', 'ENFORCE', "),
    ({"governance": {"governance_mode": None}}, "codex_action_mode must be one of ['DRY_RUN', 'ENFORCE', "),
    ({"governance": {"gid": ""}}, "gid must be a non-empty string when provided"),
    ({"governance": {"budget_policies": "x"}}, "budget_policies must be a list"),
    ({"governance": {"budget_policies": [{"policy_id": "a"}, {"policy_id": "a"}]}}, "Duplicate policy_id detected: a"),
    (
        {"governance": {"budget_policies": [{"policy_id": "a"}], "topology_policies": [{"policy_id": "a"}]}},
        "Duplicate policy_id detected: a",
    ),
    (
        {"governance": {"budget_policies": [{"policy_id": "a", "max_topology_changes": 1.0}]}},
        "max_topology_changes must be a non-negative integer when provided",
    ),
    (
        {"governance": {"topology_policies": [{"policy_id": "a", "max_nodes": True}]}},
        "max_nodes must be a non-negative integer when provided",
    ),
    ({"governance": {"topology_policies": [{"policy_id": "a", "allowed_ops": ["X"]}]}}, "allowed_ops entries must be"),
    ({"governance": {"safety_policies": [{"policy_id": "a"}]}}, "invariants must contain at least one entry"),
    ({"governance": {"safety_policies": [{"policy_id": "a", "invariants": None}]}}, "invariants must contain at least"),
]


@pytest.mark.parametrize(("change", "problem"), RUN_CONFIG, ids=lambda each: str(each)[:60])
def test_a_run_config_that_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        session_config_from_documents(run_config([90, 0, 3]) | change, LINE, profile())
    assert str(refused.value).startswith(problem)


@pytest.mark.parametrize("name", ["v", "gid", "run_id", "ticks", "primary_window_id", "topology_path", "profile_path"])
def test_a_required_scalar_that_is_missing(name: str, tmp_path: Path) -> None:
    config = run_config([90, 0, 3])
    del config[name]
    with pytest.raises(ValueError, match=f"^Missing required field: {name}$"):
        load_run_config(write(tmp_path, run_config=config))


@pytest.mark.parametrize("name", ["nap", "governance", "diagnostics", "ticks"])
def test_null_where_an_object_or_a_number_is_wanted_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError):
        session_config_from_documents(run_config([90, 0, 3]) | {name: None}, LINE, profile())


def test_scalars_are_coerced() -> None:
    config = session_config_from_documents(
        run_config([90, 0, 3]) | {"ticks": "8", "v": 1.9, "run_id": 7, "enable_codex": "yes"}, LINE, profile()
    )
    assert (config.total_ticks, config.run_id, config.governance.governance_mode) == (8, "7", "OBSERVE")


WINDOW = [
    ({"window_id": ""}, "window_id must be provided"),
    ({"start_tick": 0}, "start_tick must be >= 1"),
    ({"start_tick": 5, "end_tick": 4}, "end_tick must be >= start_tick"),
    ({"end_tick": 7}, "window end_tick cannot exceed configured ticks"),
    ({"streams": None}, "window.streams must be a list if provided"),
    ({"aeon_window_id": 3}, "aeon_window_id must be a string when provided"),
    ({"streams": [{"source": "fluxes"}]}, "Run window stream must provide a name"),
    ({"streams": [{"name": "a", "source": "x"}]}, "Stream source must be one of ['fluxes', 'post_u', "),
    ({"streams": [{"name": "a", "source": "fluxes", "scheme_hint": "X"}]}, "scheme_hint must be one of 'R', 'GR', or"),
]


@pytest.mark.parametrize(("change", "problem"), WINDOW, ids=lambda each: str(each)[:60])
def test_a_window_that_is_refused(change: dict[str, Any], problem: str) -> None:
    window = {"window_id": "W", "apx_name": "A", "start_tick": 1, "end_tick": 6} | change
    with pytest.raises(ValueError, match=r".") as refused:
        session_config_from_documents(run_config([90, 0, 3], windows=[window]), LINE, profile())
    assert str(refused.value).startswith(problem)


def test_a_repeated_stream_name_fails_the_run_at_the_first_tick_of_its_window() -> None:
    streams = [{"name": "a", "source": "fluxes"}, {"name": "a", "source": "post_u"}]
    window = {"window_id": "W", "apx_name": "A", "start_tick": 3, "end_tick": 6, "streams": streams}
    config = session_config_from_documents(run_config([90, 0, 3], windows=[window]), LINE, profile())
    with pytest.raises(ValueError, match=r"^Tick mismatch: expected 4 but received 3$"):
        run_session(config)


def edge(**change: Any) -> dict[str, Any]:
    return {"edges": [LINE["edges"][0] | change, LINE["edges"][1]]}


TOPOLOGY = [
    ({"N": True}, "N must be an integer"),
    ({"SC": 8.0}, "SC must be an integer"),
    ({"SC": 0}, "SC must be positive"),
    ({"nodes": {}}, "nodes must be a list"),
    ({"nodes": []}, "Nodes must be contiguous from 1..N in ascending order"),
    ({"edges": None}, "edges must be a list"),
    ({"edges": LINE["edges"][::-1]}, "Edges must be contiguous from 1..E in ascending order"),
    (edge(k=1.5), "edge.k must be an integer"),
    (edge(cap=True), "edge.cap must be an integer"),
    (edge(c="1"), "edge.c must be an integer"),
    (edge(i=4), "Edge endpoints must reference valid node IDs"),
    (edge(j=0), "Edge endpoints must reference valid node IDs"),
    (edge(SC=0), "Edge SC must be positive"),
    (edge(SC=9), "Each edge SC must match the topology SC"),
    (edge(SC=0) | {"SC": 0}, "Edge SC must be positive"),
    (edge(causal_radius=0), "edge.causal_radius must be positive when provided"),
    ({"causal_radius": -1}, "causal_radius must be non-negative"),
    ({"max_edge_cap": 0}, "max_edge_cap must be a positive integer when provided"),
    ({"nap_ref": 3}, "nap_ref must be a string when provided"),
    ({"meta": []}, "meta must be an object if provided"),
]


@pytest.mark.parametrize(("change", "problem"), TOPOLOGY, ids=lambda each: str(each)[:60])
def test_a_topology_that_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        session_config_from_documents(run_config([90, 0, 3]), LINE | change, profile())
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    ("meta", "version"), [(None, "v1"), ({}, "v1"), ({"version": 3}, "3"), ({"version": None}, "None")]
)
def test_the_topology_version(meta: Any, version: str) -> None:
    assert (
        session_config_from_documents(run_config([90, 0, 3]), LINE | {"meta": meta}, profile()).topology.version
        == version
    )


PROFILE = [
    ({"name": ""}, "ProfileConfig name must be provided"),
    ({"name": "X"}, "Profile name must start with 'CMP-'"),
    ({"C0": 0}, "CMP numeric constants must be positive integers"),
    ({"modulus_M": True}, "modulus_M must be an integer"),
    ({"C0": "5"}, "C0 must be an integer"),
    ({"s_t_rule": None}, "s_t_rule must be an object"),
    ({"SC": 9}, "Profile SC must match topology SC"),
]


@pytest.mark.parametrize(("change", "problem"), PROFILE, ids=lambda each: str(each)[:60])
def test_a_profile_that_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        session_config_from_documents(run_config([90, 0, 3]), LINE, profile() | change)
    assert str(refused.value) == problem


ENTRY = {"pfna_id": "a", "tick": 1, "values": [1, 2, 3]}
PFNA = [
    (pfna(ENTRY) | {"v": 1}, "PFNA V0 requires v == 0"),
    (pfna(), "PFNA entries must be a non-empty list"),
    (pfna(ENTRY | {"values": [1, 2]}), "PFNA entry values length must match expected_length"),
    (pfna(ENTRY | {"values": [1, None, 2]}), "PFNA entry values must be integers"),
    (pfna(ENTRY | {"values": [1, "x", 2]}), "PFNA entry values must be integers"),
    (pfna(ENTRY | {"tick": -1}), "PFNA entry tick must be >= 0"),
    (pfna(ENTRY | {"tick": None}), "PFNA entry tick must be an integer"),
    (pfna(ENTRY | {"tick": [1]}), "PFNA entry tick must be an integer"),
    (pfna(ENTRY) | {"nid": ""}, "PFNA nid must be a non-empty string"),
]


@pytest.mark.parametrize(("document", "problem"), PFNA, ids=lambda each: str(each)[:60])
def test_external_input_that_is_refused(document: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        session_config_from_documents(run_config([90, 0, 3], enable_pfna=True), LINE, profile(), document)
    assert str(refused.value) == problem


def test_external_input_for_another_run_fails_the_run() -> None:
    config = session_config_from_documents(
        run_config([90, 0, 3], enable_pfna=True), LINE, profile(), pfna(ENTRY, run_id="other")
    )
    with pytest.raises(ValueError, match=r"^PFNA run_id must match the run$"):
        run_session(config)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "Scenario registry must be an object"),
        ({"scenarios": []}, "Scenario registry missing required field: v"),
        ({"v": 1}, "scenarios must be a list"),
        ({"v": 1, "scenarios": []}, "Scenario registry must contain at least one entry"),
        ({"v": 1, "scenarios": ["x"]}, "Scenario entry must be an object"),
        ({"v": 1, "scenarios": [{"scenario_id": "a"}]}, "Scenario entry missing required field: description"),
        (
            {"v": 1, "scenarios": [{"scenario_id": "a", "description": "", "run_config_path": "x", "pillars": "umx"}]},
            "pillars must be a list of strings",
        ),
    ],
)
def test_a_registry_that_is_refused(document: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        registry_from_document(document)
    assert str(refused.value) == problem


def test_a_scenario_that_is_not_there() -> None:
    from gbe_aether.fixtures import registry_path

    with pytest.raises(KeyError) as refused:
        load_scenario_registry(registry_path()).get("none")
    assert str(refused.value) == "Scenario not found: none"


def test_a_graph_without_edges_cannot_make_an_i_block() -> None:
    config = session_config_from_documents(run_config([90, 0, 3]), LINE | {"edges": []}, profile())
    with pytest.raises(ValueError, match=r"^topology_snapshot must be populated$"):
        run_session(config)


def test_an_envelope_that_the_gate_rejects_fails_the_run() -> None:
    governance = {"governance_mode": "ENFORCE", "meta": {"allowed_layers": ["CTRL"]}}
    config = session_config_from_documents(run_config([90, 0, 3], governance=governance), LINE, profile())
    with pytest.raises(ValueError, match=r"^ledgers, p_blocks, and envelopes must align one-to-one$"):
        run_session(config)


# --- what is built by hand ---


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: replace(line(), total_ticks=0), "ticks must be >= 1"),
        (lambda: replace(line(), total_ticks="6"), "ticks must be >= 1"),
        (lambda: replace(line(), initial_state=(1, 2)), "initial_state length must match topology N"),
        (lambda: replace(line(), initial_state=(1, 2, 3, 4)), "initial_state length must match topology N"),
        (lambda: replace(line(), initial_state=(1, 2.0, 3)), "initial_state must contain integers only"),
        (lambda: replace(line(), initial_state=(1, True, 3)), "initial_state must contain integers only"),
        (lambda: replace(line(), windows=()), "At least one window must be provided"),
        (lambda: replace(line(), primary_window_id="no"), "primary_window_id must reference a declared window"),
        (lambda: replace(line(), total_ticks=5), "window end_tick cannot exceed configured ticks"),
        (lambda: replace(line(), profile=cmp0_profile()), "Profile SC must match topology SC"),
        (
            lambda: replace(line(), pfna_inputs=(PFNAInputV1("p", "G", "R", 1, "N", (1,)),)),
            "PFNA entry values length must match expected_length",
        ),
        (lambda: RunWindowV1("", "A", 1, 2), "window_id must be provided"),
        (lambda: RunWindowV1("W", "A", 0, 2), "start_tick must be >= 1"),
        (lambda: RunWindowV1("W", "A", 3, 2), "end_tick must be >= start_tick"),
        (lambda: RunStreamV1("s", "nothing"), "Stream source must be one of"),
        (lambda: RunStreamV1("s", "post_u", "X"), "scheme_hint must be one of 'R', 'GR', or 'ID'"),
        (lambda: RunConfigV1(2, "G", "R", "", "", 1, (1,), (RunWindowV1("W", "A", 1, 1),), "W"), "requires v == 1"),
        (lambda: RunConfigV1(1, "G", "R", "", "", 0, (1,), (RunWindowV1("W", "A", 1, 1),), "W"), "ticks must be >= 1"),
        (lambda: LoggingConfigV1(True, "nowhere"), "destination must be one of ['file', 'memory', 'stdout']"),
        (lambda: LoggingConfigV1(True, "file"), "file_path must be provided when destination is 'file'"),
        (lambda: GovernanceConfigV1("SOMETIMES"), "codex_action_mode must be one of ['DRY_RUN', 'ENFORCE'"),
        (lambda: BudgetPolicyV1(""), "policy_id must be provided"),
        (lambda: BudgetPolicyV1("b", -1), "max_actions_per_window must be a non-negative integer when provided"),
        (lambda: BudgetPolicyV1("b", None, True), "max_proposals_per_window must be a non-negative integer"),
        (lambda: TopologyPolicyV1("t", allowed_ops=("DIG",)), "allowed_ops entries must be one of"),
        (lambda: SafetyPolicyV1("s", ()), "invariants must contain at least one entry"),
        (lambda: SafetyPolicyV1("s", ("x",), "MILD"), "severity must be one of ['HARD', 'SOFT']"),
        (
            lambda: GovernanceConfigV1(
                "ENFORCE", budget_policies=(BudgetPolicyV1("p"),), safety_policies=(SafetyPolicyV1("p", ("x",)),)
            ),
            "Duplicate policy_id detected: p",
        ),
        (lambda: ScenarioRegistryV1(1, ()), "Scenario registry must contain at least one entry"),
        (lambda: ScenarioRegistryV1(1, (ScenarioV1("a", "", "p"),) * 2), "Duplicate scenario_id detected: a"),
        (lambda: ScenarioV1("a", "", ""), "run_config_path must be provided"),
        (lambda: replace(line().topology, N=2), "Nodes must be contiguous"),
        (lambda: replace(line().profile, modulus_M=0), "CMP numeric constants must be positive integers"),
    ],
)
def test_what_is_built_by_hand_is_refused_as_a_document_is(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        make()


@pytest.mark.parametrize(
    ("given", "modes"),
    [
        ({}, ("OFF", "OFF")),
        ({"governance_mode": "SUGGEST_ONLY"}, ("OBSERVE", "OBSERVE")),
        ({"codex_action_mode": "GOVERNED_APPLY"}, ("ENFORCE", "GOVERNED_APPLY")),
        ({"governance_mode": "dry_run", "codex_action_mode": "OFF"}, ("DRY_RUN", "DRY_RUN")),
        ({"governance_mode": "ENFORCE", "codex_action_mode": "OBSERVE"}, ("ENFORCE", "GOVERNED_APPLY")),
    ],
)
def test_the_modes_of_a_governance_that_is_built_by_hand_are_resolved(
    given: dict[str, Any], modes: tuple[str, str]
) -> None:
    governance = GovernanceConfigV1(**given)
    assert (governance.governance_mode, governance.codex_action_mode) == modes
