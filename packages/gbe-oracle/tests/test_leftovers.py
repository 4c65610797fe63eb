"""A job's artifacts go with its history, and not before."""

from __future__ import annotations

import pytest

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.ids import InvalidId, new_job_id, ulid_time
from gbe_nexus import Transport, now_ms
from gbe_oracle.complaints import Complaints
from gbe_oracle.leftovers import PATIENCE, Leftovers
from gbe_oracle.testing import Script

OLD = "job_01B00000000000000000000000"  # of 2017


async def leftovers_on(bus: Transport, *job_ids: str, history_age: float = 60.0) -> Leftovers:
    artifacts = await bus.artifact_store("gbe-artifacts")
    for job_id in job_ids:
        await artifacts.put(f"{job_id}/task_1/1/stdout.txt", b"x")
    journal, history = await bus.journal(streams.JOURNAL), await bus.journal(streams.HISTORY)
    return Leftovers(artifacts, journal, history, history_age=history_age)


async def owners(bus: Transport) -> set[str]:
    return {key.split("/")[0] for key in await (await bus.artifact_store("gbe-artifacts")).keys()}


async def test_artifacts_of_a_forgotten_job_are_deleted_after_a_while(bus: Transport, script: Script) -> None:
    sweep = await leftovers_on(bus, OLD, "job_mine")
    assert await sweep.sweep(0) == 0
    assert await sweep.sweep(PATIENCE - 1) == 0
    assert await sweep.sweep(PATIENCE) == 2
    assert await owners(bus) == set()


@pytest.mark.parametrize("place", [subjects.history, subjects.journal])
async def test_a_remembered_jobs_artifacts_stay(bus: Transport, script: Script, place: object) -> None:
    assert callable(place)
    sweep = await leftovers_on(bus, OLD)
    await bus.publish(place("test", OLD), b"{}")
    await sweep.sweep(0)
    assert await sweep.sweep(10 * PATIENCE) == 0
    assert await owners(bus) == {OLD}


async def test_a_young_job_is_not_even_asked_about(bus: Transport, script: Script) -> None:
    young = new_job_id()
    sweep = await leftovers_on(bus, young)
    await sweep.sweep(0)
    assert await sweep.sweep(10 * PATIENCE) == 0
    assert await owners(bus) == {young}


async def test_all_are_looked_at_in_turn(bus: Transport, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gbe_oracle.leftovers.AT_ONCE", 2)
    live = [f"job_live{number}" for number in range(3)]
    sweep = await leftovers_on(bus, *live, "job_zgone")
    for job_id in live:
        await bus.publish(subjects.history("test", job_id), b"{}")
    for number in range(4):
        await sweep.sweep(number)
    await sweep.sweep(PATIENCE + 4)
    assert await owners(bus) == set(live)


async def test_what_is_not_a_jobs_is_left_alone(bus: Transport, script: Script) -> None:
    artifacts = await bus.artifact_store("gbe-artifacts")
    await artifacts.put("images/alpine.tar", b"x")
    sweep = await leftovers_on(bus)
    await sweep.sweep(0)
    assert await sweep.sweep(10 * PATIENCE) == 0
    assert await artifacts.keys() == ["images/alpine.tar"]


def test_an_id_of_ours_tells_its_age() -> None:
    before = now_ms()
    assert before <= ulid_time(new_job_id()[4:]) <= now_ms()
    with pytest.raises(InvalidId):
        ulid_time("not a ulid")


def test_one_warning_of_a_kind_in_a_while(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("gbe_oracle.complaints.time.monotonic", lambda: now[0])
    complaints = Complaints()
    for number in range(10):
        complaints.say("job %d waits", number)
    complaints.say("another kind")
    now[0] += 6
    complaints.say("job %d waits", 10)
    assert [r.getMessage() for r in caplog.records] == [
        "job 0 waits",
        "another kind",
        "job 10 waits (and 9 more like this)",
    ]
