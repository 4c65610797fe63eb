"""Whoever is killed in the middle of a run: the run's end is known in the end, and the operator is told what it was."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gbe_jobs_domain.payloads import ControlKind
from gbe_nexus_nats.server import EmbeddedServer
from gbe_runtime.connection import ConnectionFile
from tests.integration.gate_process import GateProcess, running, site_environment
from tests.integration.site import Site

pytestmark = pytest.mark.server

LONG = 2_000_000
"""Ticks that take some seconds."""


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    async with Site(EmbeddedServer(), folder) as found:
        await found.start(found.oracle())
        yield found


def _children(gate: GateProcess, what: str) -> list[int]:
    """Processes of the gate's own ecumene whose command line has `what`."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError, UnicodeDecodeError):
                continue
            if what in line and parent == gate.process.pid:
                found.append(int(entry.name))
    return found


async def _under_way(gate: GateProcess, ticks: int = LONG) -> str:
    run_id = await gate.begin("ring-5", ticks_total=ticks)
    await gate.until(run_id, lambda status: status["ticks_completed"] > 0)
    return run_id


async def test_the_service_is_killed_and_its_run_goes_on_elsewhere(site: Site, tmp_path: Path) -> None:
    await site.start(site.operative("aether-session:2"))
    async with running(tmp_path, environment=site_environment(site)) as gate:
        run_id = await gate.paused(ticks=50)
        await gate.post(f"/runs/{run_id}/step")
        await gate.kill()
        # Even if what the service knew of it is lost.
        (gate.data / "gate.sqlite").write_bytes(b"torn" * 100)
        await gate.start()
        found = await gate.until(run_id, lambda status: bool(status["paused"]))
        assert (found["state"], found["ticks_completed"]) == ("running", 1)
        assert (await gate.post("/runs", {"scenario_id": "gf01"}, 409))["error"]["code"] == "run_active"
        heard = await gate.get(f"/runs/{run_id}/logs")
        assert [entry["event_type"] for entry in heard["entries"]] == ["run_start", "tick_loop_start", "tick_complete"]
        await gate.post(f"/runs/{run_id}/resume")
        assert (await gate.end(run_id))["state"] == "completed"
        # Who cancels the job on the bus cancels the run; and while there is no bus, the run says so.
        run_id = await gate.paused()
        assert isinstance(site.server, EmbeddedServer)
        await site.server.kill()
        noted = await gate.until(run_id, lambda status: status["note"] is not None)
        assert (noted["state"], noted["note"]) == ("running", "the bus is not reachable now")
        assert (await gate.post(f"/runs/{run_id}/stop", status=503))["error"]["code"] == "bus_unavailable"
        await site.server.start()
        await gate.until(run_id, lambda status: status["note"] is None)
        await site.client.cancel(run_id.replace("run-", "job_"), "not wanted")
        end = await gate.end(run_id)
        assert (end["state"], end["stop_reason"]) == ("cancelled", "not wanted")


async def test_a_run_that_ended_while_the_service_was_away_is_recorded(site: Site, tmp_path: Path) -> None:
    await site.start(site.operative("aether-session:2"))
    async with running(tmp_path, environment=site_environment(site)) as gate:
        run_id = await gate.paused(ticks=500)
        await gate.kill()
        job_id = run_id.replace("run-", "job_")
        await site.client.control(job_id, "aether-session", ControlKind.RESUME)
        assert await site.end(job_id) == "completed"
        await gate.start()
        assert (await gate.end(run_id))["state"] == "completed"
        detail = await gate.collected(run_id)
        assert detail["log"] == {"state": "complete", "entries": detail["log"]["entries"], "complete": True}
        assert detail["summary_metrics"]["total_ticks"] == 500
        assert (await gate.get("/history"))[0]["result"] == "completed"
        assert (await gate.get("/state"))["run"]["state"] == "completed"


@pytest.mark.slow
async def test_the_service_is_killed_with_its_whole_ecumene(tmp_path: Path) -> None:
    async with running(tmp_path) as gate:
        run_id = await _under_way(gate)
        await gate.kill()
        await gate.start()
        found = await gate.get(f"/runs/{run_id}")
        assert found["state"] in ("running", "fault")
        end = await gate.end(run_id)
        # Handed back in time, the session was run anew; else its Operative is known to have died with it.
        assert end["state"] == "completed" or "its worker died" in end["fault_reason"], end
        assert (await gate.get("/state"))["run"]["state"] == end["state"]
        assert (await gate.run("gf01"))["state"] == "completed"


async def test_the_operative_is_killed_and_another_one_tells(tmp_path: Path) -> None:
    async with running(tmp_path) as gate:
        run_id = await _under_way(gate)
        (operative,) = _children(gate, "gbe_operative.command")
        os.kill(operative, signal.SIGKILL)
        end = await gate.end(run_id)
        assert end["state"] == "fault"
        assert end["fault_reason"]
        detail = await gate.collected(run_id)
        assert detail["log"]["state"] == "partial"
        await _exported_without_a_bundle(gate, run_id, tmp_path)
        last = (await gate.get(f"/runs/{run_id}/logs", level="ERROR"))["entries"]
        assert [entry["event_type"] for entry in last] == ["run_fault"]
        assert (await gate.run("gf01"))["state"] == "completed"


async def _exported_without_a_bundle(gate: GateProcess, run_id: str, folder: Path) -> None:
    """It says what it is, and how the engine computes the same again; that works."""
    detail = await gate.get(f"/history/{run_id}")
    assert detail["export"] == {"available": True, "complete": False, "size": None}
    response = await gate.client.get(f"/history/{run_id}/export")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        about = json.loads(archive.read("manifest.json"))
        assert all(
            hashlib.sha256(archive.read(name)).hexdigest() == member["sha256"]
            for name, member in about["members"].items()
        )
        archive.extractall(folder / "export")
    done = detail["run"]["ticks_completed"]
    assert (
        about["why"]
        == f"the run failed after {done} of {LONG} ticks and left no bundle: " + (detail["run"]["fault_reason"])
    )
    assert about["log"] == {"state": "partial", "entries": detail["log"]["entries"], "complete": False}
    command = about["again"].split()
    assert command[0] == "gbe-aether"
    again = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gbe_aether.command", *command[1:], cwd=folder / "export", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await again.communicate()
    assert again.returncode == 0
    assert f"{done}" in output.decode().replace(",", "")
    assert (folder / "export" / "again.zip").stat().st_size > 0


@pytest.mark.slow
async def test_the_operative_is_gone_and_nobody_tells(site: Site, tmp_path: Path) -> None:
    operative = site.operative("aether-session:2", lease=60)
    await site.start(operative)
    environment = {**site_environment(site), "GBE_GATE_LOST_AFTER": "3"}
    async with running(tmp_path, environment=environment) as gate:
        run_id = await _under_way(gate)
        await operative.kill()
        end = await gate.end(run_id)
        assert end["state"] == "fault"
        assert "has not been heard of" in end["fault_reason"]
        # Nobody runs it later: the job is over.
        assert await site.end(run_id.replace("run-", "job_")) == "cancelled"


async def test_a_gate_joins_the_ecumene_that_a_connection_file_names(site: Site, tmp_path: Path) -> None:
    options = site.server.options
    path = ConnectionFile(url=site.server.url, user=options.user, password=options.password).write(
        tmp_path / "eco" / "connection.json"
    )
    await site.start(site.operative("aether-session:2"))
    async with running(tmp_path, environment={"GBE_CONNECTION_FILE": str(path)}) as gate:
        status = await gate.run("gf01")
        assert status["state"] == "completed"
        assert await site.end(status["run_id"].replace("run-", "job_")) == "completed"
        assert _children(gate, "nats-server") == []


async def test_nobody_is_there_to_execute_it(site: Site, tmp_path: Path) -> None:
    environment = {**site_environment(site), "GBE_GATE_QUEUE_PATIENCE": "1"}
    async with running(tmp_path, environment=environment) as gate:
        assert "no Operative handles 'aether-session'" in (await gate.get("/health"))["reasons"]
        run_id = await gate.begin("gf01")
        queued = await gate.until(run_id, lambda status: status["note"] is not None or status["state"] != "running")
        assert (queued["phase"], queued["note"]) == ("queued", "no Operative handles 'aether-session'")
        end = await gate.end(run_id)
        assert end["state"] == "fault"
        assert end["fault_reason"].startswith("nobody executes it: no Operative handles 'aether-session'")


async def test_the_server_is_killed_and_started_again(tmp_path: Path) -> None:
    async with running(tmp_path) as gate:
        run_id = await gate.paused(ticks=100)
        servers = _children(gate, "nats-server")
        assert servers
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        assert (await gate.get("/state"))["run"]["run_id"] == run_id
        async with _patience():
            while (response := await gate.client.post(f"/runs/{run_id}/resume")).status_code != 200:
                assert response.status_code == 503, response.text
        assert (await gate.end(run_id))["state"] == "completed"
        assert (await gate.run("gf01"))["state"] == "completed"


def _patience() -> asyncio.Timeout:
    return asyncio.timeout(30)
