"""Did you mean …? The nearest name within a small edit distance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_BUDGET: Final = 20_000
"""Comparisons one document may cost: a large one with thousands of wrong names is still answered at once."""


class Suggester:
    """Finds the nearest of some names, until its budget is used up."""

    def __init__(self, budget: int = _BUDGET) -> None:
        self._budget = budget

    def nearest(self, word: str, names: Iterable[str]) -> str | None:
        """The nearest of `names`, the first of several; None where none is near enough."""
        best: str | None = None
        limit = min(3, len(word) // 3)
        if self._budget <= 0 or len(word) > 128:
            return None
        lowered = word.lower()
        for name in names:
            if abs(len(name) - len(word)) > limit:
                continue
            self._budget -= 1
            found = distance(lowered, name.lower(), limit)
            if found <= limit:
                best, limit = name, found - 1
            if limit < 0 or self._budget <= 0:
                break
        return best

    def hint(self, word: str, names: Iterable[str]) -> str:
        """`did you mean 'x'?`, or nothing."""
        found = self.nearest(word, names)
        return f"did you mean '{found}'?" if found is not None else ""


def distance(left: str, right: str, limit: int) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours that make `right` of `left`.

    Anything above `limit` is returned as `limit + 1`.
    """
    if left == right:
        return 0
    before: list[int] = []
    above = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > limit and min(above) > limit:
            return limit + 1
        before, above = above, row
    return min(above[-1], limit + 1)
