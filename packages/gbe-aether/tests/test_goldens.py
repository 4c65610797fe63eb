"""The recorded results: every golden case, every recorded rejection, and that a golden can't be wrong unnoticed."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gbe_aether import (
    SessionRunResult,
    load_scenario_registry,
    load_scenario_session_config,
    run_session,
    session_snapshot_sha256,
)
from gbe_aether.fixtures import registry_path
from gbe_aether.golden import verify_golden, verify_golden_file

GOLDENS = Path(__file__).parent / "goldens"
CASES = sorted((GOLDENS / "cases").glob("*.json"))
# Beside the repository, or beside a folder of worktrees of it.
SHARED = next(
    (found for folder in Path(__file__).resolve().parents if (found := folder / "shared/aether/goldens").is_dir()),
    Path("no/shared/folder"),
)

every_case = pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)


@pytest.mark.parametrize("kernel", ["exact", "wide"])
@every_case
def test_a_recorded_case_comes_out_the_same(file: Path, kernel: str) -> None:
    (outcome,) = verify_golden_file(file, kernel)
    assert outcome.passed, outcome.diffs[0].render()


def test_every_recorded_rejection_is_refused_in_the_same_words() -> None:
    outcomes = list(verify_golden_file(GOLDENS / "errors.json"))
    assert len(outcomes) == 53
    assert not [f"{outcome.case}: {outcome.diffs[0].render()}" for outcome in outcomes if not outcome.passed]


# --- the scenarios ---------------------------------------------------------------------------------

KEY_FIGURES = {
    "gf01": {
        "state": [3, 1, 0, 0, 0, 0],
        "checks": [786709051, 108592583],
        "lengths": [(64, 336), (80, 448), (64, 48), (80, 64)],
        "mode": "OBSERVE",
        "nap_total": 21,
        "accepted": 0,
        "policy_set_hash": "0a7621b8c6ef02a795db54b23571e77962c3917a388ad9d11f4f6f411ea2e0c9",
        "last_hash": "e8b640082d2bbafd30e6cbcd83bfa2c6254dab807b1ca6a8723a7ddf8ab7ab88",
        "snapshot": "ff08391c522702fc914a7511e693d9690733356c84ae3433ff5a89a5894c4df9",
    },
    "line-4": {
        "state": [8, 4, 0, 0],
        "checks": [71810111],
        "mode": "OFF",
        "nap_total": 9,
        "accepted": 0,
        "policy_set_hash": "4bce958e847bf6f467d14d2fa7c3253a3589ea26d832ac77bd06e8bebb16eb3f",
        "last_hash": "7f9a5f167c94baaf35c98f99423ff7bb547c4dfb09176b6acb9ddad4fcc92a3b",
        "snapshot": "6d7fd18bed8992e3ff223e7dc1726f61d1b50293bd616d277db23f67cbfb4d12",
    },
    "ring-5": {
        "state": [8, 1, 0, 0, 1],
        "checks": [96964647],
        "mode": "OBSERVE",
        "nap_total": 15,
        "accepted": 0,
        "policy_set_hash": "0a7621b8c6ef02a795db54b23571e77962c3917a388ad9d11f4f6f411ea2e0c9",
        "last_hash": "f162c757cda83357dbc98945740651d54548205191fe6e0eadf1e3b405f851a9",
        "snapshot": "e957af39e6dcc8496ec10b3583406cbabc4b44baecfcbd0e2126096e62178ca6",
    },
    "gov-codex-demo": {
        "state": [3, 1, 0, 0, 0, 0],
        "checks": [786709051],
        "mode": "ENFORCE",
        "nap_total": 22,
        "accepted": 1,
        "policy_set_hash": "1372f078185947f199b6d0a6463fae603b3b03953df9230a8f8741055ac61995",
        "last_hash": "8bc32ae88bb9a86321e763fdb88cbc75feb0d21ba98be4b4ef640f5bf9cde5b7",
        "snapshot": "81ac223cda360a09ab9516a566f5a14c0d06e4b9a041156bc0096ff13eeca935",
    },
}


def figures(result: SessionRunResult) -> dict[str, Any]:
    ticks = result.tick_result
    manifests = list(ticks.manifests.values())
    return {
        "state": result.final_state,
        "checks": [manifest.manifest_check for manifest in manifests],
        "lengths": [(each.L_model, each.L_residual) for manifest in manifests for each in manifest.streams],
        "mode": ticks.governance.governance_mode,
        "nap_total": result.envelope_count(),
        "accepted": len(ticks.codex_actions),
        "policy_set_hash": ticks.governance.policy_set_hash,
        "last_hash": ticks.last_hash,
        "snapshot": session_snapshot_sha256(result),
    }


@pytest.mark.parametrize("scenario", KEY_FIGURES)
def test_the_shipped_scenarios_have_the_recorded_figures(scenario: str) -> None:
    found = figures(run_session(load_scenario_session_config(registry_path(), scenario)))
    expected = KEY_FIGURES[scenario]
    assert {name: found[name] for name in expected} == expected


def test_the_chain_of_the_shipped_scenarios_is_the_recorded_one() -> None:
    result = run_session(load_scenario_session_config(registry_path(), "gf01"))
    assert [block.C_t for block in result.tick_result.p_blocks] == [
        20987847, 356793608, 65491504, 113355772, 927048329, 759821701, 916969047, 588473909,
    ]  # fmt: skip


def test_the_registry_lists_the_scenarios_in_the_order_of_its_file() -> None:
    assert load_scenario_registry(registry_path()).ids() == list(KEY_FIGURES)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded scenarios lie in ../shared, which is not here")
@pytest.mark.parametrize("kernel", ["exact", "wide"])
@pytest.mark.parametrize("scenario", KEY_FIGURES)
def test_the_recorded_scenarios_come_out_the_same(scenario: str, kernel: str) -> None:
    (outcome,) = verify_golden_file(SHARED / "scenarios" / f"{scenario}.json", kernel)
    assert outcome.passed, outcome.diffs[0].render()


# --- a golden that is wrong ------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all scalars and empty containers."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    before = path
    for key, each in inner:
        path = (*before, key)
        yield from leaves(each, path)
    if not isinstance(value, dict | list) or not value:
        yield before


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return [0] if value == [] else {"new": 0} if value == {} else 0


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a path."""
    copied = copy.deepcopy(document)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copied


def rendered(path: tuple[Any, ...]) -> str:
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


@pytest.mark.parametrize("name", ["h26_k_negative_cap_zero_cap_negative", "h62_gov_meta_layers_observed"])
def test_a_golden_with_one_value_changed_fails_and_names_it(name: str) -> None:
    document = json.loads((GOLDENS / "cases" / f"{name}.json").read_text())
    paths = [("expect", *path) for path in leaves(document["expect"])]
    chance = random.Random(name)
    for path in chance.sample(paths, 100):
        value = document
        for key in path:
            value = value[key]
        (outcome,) = verify_golden(replaced(document, path, changed(value)))
        assert not outcome.passed, path
        said = outcome.diffs[0].path
        assert said == rendered(path) or path[-1] == "tick_detail" or value in ([], {}), (said, path)


def test_a_golden_with_more_or_less_in_it_fails_and_names_it() -> None:
    document = json.loads(CASES[0].read_text())
    (outcome,) = verify_golden(replaced(document, ("expect", "uledger", "more"), 1))
    assert outcome.diffs[0].render() == "expect.uledger.more: baseline=1 candidate='<missing>'"
    less = copy.deepcopy(document)
    del less["expect"]["loom"]["C0"]
    (outcome,) = verify_golden(less)
    assert outcome.diffs[0].path == "expect.loom.C0"
    (outcome,) = verify_golden({**document, "another": 1})
    assert outcome.diffs[0].path == "another"


def test_a_rejection_with_another_message_stage_or_type_fails_and_names_it() -> None:
    case = json.loads((GOLDENS / "errors.json").read_text())["cases"][0]
    for path, value in ((("error", "message"), "no"), (("error", "type"), "KeyError"), (("stage",), "run")):
        document = {"format": "aether-golden/1", "cases": [replaced(case, path, value)]}
        (outcome,) = verify_golden(document)
        assert outcome.diffs[0].path == ".".join(path)


def test_what_should_be_refused_and_is_not_fails() -> None:
    case = json.loads((GOLDENS / "errors.json").read_text())["cases"][0]
    case["inputs"]["run_config"]["v"] = 1
    (outcome,) = verify_golden({"format": "aether-golden/1", "cases": [case]})
    assert "expected" not in outcome.diffs[0].path
    assert not outcome.passed


@pytest.mark.parametrize("detail", ["f_e_and_states", "f_e_post_u"])
def test_a_golden_with_less_detail_is_compared_in_that_detail(detail: str) -> None:
    document = json.loads(CASES[0].read_text())
    document["expect"]["tick_detail"] = detail
    for row in document["expect"]["ticks"]:
        row["f_e"] = [edge[-1] for edge in row.pop("edges")]
        if detail == "f_e_post_u":
            del row["pre_u"]
    (outcome,) = verify_golden(document)
    assert outcome.passed, outcome.diffs[0].render()
    (outcome,) = verify_golden(replaced(document, ("expect", "ticks", 1, "f_e", 0), 12345))
    assert outcome.diffs[0].path == "expect.ticks[1].f_e[0]"


@pytest.mark.parametrize("destination", ["file", "stdout"])
def test_a_golden_whose_run_logs_elsewhere_leaves_no_trace(
    destination: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads(CASES[0].read_text())
    document["inputs"]["run_config"]["logging"] = {
        "enabled": True, "destination": destination, "file_path": "folder/log.jsonl",
    }  # fmt: skip
    (outcome,) = verify_golden(document)
    # The recording had its log in memory.
    assert outcome.diffs[0].path.startswith("expect.logs.")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""
