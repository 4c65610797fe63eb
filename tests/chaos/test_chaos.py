"""O6, O7, P14, N11 with real processes and real signals: the short forms of `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import story
from tests.chaos.evidence import Run
from tests.chaos.plan import Plan, make_plan
from tests.chaos.run import chaos


async def passes(plan: Plan, directory: Path) -> Run:
    run, judgement, table = await chaos(plan, directory)
    print(table)
    if not judgement.ok:
        pytest.fail(f"{story.report(plan, run, judgement)}\n{table}\nlogs and data are in {directory}", pytrace=False)
    assert judgement.figures["jobs"] == len(plan.jobs)
    return run


@pytest.mark.server
@pytest.mark.timeout(180)
async def test_200_jobs_survive_a_minute_of_kills(tmp_path: Path) -> None:
    """All roles and the server; seed 5 has each kind of fault."""
    run = await passes(make_plan(5, 30.0, 200), tmp_path)
    assert {incident.role for incident in run.incidents if incident.kind == "kill"} >= {"oracle", "operative", "server"}


@pytest.mark.cluster
@pytest.mark.timeout(180)
async def test_jobs_survive_the_loss_of_leaders(tmp_path: Path) -> None:
    """Three servers, one of which is always dying."""
    run = await passes(make_plan(3, 12.0, 60, cluster=True), tmp_path)
    assert any(incident.kind == "leader" for incident in run.incidents)
