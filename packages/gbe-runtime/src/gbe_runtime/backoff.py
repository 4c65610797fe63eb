"""How long to wait before the next try."""

from __future__ import annotations

import random as _random
from collections.abc import Callable


def retry_delay(
    attempt: int,
    base: float = 1.0,
    factor: float = 2.0,
    maximum: float = 60.0,
    random: Callable[[], float] = _random.random,
) -> float:
    """Seconds before try number `attempt` + 1: exponential, with full jitter.

    Drawn evenly from 0 to `min(maximum, base × factor^(attempt - 1))`, so that what failed together does not come
    back together. `attempt` counts the tries that failed, from 1. `random` returns 0.0 to 1.0; `lambda: 1.0`
    gives the upper bound.
    """
    try:
        bound = base * factor ** max(0, attempt - 1)
    except OverflowError:
        bound = maximum
    return random() * min(maximum, bound)
