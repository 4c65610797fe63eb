"""Documents with any value replaced by any other: they run, or they are refused in an orderly way."""

import contextlib
import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gbe_aether import registry_from_document, run_session, session_config_from_documents, verify_ledger
from gbe_aether.fixtures import registry_path

CASES = Path(__file__).parent / "goldens" / "cases"
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 10**30, -(10**19), 0.5, 1e308, float("inf"), "", "x", "8", "OFF", "ü\x7f",
    [], [1], ["a"], [[]], [{}], [None], {}, {"a": 1}, {"policy_id": "p"}, {"mode": "sum_abs_flux", "scale": 10**30},
]  # fmt: skip
REFUSALS = (ValueError, TypeError, OverflowError)


def places(value: Any) -> list[tuple[Any, Any]]:
    """All places of a document: a container and a key in it."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        each = pending.pop()
        keys = list(each) if isinstance(each, dict) else list(range(len(each))) if isinstance(each, list) else []
        for key in keys:
            found.append((each, key))
            pending.append(each[key])
    return found


@pytest.mark.parametrize(
    "name", ["h48_pfna_tick0_and_mid", "h59_gov_two_budgets", "h69_mix_seed2", "h35_press_all_schemes"]
)
def test_any_odd_value_anywhere_runs_or_is_refused(name: str) -> None:
    inputs = json.loads((CASES / f"{name}.json").read_text())["inputs"]
    documents = {key: inputs[key] for key in ("run_config", "topology", "profile", "pfna")}
    chance = random.Random(name)
    ran = 0
    for _ in range(400):
        changed = copy.deepcopy(documents)
        for _ in range(chance.choice([1, 1, 2])):
            container, key = chance.choice(places(changed))
            if chance.random() < 0.1 and isinstance(container, dict):
                del container[key]
            else:
                container[key] = copy.deepcopy(chance.choice(ODD))
        if changed.keys() != documents.keys() or _endless(changed):
            continue
        try:
            result = run_session(session_config_from_documents(**changed))
            found = verify_ledger(result)
        except REFUSALS:
            continue
        assert found.ok, found.problem
        ran += 1
    assert ran > 20


def _endless(documents: Any) -> bool:
    """A run of 10^30 ticks is as good as any other, but not here."""
    config = documents["run_config"]
    ticks = config.get("ticks") if isinstance(config, dict) else None
    logging = config.get("logging") if isinstance(config, dict) else None
    return (isinstance(ticks, int | float) and ticks > 1000) or (isinstance(logging, dict) and logging != {
        "destination": "memory", "enabled": True, "include_ticks": True, "include_windows": True,
    })  # fmt: skip


def test_any_odd_value_in_a_registry_is_read_or_refused() -> None:
    document = json.loads(registry_path().read_text())
    chance = random.Random(5)
    for _ in range(500):
        changed = [copy.deepcopy(document)]
        container, key = chance.choice(places(changed))
        container[key] = copy.deepcopy(chance.choice(ODD))
        with contextlib.suppress(*REFUSALS):
            registry_from_document(changed[0])
