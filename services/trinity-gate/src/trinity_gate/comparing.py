"""Comparing two runs by the session snapshots in their bundles, in a process of its own: they may be large."""

from __future__ import annotations

from trinity_gate.active import run_status
from trinity_gate.errors import GateError
from trinity_gate.models import Comparison
from trinity_gate.runs import Runs


async def compare(runs: Runs, baseline: str, candidate: str, max_diffs: int) -> Comparison:
    """Raises 404, 409, 503."""
    first, second = await runs.record(baseline), await runs.record(candidate)
    _ = run_status(first), run_status(second)
    raise GateError(503, "not_ready", "comparing is not there yet")
