"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable

from gbe_jobs_domain.payloads import RetryPolicy
from gbe_runtime.backoff import retry_delay as jittered

DEFAULT = RetryPolicy()


LONGEST_WISH = 3600.0
"""Seconds of `retry_after` that are respected at most: no stranger's word puts a task off for longer."""


def retry_delay(
    policy: RetryPolicy | None, failed: int, random: Callable[[], float], retry_after: float = 0.0
) -> float:
    """Seconds after the `failed`-th failure: exponential, bounded, with full jitter. `random` gives 0.0 to 1.0.

    `retry_after` comes before it, so that those who were told the same time do not come back together.
    """
    policy = policy or DEFAULT
    wish = min(max(0.0, retry_after), LONGEST_WISH)
    return wish + jittered(failed, policy.delay, policy.factor, policy.max_delay, random)


def seconds_text(seconds: float) -> str:
    """For people: `0.3 s`, `4 s`, `90 s`."""
    return f"{seconds:.1f} s" if seconds < 10 and round(seconds, 1) != round(seconds) else f"{seconds:.0f} s"
