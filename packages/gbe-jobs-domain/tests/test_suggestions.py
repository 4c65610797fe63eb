"""Did you mean …?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_jobs_domain.suggestions import Suggester, distance


@pytest.mark.parametrize(
    ("word", "names", "nearest"),
    [
        ("depend_on", ["name", "depends_on", "params"], "depends_on"),
        ("fetsh", ["fetch", "flesh"], "fetch"),
        ("nmae", ["name"], "name"),
        ("Name", ["name"], "name"),
        ("x", ["a", "b"], None),
        ("nowhere", ["fetch"], None),
        ("", ["a"], None),
    ],
)
def test_the_nearest(word: str, names: list[str], nearest: str | None) -> None:
    assert Suggester().nearest(word, names) == nearest


def test_the_budget_ends_the_search() -> None:
    suggester = Suggester(budget=2)
    assert suggester.nearest("fetch", ["aaaaa", "bbbbb", "fetsh"]) is None
    assert suggester.nearest("fetch", ["fetsh"]) is None


def naive(left: str, right: str) -> int:
    if not left or not right:
        return len(left) + len(right)
    best = min(
        naive(left[1:], right) + 1, naive(left, right[1:]) + 1, naive(left[1:], right[1:]) + (left[0] != right[0])
    )
    if left[:2] == right[:2][::-1] and len(left) > 1 < len(right):
        best = min(best, naive(left[2:], right[2:]) + 1)
    return best


@given(st.text("abc", max_size=5), st.text("abc", max_size=5), st.integers(0, 5))
def test_the_distance_is_the_distance(left: str, right: str, limit: int) -> None:
    assert distance(left, right, limit) == min(naive(left, right), limit + 1)
