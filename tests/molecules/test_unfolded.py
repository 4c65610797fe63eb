"""Looking at a job unfolds its molecules."""

from __future__ import annotations

import asyncio

import pytest

from gbe_jobs_domain.states import JobState, TaskState
from gbe_nexus import Transport, now_ms
from gbe_operative.mock import Behaviour
from gbe_oracle.oracle import BusOracle
from gbe_overseer import watching
from gbe_overseer.plain import lines
from gbe_overseer.result import job_result, to_json
from gbe_overseer.view import JobView
from tests.molecules.ecumene import PATIENCE, Ecumene
from tests.molecules.test_over_the_bus import nested


async def followed(ecumene: Ecumene, document: str) -> tuple[JobView, list[str]]:
    """The job at its end, and what was said on the way."""
    from gbe_jobs_domain.documents import load_document
    from gbe_jobs_domain.ids import new_job_id

    said: list[str] = []
    job_id = new_job_id()
    async with ecumene.client.watch(job_id, unfold=True) as watch, asyncio.timeout(PATIENCE):
        await ecumene.client.submit(load_document(document, source="x").definition, new_id=job_id)
        async for changes in watch:
            said += lines(watch.view, changes, now_ms())
    return watch.view, said


async def test_every_level_is_followed(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus, {"leaf": Behaviour(output=["deep"], delay=0.3)}) as ecumene:
        view, said = await followed(ecumene, nested(3, "{name: leaf, operative: mock}"))
    assert [(task.title, task.state) for task in view.unfolded()] == [
        ("n0", TaskState.COMPLETED),
        ("n0/n1", TaskState.COMPLETED),
        ("n0/n1/n2", TaskState.COMPLETED),
        ("n0/n1/n2/leaf", TaskState.COMPLETED),
    ]
    order = [line.split(" in ")[0] for line in said if ": completed" in line]
    assert [line.split(":")[0] for line in order] == ["n0/n1/n2/leaf", "n0/n1/n2", "n0/n1", "n0", view_title(said)]


def view_title(said: list[str]) -> str:
    return said[-1].split(":")[0]


async def test_a_job_that_is_over_is_unfolded_as_well(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(nested(3))
        view = await ecumene.client.find(summary.job_id, unfold=True)
        assert [task.title for task in view.unfolded()] == ["n0", "n0/n1", "n0/n1/n2", "n0/n1/n2/leaf"]
        leaf = view.task("n0/n1/n2/leaf")
        assert leaf is not None
        assert leaf.output == ["deep"]
        text = to_json(job_result(view))
        assert text.count('"child_job_id":"job_c') == 3
        folded = await ecumene.client.find(summary.job_id)
        assert [task.title for task in folded.unfolded()] == ["n0"]


async def test_who_is_missing_within_is_said(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus) as ecumene:
        job_id = await ecumene.submit(nested(2, "{name: leaf, operative: x-rays}"))
        async with ecumene.client.watch(job_id, unfold=True) as watch, asyncio.timeout(PATIENCE):
            async for _ in watch:
                if watch.view.waiting:
                    break
        assert watch.view.waiting == {"x-rays": "no Operative handles 'x-rays'"}
        await ecumene.client.cancel(job_id)
        assert (await ecumene.end(job_id)).state == "cancelled"


async def test_a_failure_shows_where_it_was(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus, {"leaf": Behaviour(fail_times=9, error="boom", exit_code=7)}) as ecumene:
        view, said = await followed(ecumene, nested(2, "{name: leaf, operative: mock}"))
    assert view.state is JobState.FAILED
    assert any(line.startswith("n0/n1/leaf: failed") and line.endswith("boom") for line in said), said


async def test_only_so_many_are_followed(bus: Transport, oracle: BusOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "UNFOLDED", 2)
    inner = "{molecule: i, steps: [{name: x, operative: mock}]}"
    tasks = ", ".join(f"{{name: m{n}, task_type: molecule, params: {{molecule: {inner}}}}}" for n in range(4))
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(f"name: o\ntasks: [{tasks}]")
        view = await ecumene.client.find(summary.job_id, unfold=True)
        assert sum(task.child is not None for task in view.tasks) == 2
        assert {task.state for task in view.tasks} == {TaskState.COMPLETED}


async def test_a_cancelled_molecule_says_how_long_it_ran(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus, {"slow": Behaviour(hang=True)}) as ecumene:
        job_id = await ecumene.submit(nested(2, "{name: slow, operative: mock}"))
        await asyncio.wait_for(ecumene.mock.started.wait(), PATIENCE)
        await ecumene.client.cancel(job_id)
        child = (await ecumene.end(job_id)).children["n0"]
        await ecumene.end(child)
        view = await ecumene.client.find(job_id, unfold=True)
        molecules = [task for task in view.unfolded() if task.child is not None]
        assert [task.title for task in molecules] == ["n0", "n0/n1"]
        for task in molecules:
            assert task.child is not None
            assert task.state is TaskState.CANCELLED
            assert (task.began_at, bool(task.ended_at)) == (task.child.created_at, True)
