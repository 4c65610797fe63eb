"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable

from gbe_jobs_domain.payloads import RetryPolicy
from gbe_runtime.backoff import retry_delay as jittered

DEFAULT = RetryPolicy()


def retry_delay(policy: RetryPolicy | None, failed: int, random: Callable[[], float]) -> float:
    """Seconds after the `failed`-th failure: exponential, bounded, with full jitter. `random` gives 0.0 to 1.0."""
    policy = policy or DEFAULT
    return jittered(failed, policy.delay, policy.factor, policy.max_delay, random)


def seconds_text(seconds: float) -> str:
    """For people: `0.3 s`, `4 s`, `90 s`."""
    return f"{seconds:.1f} s" if seconds < 10 and round(seconds, 1) != round(seconds) else f"{seconds:.0f} s"
