"""The data directory: what is torn or damaged at a start is set aside or said; edits are whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest

from gbe_aether.fixtures import governance_base_path, registry_path
from gbe_jobs_domain.payloads import JobSummary
from gbe_jobs_domain.records import JobRecord
from gbe_nexus import Unavailable, now_ms
from gbe_runtime.metrics import Metrics
from tests.integration.gate_process import GateProcess, running
from trinity_gate import rebuilding
from trinity_gate.database import Database
from trinity_gate.engine import Governance
from trinity_gate.errors import DamagedFile, GateError
from trinity_gate.files import encode_document
from trinity_gate.gate import Gate
from trinity_gate.index import Caller, Index, RunRecord
from trinity_gate.models import CloneRequest, CoreParamsPatch, ScenarioPatch
from trinity_gate.scenarios import Scenarios
from trinity_gate.service import GateService
from trinity_gate.settings import GateSettings

BASE: dict[str, Any] = json.loads(governance_base_path().read_bytes())


def scenarios_in(folder: Path) -> Scenarios:
    return Scenarios(folder / "library", lambda: BASE)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def shipped() -> Iterator[None]:
    """The shipped fixtures are the same before and after."""
    before = tree(registry_path().parent.parent)
    yield
    assert tree(registry_path().parent.parent) == before


class TestLibrary:
    async def test_the_shipped_scenarios_are_copied_and_never_touched(self, tmp_path: Path, shipped: None) -> None:
        scenarios = scenarios_in(tmp_path)
        await scenarios.load()
        await scenarios.update("ring-5", ScenarioPatch(core_params=CoreParamsPatch(ticks_total=9)))
        again = scenarios_in(tmp_path)
        await again.load()
        detail = await again.detail("ring-5")
        assert detail.core_params is not None
        assert (detail.core_params.ticks_total, detail.shipped) == (9, False)
        assert (await again.detail("gf01")).shipped

    async def test_files_are_for_their_owner_alone(self, tmp_path: Path) -> None:
        await scenarios_in(tmp_path).load()
        assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "library").rglob("*"))

    async def test_a_refused_edit_leaves_every_file_as_it_was(self, tmp_path: Path) -> None:
        scenarios = scenarios_in(tmp_path)
        await scenarios.load()
        before = tree(tmp_path)
        for patch in (
            ScenarioPatch(description="x", core_params=CoreParamsPatch(enable_pfna=True)),
            ScenarioPatch(description="x", core_params=CoreParamsPatch(primary_window_id="w")),
            ScenarioPatch(description="x", governance_preset="w"),
        ):
            with pytest.raises(GateError) as raised:
                await scenarios.update("gf01", patch)
            assert raised.value.status == 422
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("fails_at", [1, 2])
    async def test_an_edit_that_can_not_be_written_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
    ) -> None:
        """The disk is full: at the run config, or at the registry."""
        scenarios = scenarios_in(tmp_path)
        await scenarios.load()
        before, registry = await scenarios.detail("gf01"), (tmp_path / "library/scenarios/registry.json").read_bytes()
        calls = 0
        real = os.fsync

        def full(descriptor: int) -> None:
            nonlocal calls
            if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
                return real(descriptor)
            calls += 1
            if calls == fails_at:
                raise OSError(28, "No space left on device")
            return real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(GateError, match="nothing was changed: No space left") as raised:
            await scenarios.update("gf01", ScenarioPatch(core_params=CoreParamsPatch(ticks_total=9)))
        assert raised.value.status == 500
        monkeypatch.undo()
        assert await scenarios.detail("gf01") == before
        assert (tmp_path / "library/scenarios/registry.json").read_bytes() == registry
        again = scenarios_in(tmp_path)
        await again.load()
        assert await again.detail("gf01") == before
        assert not list((tmp_path / "library").rglob("*.tmp"))

    async def test_what_a_killed_edit_left_is_swept(self, tmp_path: Path) -> None:
        scenarios = scenarios_in(tmp_path)
        await scenarios.load()
        configs = tmp_path / "library" / "configs"
        (configs / "gf01.r7.json").write_text("{}")
        (configs / ".gf01.r8.json.abc.tmp").write_text("{")
        await scenarios_in(tmp_path).load()
        assert sorted(path.name for path in configs.iterdir()) == sorted(
            path.name for path in (registry_path().parent.parent / "configs").iterdir()
        )

    @pytest.mark.parametrize("damage", ["", "{", "[]", '{"v": 1, "scenarios": []}', "\udc80"])
    async def test_a_torn_registry_is_named(self, tmp_path: Path, damage: str) -> None:
        await scenarios_in(tmp_path).load()
        path = tmp_path / "library" / "scenarios" / "registry.json"
        path.write_bytes(damage.encode("utf-8", "surrogateescape"))
        with pytest.raises(DamagedFile, match=r"registry\.json"):
            await scenarios_in(tmp_path).load()

    async def test_a_scenario_whose_files_are_damaged_is_listed_with_its_problem(self, tmp_path: Path) -> None:
        await scenarios_in(tmp_path).load()
        (tmp_path / "library" / "configs" / "gf01.json").write_text('{"v": 1, "gid"')
        (tmp_path / "library" / "topologies" / "ring-5.json").unlink()
        scenarios = scenarios_in(tmp_path)
        await scenarios.load()
        problems = {scenario.id: scenario.problem for scenario in scenarios.summaries()}
        assert problems["gf01"] == problems["ring-5"] == "one of its files is missing or damaged"
        assert problems["line-4"] is None
        assert (await scenarios.detail("gf01")).core_params is None
        with pytest.raises(GateError):
            await scenarios.update("gf01", ScenarioPatch(description="x"))

    async def test_a_run_config_does_not_reach_out_of_the_library(self, tmp_path: Path) -> None:
        await scenarios_in(tmp_path).load()
        outside = tmp_path / "outside.json"
        shutil.copy(registry_path().parent.parent / "topologies" / "gf01.json", outside)
        path = tmp_path / "library" / "configs" / "gf01.json"
        document = json.loads(path.read_bytes())
        document["topology_path"] = "../../outside.json"
        path.write_bytes(encode_document(document))
        scenarios = scenarios_in(tmp_path)
        await scenarios.load()
        assert scenarios.get("gf01").problem == "one of its files is missing or damaged"

    async def test_a_preset_of_a_scenario_is_set_and_taken_away(self, tmp_path: Path) -> None:
        scenarios = scenarios_in(tmp_path)
        await scenarios.load()
        await scenarios.clone("gov-codex-demo", CloneRequest(id="demo"))
        detail = await scenarios.update("demo", ScenarioPatch(governance_preset="dry-run"))
        assert detail.advanced is not None
        assert (detail.governance_preset, detail.advanced.governance.mode) == ("custom", "DRY_RUN")
        detail = await scenarios.update("demo", ScenarioPatch.model_validate({"governance_preset": None}))
        assert detail.advanced is not None
        assert detail.advanced.governance.mode == "OBSERVE"  # the base's
        assert detail.advanced.governance.budget_knobs["max_topology_changes"] == 8  # its own policies stay


class TestIndex:
    async def opened(self, path: Path) -> Index:
        index = Index(path)
        await index.database.open(now_ms())
        return index

    async def test_everything_is_there_again(self, tmp_path: Path) -> None:
        index = await self.opened(tmp_path / "gate.sqlite")
        await index.add(RunRecord("run-1", "job_1", "gf01", "running", 5, 8))
        await index.choose("x", {"a": 1})
        number = await index.begin(7, Caller("me", "overseer"), "run.start", "gf01", {"ticks_total": 3})
        await index.finish(number, "ok", "run-1")
        await index.database.close()
        index = await self.opened(tmp_path / "gate.sqlite")
        assert [run.run_id for run in await index.unfinished()] == ["run-1"]
        assert await index.choice("x") == {"a": 1}
        ((entry,), more) = await index.audit(10)
        assert (entry.actor, entry.target, entry.result, more) == ("me", "run-1", "ok", None)
        await index.database.close()

    async def test_an_id_is_given_once(self, tmp_path: Path) -> None:
        index = await self.opened(tmp_path / "gate.sqlite")
        await index.add(RunRecord("run-1", "job_1", "gf01", "running", 5, 8))
        with pytest.raises(sqlite3.IntegrityError):
            await index.add(RunRecord("run-1", "job_2", "gf01", "running", 5, 8))
        await index.database.close()

    @pytest.mark.parametrize("damage", [b"", b"not a database at all", None])
    async def test_a_damaged_index_is_set_aside(self, tmp_path: Path, damage: bytes | None) -> None:
        path = tmp_path / "gate.sqlite"
        index = await self.opened(path)
        for number in range(200):
            await index.add(RunRecord(f"run-{number}", f"job_{number}", "gf01", "running", 5, 8))
        await index.database.close()
        body = path.read_bytes()
        path.write_bytes(body[: len(body) // 2] if damage is None else damage * 100)
        index = await self.opened(path)
        assert await index.unfinished() == []
        await index.add(RunRecord("run-1", "job_1", "gf01", "running", 5, 8))
        await index.database.close()
        aside = [path for path in tmp_path.glob("gate.sqlite.damaged-*") if not path.name.endswith(("-wal", "-shm"))]
        assert len(aside) == (0 if damage == b"" else 1)
        assert (index.database.set_aside is not None) == bool(aside)

    async def test_what_can_be_read_of_a_damaged_index_is_taken_over(self, tmp_path: Path) -> None:
        path, aside = tmp_path / "gate.sqlite", tmp_path / "gate.sqlite.damaged-1"
        index = await self.opened(path)
        for number in range(400):
            await index.add(RunRecord(f"run-{number:03}", f"job_{number:03}", "gf01", "completed", number, 8, number))
        await index.choose("governance_base", {"governance_mode": "ENFORCE"})
        await index.finish(await index.begin(7, Caller("me", "overseer"), "run.start", "gf01", {}), "ok")
        await index.database.close()
        # A page of the runs' table in its middle is gone.
        body = bytearray(path.read_bytes())
        at = body.index(b'"run-200"') // 4096 * 4096
        body[at : at + 4096] = b"\xff" * 4096
        aside.write_bytes(body)
        path.unlink()

        index = await self.opened(path)
        found = await index.salvage(aside)
        assert (found.audit, found.governance) == (1, True)
        kept = {run.run_id for run in (await index.history(1000))[0]}
        assert 200 < found.runs == len(kept) < 400
        assert {"run-000", "run-399"} <= kept
        assert "run-200" not in kept
        assert await index.choice("governance_base") == {"governance_mode": "ENFORCE"}
        # The bus has the others, and they come between.
        lost = [f"{number:03}" for number in range(400) if f"run-{number:03}" not in kept]
        await index.take_in([RunRecord(f"run-{n}", f"job_{n}", "gf01", "completed", int(n), 8, int(n)) for n in lost])
        await index.add(RunRecord("run-400", "job_400", "gf01", "completed", 400, 8, 400))
        order = [run.run_id for run in (await index.history(1000))[0]]
        assert order == [f"run-{number:03}" for number in range(400, -1, -1)]
        await index.database.close()

    async def test_rows_that_damage_made_odd_are_left_out(self, tmp_path: Path) -> None:
        aside = tmp_path / "gate.sqlite.damaged-1"
        with contextlib.closing(sqlite3.connect(aside)) as db:
            good = msgspec.json.encode(RunRecord("run-2", "job_2", "gf01", "completed", 5, 8)).decode()
            huge = good.replace("run-2", "run-5").replace("job_2", "job_5").replace(":5,", f":{1 << 62}000,")
            db.executescript(
                "CREATE TABLE runs(seq INTEGER PRIMARY KEY, record); CREATE TABLE choices(name, value);"
                "CREATE TABLE audit(id INTEGER PRIMARY KEY, at, actor, role, action, target, detail, result)"
            )
            db.executemany("INSERT INTO runs VALUES (?, ?)", [(1, None), (2, good), (3, 7), (4, good), (5, huge)])
            db.executemany(
                "INSERT INTO choices VALUES (?, ?)", [(None, "1"), (7, "1"), (b"x", "1"), ("a", None), ("b", "1")]
            )
            db.executemany(
                "INSERT INTO audit VALUES (?, 1, 'me', 'overseer', 'run.start', 'gf01', ?, 'ok')",
                [(1, None), (2, "{}"), (3, 4)],
            )
            db.commit()
        index = await self.opened(tmp_path / "gate.sqlite")
        found = await index.salvage(aside)
        assert (found.runs, found.audit, found.governance) == (1, 1, False)
        assert [run.run_id for run in (await index.history(9))[0]] == ["run-2"]
        assert await index.choice("b") == 1
        await index.database.close()

    async def test_what_a_killed_start_did_not_read_of_a_damaged_index_the_next_one_reads(self, tmp_path: Path) -> None:
        first, path = await self.opened(tmp_path / "gate.sqlite"), tmp_path / "gate.sqlite"
        await first.choose("governance_base", {"governance_mode": "ENFORCE"})
        for number in range(100):
            await first.add(RunRecord(f"run-{number:03}", f"job_{number:03}", "gf01", "completed", number, 8, number))
        await first.database.close()
        body = bytearray(path.read_bytes())
        at = body.index(b'"run-050"') // 4096 * 4096
        body[at : at + 4096] = b"\xff" * 4096
        path.write_bytes(body)
        gate = GateService(GateSettings(data=tmp_path))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Index, "salvage", AsyncMock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                await gate._index(used=True)
        await gate.stop()
        for _ in range(2):
            gate = GateService(GateSettings(data=tmp_path))
            index = await gate._index(used=True)
            assert await index.choice("rebuild") is True
            assert await index.choice("governance_base") == {"governance_mode": "ENFORCE"}
            await gate.stop()

    async def test_an_index_of_a_newer_release_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "gate.sqlite"
        newer = Database(path, ["CREATE TABLE a(b)", "CREATE TABLE c(d)"])
        await newer.open(now_ms())
        await newer.close()
        older = Database(path, ["CREATE TABLE a(b)"])
        with pytest.raises(DamagedFile, match="newer release"):
            await older.open(now_ms())
        await older.close()
        assert list(tmp_path.glob("*.damaged-*")) == []

    async def test_a_migration_that_fails_leaves_the_version_before(self, tmp_path: Path) -> None:
        path = tmp_path / "gate.sqlite"
        first = Database(path, ["CREATE TABLE a(b)"])
        await first.open(now_ms())
        await first.write(lambda db: db.execute("INSERT INTO a VALUES (1)"))
        await first.close()
        second = Database(path, ["CREATE TABLE a(b)", "CREATE TABLE c(d);\nNONSENSE"])
        with pytest.raises(DamagedFile, match="NONSENSE"):
            await second.open(now_ms())
        await second.close()
        again = Database(path, ["CREATE TABLE a(b)"])
        await again.open(now_ms())
        assert await again.read(lambda db: db.execute("SELECT b FROM a").fetchone()[0]) == 1
        assert (
            await again.read(lambda db: db.execute("SELECT count(*) FROM sqlite_master WHERE name='c'").fetchone()[0])
            == 0
        )
        await again.close()

    async def test_a_write_that_raises_leaves_nothing(self, tmp_path: Path) -> None:
        index = await self.opened(tmp_path / "gate.sqlite")

        def half(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO choices VALUES ('x', '1')")
            raise ValueError("half")

        with pytest.raises(ValueError, match="half"):
            await index.database.write(half)
        assert await index.choice("x") is None
        await index.choose("x", 2)
        assert await index.choice("x") == 2
        await index.database.close()


async def test_an_index_that_can_not_be_written_is_known_and_tried_again(tmp_path: Path) -> None:
    index = Index(tmp_path / "gate.sqlite")
    await index.database.open(now_ms())
    assert await index.trouble() is None
    await index.database.write(lambda db: db.execute("PRAGMA busy_timeout=0").fetchall())
    with contextlib.closing(sqlite3.connect(tmp_path / "gate.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError):
            await index.choose("x", 1)
        assert await index.trouble() == "database is locked"
    assert await index.trouble() is None
    await index.database.close()


class _Full:
    """An index on a full disk."""

    def __getattr__(self, name: str) -> Any:
        async def refuse(*_: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        return refuse


async def test_a_run_can_be_stopped_on_a_full_disk_and_nothing_else_is_begun(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate.__new__(Gate)
    gate.index = _Full()  # type: ignore[assignment]
    gate.metrics = Metrics()
    done: list[str] = []

    async def work() -> None:
        done.append("done")

    caller = Caller("me", "operator")
    await gate.audited(caller, "run.stop", "run-1", {}, work)
    assert done == ["done"]
    assert "not in the audit: database or disk is full" in caplog.text
    with pytest.raises(sqlite3.OperationalError):
        await gate.audited(caller, "run.start", "gf01", {}, work)
    assert done == ["done"]


@pytest.mark.server
async def test_a_start_with_torn_files_says_so_and_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as gate:
        run_id = (await gate.run("gf01"))["run_id"]
        whole = await gate.get(f"/runs/{run_id}/logs")
        # A log file that is torn is made again of what the Operative left.
        (gate.data / "logs" / f"{run_id}.sqlite").write_bytes(b"torn")
        response = await gate.client.get(f"/runs/{run_id}/logs")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "log_damaged")
        while (response := await gate.client.get(f"/runs/{run_id}/logs")).status_code == 503:
            pass
        assert response.json() == whole
        await gate.stop()

        # A registry that is torn is for a human to look at: exit code 2, and which file it is.
        path = gate.data / "library" / "scenarios" / "registry.json"
        body = path.read_bytes()
        path.write_bytes(body[:100])
        with pytest.raises(AssertionError):
            await gate.start()
        assert await gate.process.wait() == 2
        assert f"{path} is not a JSON document" in gate.process.log.read_text()
        path.write_bytes(body)


async def _exportable(gate: GateProcess, runs: list[str]) -> None:
    """Wait until nothing more will be known of them."""
    async with asyncio.timeout(30):
        while not all([(await gate.get(f"/history/{run_id}"))["export"]["available"] for run_id in runs]):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "documents"),
    [
        ("run of gf01", b"[" * 100_000),
        ("run of gf01", b"[]"),
        ("run of gf01", b'{"run_config": []}'),
        ("run of gf01", b'{"run_config": {"ticks": 1e999, "logging": {"enabled": true}}}'),
        ("run of ../../\x1b[2J", b'{"run_config": {"ticks": 1, "logging": {"enabled": true}}}'),
    ],
)
async def test_a_job_of_somebody_else_never_keeps_the_gate_from_starting(
    monkeypatch: pytest.MonkeyPatch, name: str, documents: bytes
) -> None:
    job_id = "job_01HZZZZZZZZZZZZZZZZZZZZZZZ"
    client = AsyncMock()
    client.log.return_value.subjects.return_value = [f"gbe.history.trinity-gate.{job_id}"]
    client.summary.return_value = None
    client.created.return_value = JobRecord(job_id, "trinity-gate", "org_default", 5, "sha")
    monkeypatch.setattr(rebuilding, "documents_of", AsyncMock(return_value=(name, documents)))
    monkeypatch.setattr("trinity_gate.engine.governance_of", lambda layer: Governance("OFF", "OFF", "0", {}))
    assert await rebuilding.runs_on_the_bus(client, "trinity-gate", ()) == []
    # What the bus itself can't do is tried again.
    monkeypatch.setattr(rebuilding, "documents_of", AsyncMock(side_effect=Unavailable("away")))
    with pytest.raises(Unavailable):
        await rebuilding.runs_on_the_bus(client, "trinity-gate", ())


async def test_a_run_that_completed_is_known_to_have_begun_whatever_else_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the log that nobody has any more would be told as complete, and empty."""
    job_id = "job_01HZZZZZZZZZZZZZZZZZZZZZZZ"
    client = AsyncMock()
    client.log.return_value.subjects.return_value = [f"gbe.history.trinity-gate.{job_id}"]
    client.summary.return_value = JobSummary(job_id, "o", "trinity-gate", "run of gf01", "completed", 5, 9, "sha")
    documents = b'{"run_config": {"ticks": 8, "logging": {"enabled": true}}}'
    monkeypatch.setattr(rebuilding, "documents_of", AsyncMock(return_value=("run of gf01", documents)))
    monkeypatch.setattr("trinity_gate.engine.governance_of", lambda layer: Governance("OFF", "OFF", "0", {}))
    (record,) = await rebuilding.runs_on_the_bus(client, "trinity-gate", ())
    assert (record.state, record.ticks_completed, record.ticks_total) == ("completed", 8, 8)


@pytest.mark.server
@pytest.mark.parametrize("damage", ["torn", pytest.param("gone", marks=pytest.mark.slow)])
async def test_an_index_that_is_lost_is_made_again_of_what_the_bus_knows(tmp_path: Path, damage: str) -> None:
    async with running(tmp_path) as gate:
        runs = [(await gate.run("gf01"))["run_id"]]
        runs.append((await gate.run("ring-5", ticks_total=50, logging_enabled=False))["run_id"])
        runs.append(await gate.paused())
        await gate.post(f"/runs/{runs[-1]}/step")
        await gate.post(f"/runs/{runs[-1]}/stop")
        await _exportable(gate, runs)
        before = [await gate.get(f"/history/{run_id}") for run_id in runs]
        log = await gate.get(f"/runs/{runs[0]}/logs")
        await gate.stop()

        index = gate.data / "gate.sqlite"
        if damage == "torn":
            index.write_bytes(b"torn" * 100)
        else:
            index.unlink()
            (gate.data / "logs" / f"{runs[0]}.sqlite").unlink()
        await gate.start()
        said = gate.process.log.read_text()
        assert ("set aside as gate.sqlite.damaged-" if damage == "torn" else "index is missing") in said
        assert "governance base" in said
        assert "3 runs were found on the bus" in said
        await _exportable(gate, runs)
        for old in before:
            new = await gate.get(f"/history/{old['run']['run_id']}")
            # What only the index knew: when it was asked for, to the millisecond, and how.
            for detail in (old, new):
                del detail["run"]["started_at"], detail["overrides"]
                if detail["live"] is not None:
                    del detail["live"]["rate"]
            assert new == old
        assert [entry["run_id"] for entry in await gate.get("/history")] == runs[::-1]
        assert (await gate.get("/state"))["run"]["run_id"] == runs[-1]
        again = await gate.get(f"/runs/{runs[0]}/logs")
        assert again == log
        assert (await gate.client.get(f"/history/{runs[1]}/export")).status_code == 200
        runs.append((await gate.run("gf01"))["run_id"])
        assert [entry["run_id"] for entry in await gate.get("/history", limit=2)] == runs[:1:-1]
        # It is made again once.
        await gate.stop()
        await gate.start()
        assert gate.process.log.read_text().count("found on the bus") == 1


@pytest.mark.server
async def test_scenarios_of_ones_own_fault_and_pfna(tmp_path: Path) -> None:
    """A library that somebody edited by hand before the first start."""
    library = tmp_path / "data" / "library"
    shutil.copytree(registry_path().parent.parent, library, ignore=shutil.ignore_patterns("*.py", "__pycache__"))

    def document(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((library / name).read_bytes())
        return found

    registry = document("scenarios/registry.json")
    # A rule that the loaders take and the first tick refuses (engine specification, pitfall 18).
    profile = document("profiles/cmp-2.json")
    profile["s_t_rule"] = {"mode": "nonsense"}
    config = document("configs/ring-5.json")
    config["profile_path"] = "../profiles/odd.json"
    (library / "profiles" / "odd.json").write_bytes(encode_document(profile))
    (library / "configs" / "odd.json").write_bytes(encode_document(config))
    # Input from outside, written for a run of another id.
    pfna = {
        "v": 0,
        "pfna_id": "bundle",
        "gid": "LINE4",
        "run_id": "SOME_OTHER_RUN",
        "nid": "outside",
        "entries": [{"pfna_id": "boost", "tick": 2, "values": [0, 2, 0, -1]}],
    }
    config = document("configs/line-4.json")
    config |= {"enable_pfna": True, "pfna_path": "../pfna.json"}
    (library / "pfna.json").write_bytes(encode_document(pfna))
    (library / "configs" / "fed.json").write_bytes(encode_document(config))
    # More documents than fit into a message's params; and numbers that no JavaScript reads.
    nodes = 3_000
    edge = {"k": 1, "cap": 64, "SC": 16, "c": 0}
    large = {
        "gid": "LARGE",
        "profile": "CMP-1",
        "N": nodes,
        "SC": 16,
        "nodes": [{"node_id": i, "label": f"node {i}", "attrs": {}} for i in range(1, nodes + 1)],
        "edges": [{"e_id": i, "i": i, "j": i + 1, **edge} for i in range(1, nodes)],
    }
    config = document("configs/line-4.json")
    config |= {"gid": "LARGE", "initial_state": [10**30] + [0] * (nodes - 1), "topology_path": "../large.json"}
    (library / "large.json").write_bytes(encode_document(large))
    (library / "configs" / "large.json").write_bytes(encode_document(config))
    for name in ("odd", "fed", "large"):
        registry["scenarios"].append(
            {"scenario_id": name, "description": "", "run_config_path": f"../configs/{name}.json"}
        )
    (library / "scenarios" / "registry.json").write_bytes(encode_document(registry))

    async with running(tmp_path, environment={"GBE_GATE_LOG_RUNS": "3"}) as gate:
        odd = await gate.run("odd")
        assert odd["state"] == "fault"
        assert "Unsupported s_t rule mode: nonsense" in odd["fault_reason"]
        assert (await gate.get("/state"))["run"] == odd
        cards = {card["pillar_id"]: card["status"] for card in (await gate.get("/state"))["pillars"]}
        assert cards["aether"] == "fault"
        assert (await gate.get(f"/history/{odd['run_id']}"))["run"]["state"] == "fault"
        (last,) = (await gate.get(f"/runs/{odd['run_id']}/logs", level="ERROR"))["entries"]
        assert "Unsupported s_t rule mode" in last["message"]
        # There is no bundle; what is exported has what one needs to see it again.
        response = await gate.client.get(f"/history/{odd['run_id']}/export")
        with zipfile.ZipFile(io.BytesIO(response.content)) as export:
            manifest = json.loads(export.read("manifest.json"))
            inputs = {f"inputs/{name}.json" for name in ("run_config", "topology", "profile")}
            assert set(manifest["members"]) == {"run.json", "inputs.json", "logs.jsonl", *inputs}
            for name, entry in manifest["members"].items():
                assert hashlib.sha256(export.read(name)).hexdigest() == entry["sha256"]
            assert json.loads(export.read("run.json"))["run"] == odd
            assert json.loads(export.read("inputs.json"))["profile"]["s_t_rule"] == {"mode": "nonsense"}
            assert b"run_fault" in export.read("logs.jsonl")
        assert not list((gate.data / "tmp").iterdir())

        assert (await gate.get("/scenarios/fed"))["advanced"]["pfna_entries"] == 1
        fed = await gate.run("fed")
        assert fed["state"] == "completed", fed
        assert (await gate.get(f"/history/{fed['run_id']}"))["summary_metrics"]["nap_ingress"] == 1
        # Switched off, the same scenario runs without the input; and it can be switched on again.
        await gate.post("/scenarios/fed", {"core_params": {"enable_pfna": False}})
        fed = await gate.run("fed")
        assert (await gate.get(f"/history/{fed['run_id']}"))["summary_metrics"]["nap_ingress"] == 0
        await gate.post("/scenarios/fed", {"core_params": {"enable_pfna": True}})

        detail = await gate.get("/scenarios/large")
        assert detail["advanced"]["topology"]["truncated"]
        assert detail["advanced"]["topology"]["nodes"][0]["initial"] == str(10**30)
        large_run = await gate.run("large")
        assert large_run["state"] == "completed", large_run
        live = (await gate.get("/state"))["live"]
        assert (len(live["nodes"]), live["nodes_total"]) == (200, nodes)
        assert int(live["nodes"][0]) + int(live["nodes"][1]) > 10**29

        # Only the last logs are kept.
        async with asyncio.timeout(30):
            while (await gate.get(f"/history/{odd['run_id']}"))["log"]["state"] != "expired":
                await asyncio.sleep(0.05)
        assert (await gate.get(f"/runs/{odd['run_id']}/logs"))["entries"] == []
        assert (await gate.get(f"/history/{large_run['run_id']}"))["log"]["state"] == "complete"
