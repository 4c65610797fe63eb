"""Sessions as tasks: what they take, how they are steered, what they leave, and what happens when somebody dies."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gbe_aether import verify_ledger
from gbe_aether.fixtures import fixture_path
from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_jobs_domain.payloads import ControlKind, TaskEnded, TaskQueued
from gbe_nexus import NotFound, connect
from gbe_operative.settings import WorkerSettings
from gbe_operative.testing import Hall
from gbe_operative_aether import wire
from gbe_operative_aether.operative import AetherOperative

ENDLESS = 1_000_000_000
"""Ticks of a session that nobody waits for."""


class Sessions:
    """Sessions of one worker, and what they leave."""

    def __init__(self, hall: Hall, operative: AetherOperative) -> None:
        self.hall = hall
        self.operative = operative

    async def begin(self, **params: str) -> TaskQueued:
        """Queue a session."""
        task = self.hall.task(f"s{len(self.hall.acks)}", wire.TASK_TYPE, params=params)
        await self.hall.queue(task)
        return task

    async def end(self, task: TaskQueued, patience: float = 30) -> TaskEnded:
        """Its end."""
        await self.hall.until(lambda: any(each.task_id == task.task_id for each in self.hall.ended), patience)
        return next(each for each in self.hall.ended if each.task_id == task.task_id)

    async def run(self, **params: str) -> TaskEnded:
        """A session from its begin to its end."""
        return await self.end(await self.begin(**params))

    def reports(self, task: TaskQueued) -> list[wire.Report]:
        """What it said."""
        said = [each for each in self.hall.progress if each.task_id == task.task_id and each.data is not None]
        return [wire.decode_report(bytes(each.data)) for each in said if each.data is not None]

    async def until(self, task: TaskQueued, state: str, tick: int | None = None) -> wire.SessionReport:
        """Wait for a report of that state (and tick); gives the newest."""

        def found() -> list[wire.SessionReport]:
            sessions = [report.session for report in self.reports(task)]
            return [each for each in sessions[-1:] if each.state == state and tick in (None, each.tick)]

        await self.hall.until(found, 20)
        return found()[0]

    async def steer(self, task: TaskQueued, kind: ControlKind) -> None:
        """A control message for it."""
        await self.hall.control(task, kind)

    async def artifact(self, key: str) -> bytes | None:
        """What is in the artifact store under that key."""
        store = await self.hall.transport.artifact_store(ARTIFACT_STORE)
        try:
            return b"".join([chunk async for chunk in store.get(key)])
        except NotFound:
            return None

    async def outcome(self, task: TaskQueued) -> wire.Outcome:
        """The outcome it left; it may still be on its way when the task is reported."""
        body = await self.artifact(wire.outcome_key(task.job_id, task.task_id))
        assert body is not None
        return wire.decode_outcome(body)

    async def log(self, task: TaskQueued) -> list[dict[str, Any]]:
        """The complete log."""
        body = await self.artifact(wire.log_key(task.job_id, task.task_id))
        assert body is not None
        return [json.loads(line) for line in gzip.decompress(body).splitlines()]


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    bus = await connect("memory://")
    async with Hall.on(bus) as hall:
        operative = AetherOperative()
        # The hall's own patience with what is cancelled is too short for the log of a long session.
        settings = WorkerSettings(ack_wait=5, moment=0.02, interrupt_grace=20)
        await hall.worker(operative, slots=2, settings=settings).start()
        yield Sessions(hall, operative)
    await bus.close()


def documents(**changes: Any) -> dict[str, str]:
    """The documents of `ring-5` as params, with changes of the run config."""
    run_config = json.loads(fixture_path("configs/ring-5.json").read_text())
    topology = fixture_path("topologies/ring-5.json").read_text()
    profile = json.loads(fixture_path("profiles/cmp-2.json").read_text())
    profile["SC"] = json.loads(topology)["SC"]
    everything = {**run_config, "logging": {"enabled": True}, "metrics": {"enabled": True}, **changes}
    return {"run_config": json.dumps(everything), "topology": topology, "profile": json.dumps(profile)}


async def test_a_scenario_runs_and_leaves_its_outcome_and_a_bundle_that_verifies(
    sessions: Sessions, tmp_path: Path
) -> None:
    task = await sessions.begin(scenario="gf01", overrides='{"metrics": {"enabled": true}}')
    ended = await sessions.end(task)
    assert isinstance(ended.outcome, Completed), ended.outcome
    assert isinstance(ended.outcome.data, Inline)
    outcome = wire.decode_outcome(bytes(ended.outcome.data.value))
    assert outcome == await sessions.outcome(task)
    assert (outcome.result, outcome.ticks_completed) == (wire.SessionResult.COMPLETED, 8)
    assert outcome.last_hash.startswith("e8b640082d2b")
    assert outcome.manifest_check == 786709051
    assert outcome.metrics is not None
    assert outcome.metrics["nap_total"] == 21
    assert outcome.session.nodes == [3, 1, 0, 0, 0, 0]
    assert outcome.log is None
    assert outcome.bundle is not None
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(await sessions.artifact(wire.bundle_key(task.job_id, task.task_id)) or b"")
    assert verify_ledger(bundle).last_hash == outcome.last_hash


async def test_documents_and_a_reference_to_documents_are_the_same_session(sessions: Sessions) -> None:
    params = documents()
    one = await sessions.run(**params)
    store = await sessions.hall.transport.artifact_store(ARTIFACT_STORE)
    key = wire.documents_key(sessions.hall.job_id)
    given = wire.documents_in(params)
    assert given is not None
    await store.put(key, wire.encode_documents(given), media_type="application/json")
    other = await sessions.run(session_ref=f"store://{ARTIFACT_STORE}/{key}")
    hashes = []
    for ended in (one, other):
        assert isinstance(ended.outcome, Completed), ended.outcome
        assert isinstance(ended.outcome.data, Inline)
        hashes.append(ended.outcome.data.decoded()["last_hash"])
    assert hashes[0] == hashes[1]


async def test_the_complete_log_is_left_under_the_numbers_of_the_reports(sessions: Sessions) -> None:
    task = await sessions.begin(**documents(ticks=3000))
    await sessions.end(task)
    log = await sessions.log(task)
    assert len(log) == (await sessions.outcome(task)).log_entries
    assert [entry["event"] for entry in log[:3]] == ["run_start", "tick_loop_start", "tick_complete"]
    assert log[-1]["event"] == "run_end"
    assert sum(entry["event"] == "tick_complete" for entry in log) == 3000


async def test_a_session_is_paused_stepped_resumed_and_cancelled_between_two_ticks(sessions: Sessions) -> None:
    task = await sessions.begin(**documents(ticks=ENDLESS))
    await sessions.until(task, "running")
    await sessions.steer(task, ControlKind.PAUSE)
    paused = await sessions.until(task, "paused")
    for number in (1, 2, 3):
        await sessions.steer(task, ControlKind.STEP)
        stepped = await sessions.until(task, "paused", paused.tick + number)
        assert stepped.ticks_per_s == 0
    await sessions.steer(task, ControlKind.RESUME)
    running = await sessions.until(task, "running")
    assert running.tick >= paused.tick + 3
    await sessions.hall.cancel(task, "enough")
    ended = await sessions.end(task)
    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.kind is FailureKind.CANCELLED
    outcome = await sessions.outcome(task)
    assert outcome.result is wire.SessionResult.CANCELLED
    assert running.tick <= outcome.ticks_completed < ENDLESS
    assert outcome.metrics is not None
    assert outcome.metrics["total_ticks"] == outcome.metrics["uledger_entries"] == outcome.ticks_completed
    log = await sessions.log(task)
    assert len(log) == outcome.log_entries
    assert sum(entry["event"] == "tick_complete" for entry in log) == outcome.ticks_completed
    assert log[-1]["event"] == "run_cancelled"


async def test_a_session_can_begin_paused_and_is_cancelled_before_its_first_tick(sessions: Sessions) -> None:
    task = await sessions.begin(**documents(), start_paused="true")
    paused = await sessions.until(task, "paused")
    assert paused.tick == 0
    await sessions.hall.cancel(task)
    await sessions.end(task)
    assert (await sessions.outcome(task)).ticks_completed == 0


async def test_a_paused_session_that_is_resumed_ends_as_one_that_never_was(sessions: Sessions) -> None:
    straight = await sessions.run(**documents(ticks=40))
    task = await sessions.begin(**documents(ticks=40), start_paused="true")
    await sessions.until(task, "paused", 0)
    for tick in (1, 2, 3):
        await sessions.steer(task, ControlKind.STEP)
        await sessions.until(task, "paused", tick)
    await sessions.steer(task, ControlKind.RESUME)
    stepped = await sessions.end(task)
    assert isinstance(straight.outcome, Completed)
    assert isinstance(stepped.outcome, Completed)
    assert stepped.outcome.output == straight.outcome.output


async def test_reports_stay_within_their_bytes_whatever_the_numbers(sessions: Sessions) -> None:
    huge = [10**1500, -(10**1500), 0, 0, 0]
    task = await sessions.begin(**documents(ticks=ENDLESS, initial_state=huge))
    await sessions.until(task, "running")
    await sessions.hall.until(lambda: len(sessions.reports(task)) >= 3, 20)
    await sessions.hall.cancel(task)
    await sessions.end(task)
    for each in sessions.hall.progress:
        assert len(bytes(each.data or b"")) <= wire.MAX_REPORT


async def test_an_error_of_the_engine_is_the_tasks_and_its_log_is_kept(sessions: Sessions) -> None:
    params = documents()
    profile = json.loads(params["profile"])
    profile["s_t_rule"] = {"mode": "no such rule"}
    task = await sessions.begin(**{**params, "profile": json.dumps(profile)})
    ended = await sessions.end(task)
    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.kind is FailureKind.ERROR
    assert ended.outcome.error == "Unsupported s_t rule mode: no such rule"
    outcome = await sessions.outcome(task)
    assert (outcome.result, outcome.error) == (wire.SessionResult.FAILED, ended.outcome.error)
    assert [entry["event"] for entry in await sessions.log(task)] == ["run_start", "tick_loop_start"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "a session has one of run_config, session_ref and scenario; found: none"),
        ({"scenario": "gf01", "run_config": "{}"}, "found: run_config and scenario"),
        ({"scenario": "gf02"}, "Scenario not found: gf02"),
        ({"scenario": "gf01", "tick": "5"}, "unknown param: tick"),
        ({"scenario": "gf01", "overrides": "[]"}, "overrides must be an object of run config keys"),
        ({"scenario": "gf01", "overrides": '{"tiks": 5}'}, "overrides: unknown key tiks"),
        ({"scenario": "gf01", "overrides": '{"topology_path": "/etc/passwd"}'}, "files are the host's business"),
        ({"scenario": "gf01", "overrides": '{"ticks": 0}'}, "ticks must be >= 1"),
        ({"scenario": "gf01", "overrides": "{"}, "overrides is not JSON"),
        (
            {"scenario": "gf01", "progress_interval_ms": "5"},
            "progress_interval_ms is a number of milliseconds from 100",
        ),
        ({"scenario": "gf01", "start_paused": "yes"}, "start_paused is true or false, not 'yes'"),
        ({"run_config": "{}"}, "missing param: topology, profile"),
        ({"run_config": "{}", "topology": "{}", "profile": "{}"}, "Missing required field: v"),
        ({"run_config": "nonsense", "topology": "{}", "profile": "{}"}, "run_config is not JSON: Expecting value"),
        ({"session_ref": "/etc/passwd"}, "session_ref is not a store:// reference"),
    ],
)
async def test_wrong_params_are_rejected_before_a_tick(
    sessions: Sessions, params: dict[str, str], message: str
) -> None:
    ended = await sessions.run(**params)
    assert isinstance(ended.outcome, Failed)
    assert message in ended.outcome.error
    assert ended.outcome.kind is FailureKind.REJECTED
    assert "\n" not in ended.outcome.error


async def test_a_log_destination_in_the_documents_is_not_written_to(sessions: Sessions, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    logging = {"enabled": True, "destination": "file", "file_path": str(file)}
    task = await sessions.begin(**documents(logging=logging))
    ended = await sessions.end(task)
    assert isinstance(ended.outcome, Completed), ended.outcome
    assert not file.exists()
    assert len(await sessions.log(task)) == (await sessions.outcome(task)).log_entries > 0


async def test_two_sessions_run_side_by_side_and_their_processes_are_used_again(sessions: Sessions) -> None:
    first = [await sessions.begin(**documents(ticks=ENDLESS, logging={})) for _ in range(2)]
    for task in first:
        await sessions.until(task, "running")
    pids = set(sessions.operative.pids)
    assert len(pids) == 2
    for task in first:
        await sessions.hall.cancel(task)
        await sessions.end(task)
    again = await sessions.run(**documents())
    assert isinstance(again.outcome, Completed)
    assert set(sessions.operative.pids) == pids


async def test_the_series_has_the_first_ticks_of_a_session_that_then_stands_still(sessions: Sessions) -> None:
    task = await sessions.begin(**documents(ticks=5000, initial_state=[10, 0, 0, 0, 0]))
    await sessions.end(task)
    flux = (await sessions.outcome(task)).session.flux
    assert [tick for tick, _ in flux[:3]] == [1, 2, 3]
    assert flux[0][1] != 0
    assert flux[-1] == (5000, 0)


async def test_a_killed_engine_fails_its_session_and_nothing_else(sessions: Sessions) -> None:
    task = await sessions.begin(**documents(ticks=ENDLESS))
    await sessions.until(task, "running")
    for pid in sessions.operative.pids:
        os.kill(pid, signal.SIGKILL)
    ended = await sessions.end(task)
    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.error == "the engine's process was killed by SIGKILL"
    again = await sessions.run(**documents())
    assert isinstance(again.outcome, Completed)


async def test_a_worker_that_stops_hands_its_session_back_and_keeps_nothing_of_it() -> None:
    bus = await connect("memory://")
    async with Hall.on(bus) as hall:
        sessions = Sessions(hall, AetherOperative())
        worker = hall.worker(sessions.operative)
        await worker.start()
        task = await sessions.begin(**documents(ticks=ENDLESS))
        await sessions.until(task, "running")
        await worker.stop()
        assert not hall.ended
        assert await sessions.artifact(wire.outcome_key(task.job_id, task.task_id)) is None
        note = await hall.note(task)
        assert note is not None
        assert note.handed_back == 1
    await bus.close()


WORKER = """
import asyncio, sys
from gbe_operative_aether.process import EngineProcess

async def main():
    process = EngineProcess()
    await process.start()
    print(process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_the_engine_does_not_outlive_a_worker_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        handle = os.pidfd_open(pid)
        try:
            worker.kill()
            worker.wait()
            asyncio.run(_gone(handle))
        finally:
            os.close(handle)


async def _gone(handle: int) -> None:
    """A pidfd is readable when its process has ended."""
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, gone.set)
    await asyncio.wait_for(gone.wait(), 10)


async def test_the_engine_sees_no_secret_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GBE_NATS_PASSWORD", "hush")
    bus = await connect("memory://")
    async with Hall.on(bus) as hall:
        operative = AetherOperative()
        await hall.worker(operative).start()
        for pid in operative.pids:
            assert b"hush" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert operative.pids
    await bus.close()
