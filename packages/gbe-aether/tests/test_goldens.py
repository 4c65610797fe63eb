"""The recorded results: every golden case and every recorded rejection."""

from pathlib import Path

import pytest

from gbe_aether.golden import verify_golden_file

GOLDENS = Path(__file__).parent / "goldens"
SHARED = Path(__file__).resolve().parents[4] / "shared/aether/goldens"


@pytest.mark.parametrize("file", sorted((GOLDENS / "cases").glob("*.json")), ids=lambda file: file.stem)
def test_a_recorded_case_comes_out_the_same(file: Path) -> None:
    (outcome,) = verify_golden_file(file)
    assert outcome.passed, outcome.diffs[0].render()


def test_every_recorded_rejection_is_refused_in_the_same_words() -> None:
    outcomes = list(verify_golden_file(GOLDENS / "errors.json"))
    assert len(outcomes) == 53
    assert not [f"{outcome.case}: {outcome.diffs[0].render()}" for outcome in outcomes if not outcome.passed]
