"""The acceptance criteria of the Operator Service (operator-service.md, section 6), group by group.

The real service, started as an operator starts it, with the real server, Oracle, Operative and engine.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import pytest

from tests.integration.gate_process import GateProcess, running

PILLARS = ["aether", "press", "umx", "loom", "codex"]
SCENARIOS = ["gf01", "line-4", "ring-5", "gov-codex-demo"]

pytestmark = pytest.mark.server


class TestStateApi:
    """6.1"""

    async def test_run_matches_the_current_run(self, gate: GateProcess) -> None:
        run_id = await gate.paused()
        state = await gate.get("/state")
        assert state["run"] == await gate.get(f"/runs/{run_id}")
        assert (state["run"]["state"], state["run"]["paused"], state["run"]["ticks_completed"]) == ("running", True, 0)

    async def test_run_is_null_when_idle(self, gate: GateProcess) -> None:
        await gate.run("gf01")
        await gate.post("/state/reset")
        assert (await gate.get("/state"))["run"] is None

    async def test_active_scenario_is_the_last_one_activated(self, gate: GateProcess) -> None:
        for scenario in ("line-4", "ring-5"):
            await gate.post(f"/scenarios/{scenario}/activate")
            assert (await gate.get("/state"))["active_scenario"]["id"] == scenario

    async def test_there_is_one_entry_per_pillar_with_a_status(self, gate: GateProcess) -> None:
        async def statuses() -> dict[str, str]:
            cards = (await gate.get("/state"))["pillars"]
            assert [card["pillar_id"] for card in cards] == PILLARS
            return {card["pillar_id"]: card["status"] for card in cards}

        run_id = await gate.paused(ticks=20_000_000)
        assert set((await statuses()).values()) == {"idle"}
        assert (await gate.get("/state"))["pillars"][0]["headline_metric"] == "0 of 20,000,000 ticks"
        await gate.post(f"/runs/{run_id}/resume")
        assert set((await statuses()).values()) == {"running"}
        await gate.post(f"/runs/{run_id}/stop")
        assert set((await statuses()).values()) == {"idle"}
        await gate.post("/state/reset")
        assert set((await statuses()).values()) == {"idle"}


class TestRunControl:
    """6.2"""

    @pytest.mark.parametrize("scenario", SCENARIOS)
    async def test_a_run_can_be_started_from_any_scenario(self, gate: GateProcess, scenario: str) -> None:
        status = await gate.run(scenario)
        assert (status["state"], status["scenario_id"]) == ("completed", scenario)
        assert status["ticks_completed"] == status["ticks_total"]
        assert status["progress"] == 1
        assert status["started_at"] < status["ended_at"]

    async def test_a_stop_shows_in_the_state_and_in_the_history(self, gate: GateProcess) -> None:
        run_id = await gate.begin("ring-5", ticks_total=2_000_000)
        await gate.until(run_id, lambda status: status["ticks_completed"] > 0)
        stopped = await gate.post(f"/runs/{run_id}/stop")
        assert stopped["state"] == "cancelled"
        assert stopped["stop_reason"] == "stopped by local"
        assert (await gate.get("/state"))["run"]["state"] == "cancelled"
        detail = await gate.collected(run_id)
        assert detail["run"]["state"] == "cancelled"
        assert 0 < detail["run"]["ticks_completed"] < 2_000_000

    async def test_a_run_that_waits_can_be_stopped(self, gate: GateProcess) -> None:
        run_id = await gate.paused()
        assert (await gate.post(f"/runs/{run_id}/stop"))["state"] == "cancelled"
        assert (await gate.collected(run_id))["run"]["ticks_completed"] == 0

    async def test_a_second_run_is_refused_while_one_is_under_way(self, gate: GateProcess) -> None:
        run_id = await gate.paused()
        error = (await gate.post("/runs", {"scenario_id": "gf01"}, 409))["error"]
        assert error["code"] == "run_active"
        assert run_id in error["message"]

    async def test_pause_step_and_resume(self, gate: GateProcess) -> None:
        run_id = await gate.paused(ticks=20_000_000)
        for tick in (1, 2, 3):
            status = await gate.post(f"/runs/{run_id}/step")
            assert (status["ticks_completed"], status["paused"]) == (tick, True)
        assert not (await gate.post(f"/runs/{run_id}/resume"))["paused"]
        await gate.until(run_id, lambda status: status["ticks_completed"] > 3)
        paused = await gate.post(f"/runs/{run_id}/pause")
        assert (paused["state"], paused["paused"], paused["phase"]) == ("running", True, "paused")
        assert (await gate.post(f"/runs/{run_id}/step"))["ticks_completed"] == paused["ticks_completed"] + 1

    async def test_what_the_state_does_not_allow_is_refused(self, gate: GateProcess) -> None:
        run_id = await gate.paused()

        async def code(action: str) -> str:
            error: dict[str, Any] = (await gate.post(f"/runs/{run_id}/{action}", status=409))["error"]
            return str(error["code"])

        assert await code("pause") == "already_paused"
        await gate.post(f"/runs/{run_id}/stop")
        for action in ("stop", "pause", "resume", "step"):
            assert await code(action) == "run_over"

    async def test_overrides_reach_the_run_and_nothing_else(self, gate: GateProcess) -> None:
        before = await gate.get("/scenarios/gf01")
        status = await gate.run("gf01", ticks_total=12, metrics_enabled=False, logging_enabled=False)
        assert status["ticks_completed"] == 12
        detail = await gate.get(f"/history/{status['run_id']}")
        assert detail["overrides"] == {"ticks_total": 12, "metrics_enabled": False, "logging_enabled": False}
        assert (detail["summary_metrics"], detail["log"]["state"]) == ({}, "disabled")
        assert await gate.get("/scenarios/gf01") == before

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"scenario_id": "gf01", "speed": 1}, "speed"),
            ({"scenario_id": "gf01", "overrides": {"speed": 1}}, "overrides.speed"),
            ({"scenario_id": "gf01", "overrides": {"ticks_total": 0}}, "overrides.ticks_total"),
            ({"scenario_id": "gf01", "overrides": {"ticks_total": "8"}}, "overrides.ticks_total"),
            ({"scenario_id": "gf01", "overrides": {"governance_preset": "no"}}, "overrides.governance_preset"),
            ({}, "scenario_id"),
        ],
    )
    async def test_bad_requests_start_nothing(self, gate: GateProcess, body: Any, field: str) -> None:
        before = await gate.get("/state")
        error = (await gate.post("/runs", body, 422))["error"]
        assert (error["code"], error["field"]) == ("invalid", field)
        assert await gate.get("/state") == before

    async def test_unknown_ids_are_not_found(self, gate: GateProcess) -> None:
        await gate.post("/runs", {"scenario_id": "nowhere"}, 404)
        for action in ("stop", "pause", "resume", "step"):
            await gate.post(f"/runs/run-nowhere/{action}", status=404)
        for path in ("/runs/x", "/runs/x/pillars", "/runs/x/logs", "/history/x", "/history/x/export", "/scenarios/x"):
            assert (await gate.client.get(path)).status_code == 404


class TestScenarios:
    """6.3"""

    async def test_all_registry_entries_are_listed(self, gate: GateProcess) -> None:
        found = await gate.get("/scenarios")
        assert [scenario["id"] for scenario in found][:4] == SCENARIOS
        assert all(scenario["problem"] is None for scenario in found)

    async def test_a_scenario_has_its_core_parameters(self, gate: GateProcess) -> None:
        found = await gate.get("/scenarios/gf01")
        assert found["core_params"]["ticks_total"] == 8
        assert found["core_params"]["primary_window_id"] == "GF01_W1_ticks_1_8"
        assert found["run_config_id"] == "gf01"
        assert len(found["advanced"]["topology"]["nodes"]) == 6

    async def test_activating_one_updates_the_state(self, gate: GateProcess) -> None:
        assert (await gate.post("/scenarios/gov-codex-demo/activate"))["id"] == "gov-codex-demo"
        assert (await gate.get("/state"))["active_scenario"] == (await gate.get("/scenarios"))[3]
        await gate.post("/scenarios/nowhere/activate", status=404)

    async def test_an_edit_is_all_or_nothing(self, gate: GateProcess) -> None:
        await gate.post("/scenarios/gf01/clone", {"id": "whole"}, 201)
        before = await gate.get("/scenarios/whole")
        patch = {"description": "other", "core_params": {"primary_window_id": "nowhere"}}
        error = (await gate.post("/scenarios/whole", patch, 422))["error"]
        assert error["field"] == "core_params.primary_window_id"
        assert await gate.get("/scenarios/whole") == before
        changed = await gate.post("/scenarios/whole", {"description": "other", "core_params": {"ticks_total": 20}})
        assert (changed["description"], changed["core_params"]["ticks_total"]) == ("other", 20)
        assert (await gate.run("whole"))["ticks_completed"] == 20

    async def test_an_edit_that_is_based_on_an_older_one_is_refused(self, gate: GateProcess) -> None:
        old = (await gate.post("/scenarios/ring-5/clone", {"id": "raced"}, 201))["revision"]
        await gate.post("/scenarios/raced", {"description": "first", "revision": old})
        error = (await gate.post("/scenarios/raced", {"description": "second", "revision": old}, 409))["error"]
        assert error["code"] == "revision_mismatch"
        assert (await gate.get("/scenarios/raced"))["description"] == "first"

    async def test_a_whole_detail_with_a_change_in_it_is_an_edit(self, gate: GateProcess) -> None:
        await gate.post("/scenarios/ring-5/clone", {"id": "detailed"}, 201)
        shipped, before = await gate.get("/scenarios/line-4"), await gate.get("/scenarios/detailed")
        assert await gate.post("/scenarios/line-4", shipped) == shipped  # nothing changed, so it is still as delivered
        changed = {**before, "description": "mine", "core_params": {**before["core_params"], "ticks_total": 7}}
        after = await gate.post("/scenarios/detailed", changed)
        assert (after["description"], after["core_params"]["ticks_total"]) == ("mine", 7)
        assert after["core_params"] == {**before["core_params"], "ticks_total": 7}
        for field, other in (("id", "line-4"), ("shipped", True), ("run_config_id", "gf01"), ("advanced", {})):
            wrong = {**after, "description": "not this", field: other}
            error = (await gate.post("/scenarios/detailed", wrong, 422))["error"]
            assert (error["code"], error["field"]) == ("invalid", field)
        assert await gate.get("/scenarios/detailed") == after
        # One that is based on what somebody else changed meanwhile.
        assert (await gate.post("/scenarios/detailed", before, 409))["error"]["code"] == "revision_mismatch"

    async def test_windows_keep_up_with_the_ticks(self, gate: GateProcess) -> None:
        await gate.post("/scenarios/gf01/clone", {"id": "windows"}, 201)
        changed = await gate.post("/scenarios/windows", {"core_params": {"ticks_total": 1}})
        assert [window["end_tick"] for window in changed["advanced"]["windows"]] == [1, 1]
        assert (await gate.run("windows"))["state"] == "completed"

    async def test_windows_come_back_with_the_ticks(self, gate: GateProcess) -> None:
        async def windows(scenario: str) -> list[tuple[str, int, int]]:
            advanced = (await gate.get(f"/scenarios/{scenario}"))["advanced"]
            return [(each["window_id"], each["start_tick"], each["end_tick"]) for each in advanced["windows"]]

        await gate.post("/scenarios/gf01/clone", {"id": "shorter"}, 201)
        shipped = await windows("gf01")
        await gate.post("/scenarios/shorter", {"core_params": {"ticks_total": 2}})
        assert [end for _, _, end in await windows("shorter")] == [2, 2]
        await gate.post("/scenarios/shorter/clone", {"id": "again"}, 201)
        # A run of more ticks has the windows that the scenario was written with, and so has a later edit, or a copy.
        closed: list[list[str]] = []  # with the check over all that is in the window
        for run in (await gate.run("gf01"), await gate.run("shorter", ticks_total=8)):
            page = await gate.get(f"/runs/{run['run_id']}/logs", event_type="window_closed")
            closed.append([entry["message"] for entry in page["entries"]])
        assert closed[0] == closed[1]
        for scenario in ("shorter", "again"):
            await gate.post(f"/scenarios/{scenario}", {"core_params": {"ticks_total": 8}})
            assert await windows(scenario) == shipped

    async def test_save_as_leaves_the_original_alone(self, gate: GateProcess) -> None:
        original = await gate.get("/scenarios/line-4")
        body = {"id": "mine", "name": "Mine", "changes": {"core_params": {"ticks_total": 9}, "tags": ["own"]}}
        copy = await gate.post("/scenarios/line-4/clone", body, 201)
        assert (copy["name"], copy["tags"], copy["core_params"]["ticks_total"]) == ("Mine", ["own"], 9)
        assert await gate.get("/scenarios/line-4") == original
        assert (await gate.post("/scenarios/line-4/clone", body, 409))["error"]["code"] == "scenario_exists"
        for bad in ("../up", "a b", "", "x" * 65, ".", "..", ".hidden"):
            await gate.post("/scenarios/line-4/clone", {"id": bad}, 422)


class TestGovernance:
    """6.4"""

    async def test_there_is_a_snapshot(self, gate: GateProcess) -> None:
        found = await gate.get("/governance")
        assert found["mode"] == "OBSERVE"
        assert len(found["policy_set_hash"]) == 64
        assert found["budget_knobs"]

    async def test_a_change_reaches_runs_that_are_started_afterwards_only(self, gate: GateProcess) -> None:
        before = await gate.get("/governance")
        try:
            run_id = await gate.paused()
            patch = {"codex_action_mode": "DRY_RUN", "budget_knobs": {"max_proposals_per_window": 3}}
            changed = await gate.post("/governance", patch)
            assert (changed["mode"], changed["codex_action_mode"]) == ("DRY_RUN", "DRY_RUN")
            assert changed["budget_knobs"]["max_proposals_per_window"] == 3
            await gate.post(f"/runs/{run_id}/resume")
            assert (await gate.end(run_id))["state"] == "completed"
            assert (await gate.get(f"/history/{run_id}"))["governance"] == before
            later = await gate.run("ring-5")
            detail = await gate.get(f"/history/{later['run_id']}")
            assert detail["governance"] == changed
            assert await _ledger_policy_hashes(gate, later["run_id"]) == {changed["policy_set_hash"]}
        finally:
            await gate.post("/governance", {"preset": "observe", "budget_knobs": before["budget_knobs"]})
        assert await gate.get("/governance") == before

    async def test_a_scenarios_own_mode_wins_over_the_base(self, gate: GateProcess) -> None:
        status = await gate.run("gov-codex-demo")
        detail = await gate.get(f"/history/{status['run_id']}")
        assert (detail["governance"]["mode"], detail["governance"]["codex_action_mode"]) == (
            "ENFORCE",
            "GOVERNED_APPLY",
        )
        assert detail["live"]["run_id"] == status["run_id"]
        cards = {card["pillar_id"]: card for card in await gate.get(f"/runs/{status['run_id']}/pillars")}
        assert cards["codex"]["governance_mode"] == "GOVERNED_APPLY"
        assert "1 accepted" in cards["codex"]["secondary_metric"]

    async def test_an_override_wins_over_the_scenarios_own(self, gate: GateProcess) -> None:
        status = await gate.run("gov-codex-demo", governance_preset="observe")
        detail = await gate.get(f"/history/{status['run_id']}")
        assert detail["governance"]["mode"] == "OBSERVE"
        assert detail["governance"]["budget_knobs"]["max_topology_changes"] == 8

    @pytest.mark.parametrize(
        ("patch", "status"),
        [
            ({"mode": "ENFORCE", "codex_action_mode": "OFF"}, 422),
            ({"mode": "HARD"}, 422),
            ({"budget_knobs": {"max_actions_per_window": -1}}, 422),
            ({"budget_knobs": {"nonsense": 1}}, 422),
            ({"preset": "nonsense"}, 422),
            ({"policy_set_hash": "0" * 64}, 409),
        ],
    )
    async def test_bad_changes_change_nothing(self, gate: GateProcess, patch: Any, status: int) -> None:
        before = await gate.get("/governance")
        await gate.post("/governance", patch, status)
        assert await gate.get("/governance") == before


class TestHistory:
    """6.5"""

    async def test_the_last_runs_are_listed_newest_first_with_their_results(self, gate: GateProcess) -> None:
        first = await gate.run("gf01")
        second = await gate.paused()
        await gate.post(f"/runs/{second}/stop")
        newest, older = await gate.get("/history", limit=2)
        assert (newest["run_id"], newest["result"]) == (second, "cancelled")
        assert (older["run_id"], older["result"], older["ticks_total"]) == (first["run_id"], "completed", 8)
        assert (older["started_at"], older["ended_at"]) == (first["started_at"], first["ended_at"])

    async def test_it_is_paged_and_filtered(self, gate: GateProcess) -> None:
        for scenario in ("gf01", "line-4", "gf01"):
            await gate.run(scenario)
        first = await gate.client.get("/history", params={"limit": 2, "scenario": "gf01", "result": "completed"})
        assert [entry["scenario_id"] for entry in first.json()] == ["gf01", "gf01"]
        whole = [entry["run_id"] for entry in await gate.get("/history", limit=1000)]
        walked: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await gate.client.get("/history", params={"limit": 2, **cursor})
            walked += [entry["run_id"] for entry in page.json()]
            if "X-Next-Cursor" not in page.headers:
                break
            cursor = {"cursor": page.headers["X-Next-Cursor"]}
        assert walked == whole
        assert (await gate.client.get("/history", params={"cursor": "x"})).status_code == 422

    async def test_a_run_has_its_status_and_summary_metrics(self, gate: GateProcess) -> None:
        status = await gate.run("gf01")
        detail = await gate.get(f"/history/{status['run_id']}")
        assert detail["run"] == status
        metrics = detail["summary_metrics"]
        assert (metrics["total_ticks"], metrics["window_count"], metrics["nap_data"]) == (8, 2, 8)

    async def test_an_export_holds_everything_and_can_be_verified(self, gate: GateProcess) -> None:
        status = await gate.run("gf01")
        response = await gate.client.get(f"/history/{status['run_id']}/export")
        assert response.headers["content-type"] == "application/zip"
        assert f'filename="{status["run_id"]}.zip"' in response.headers["content-disposition"]
        with zipfile.ZipFile(io.BytesIO(response.content)) as bundle:
            manifest = json.loads(bundle.read("manifest.json"))["members"]
            assert {"session.json", "introspection.json", "metrics.json", "logs.jsonl", "session_snapshot.json"} <= set(
                manifest
            )
            for name, entry in manifest.items():
                assert hashlib.sha256(bundle.read(name)).hexdigest() == entry["sha256"]

    async def test_two_runs_are_compared_by_their_snapshots(self, gate: GateProcess) -> None:
        first, second = (await gate.run("gf01"))["run_id"], (await gate.run("gf01"))["run_id"]
        longer = (await gate.run("gf01", ticks_total=9))["run_id"]
        same = await gate.get("/compare", baseline=first, candidate=second)
        assert (same["equal"], same["compared"]) == (True, "session_snapshot.json")
        other = await gate.get("/compare", baseline=first, candidate=longer, max_diffs=1000)
        assert not other["equal"]
        assert {"path": "config.total_ticks", "baseline": 8, "candidate": 9} in other["differences"]
        assert (await gate.client.get("/compare", params={"baseline": first, "candidate": "x"})).status_code == 404

    async def test_a_run_under_way_has_no_export(self, gate: GateProcess) -> None:
        run_id = await gate.paused()
        response = await gate.client.get(f"/history/{run_id}/export")
        assert (response.status_code, response.json()["error"]["code"]) == (409, "run_active")
        response = await gate.client.get("/compare", params={"baseline": run_id, "candidate": run_id})
        assert response.status_code == 409


class TestLogs:
    """6.6"""

    async def test_entries_are_structured_and_in_order(self, gate: GateProcess) -> None:
        status = await gate.run("line-4")
        page = await gate.get(f"/runs/{status['run_id']}/logs")
        assert page["complete"]
        assert page["at_end"]
        assert [entry["index"] for entry in page["entries"]] == list(range(page["total"]))
        assert [entry["event_type"] for entry in page["entries"]][:3] == [
            "run_start",
            "tick_loop_start",
            "tick_complete",
        ]
        assert {entry["run_id"] for entry in page["entries"]} == {status["run_id"]}
        assert page["entries"][2]["message"] == "Tick 1 complete"
        assert page["entries"][2]["payload"]["C_t"] == 20987847

    async def test_they_are_filtered_by_level_and_event(self, gate: GateProcess) -> None:
        run_id = await gate.paused("line-4")
        await gate.post(f"/runs/{run_id}/step")
        await gate.post(f"/runs/{run_id}/stop")
        await gate.collected(run_id)

        async def levels(**query: Any) -> list[str]:
            return [entry["level"] for entry in (await gate.get(f"/runs/{run_id}/logs", **query))["entries"]]

        everything = await levels()
        assert set(everything) == {"DEBUG", "INFO", "WARN"}
        assert await levels(level="DEBUG") == everything
        assert await levels(level="INFO") == [level for level in everything if level != "DEBUG"]
        assert set(await levels(level="WARN")) == {"WARN"}
        assert await levels(level="ERROR") == []
        assert await levels(event_type="tick_complete") == ["DEBUG"]
        for bad in ({"level": "LOUD"}, {"since": "yesterday"}, {"limit": 0}):
            assert (await gate.client.get(f"/runs/{run_id}/logs", params=bad)).status_code == 422

    async def test_they_are_paged_by_cursor_and_by_time(self, gate: GateProcess) -> None:
        status = await gate.run("gf01")
        path = f"/runs/{status['run_id']}/logs"
        whole = (await gate.get(path))["entries"]
        walked: list[Any] = []
        cursor = "0"
        while True:
            page = await gate.get(path, since=cursor, limit=4)
            walked += page["entries"]
            cursor = page["next_cursor"]
            if page["at_end"]:
                break
        assert walked == whole
        late = await gate.get(path, since=whole[5]["timestamp"])
        assert late["entries"][0]["timestamp"] >= whole[5]["timestamp"]
        assert late["entries"][-1] == whole[-1]

    async def test_what_is_heard_of_a_running_session_is_there_at_once(self, gate: GateProcess) -> None:
        run_id = await gate.paused()
        await gate.post(f"/runs/{run_id}/step")
        await gate.post(f"/runs/{run_id}/step")
        page = await gate.get(f"/runs/{run_id}/logs", event_type="tick_complete")
        assert not page["complete"]
        assert [entry["tick"] for entry in page["entries"]] == [1, 2]


class TestResilience:
    """6.7"""

    async def test_registry_and_index_survive_a_stop_and_a_start(self, tmp_path: Any) -> None:
        async with running(tmp_path) as gate:
            await gate.post("/scenarios/ring-5/clone", {"id": "kept"}, 201)
            await gate.post("/scenarios/kept/activate")
            await gate.post("/governance", {"mode": "DRY_RUN"})
            done = await gate.run("kept")
            stopped = await gate.paused()
            before = [await gate.get(path) for path in ("/scenarios", "/scenarios/kept", "/governance")]
            assert await gate.stop() == 0
            await gate.start()
            assert [await gate.get(path) for path in ("/scenarios", "/scenarios/kept", "/governance")] == before
            assert (await gate.get("/state"))["active_scenario"]["id"] == "kept"
            newest, older = await gate.get("/history")
            assert (newest["run_id"], newest["result"]) == (stopped, "cancelled")
            assert (older["run_id"], older["result"]) == (done["run_id"], "completed")
            assert (await gate.get(f"/runs/{done['run_id']}/logs"))["complete"]
            assert (await gate.get(f"/history/{stopped}"))["run"]["stop_reason"] == "the service was stopped"

    async def test_an_error_of_the_engine_is_a_fault_with_its_text(self, gate: GateProcess) -> None:
        pass


async def _ledger_policy_hashes(gate: GateProcess, run_id: str) -> set[str]:
    """What the ledger of the run's export says of its policies."""
    response = await gate.client.get(f"/history/{run_id}/export")
    with zipfile.ZipFile(io.BytesIO(response.content)) as bundle:
        lines = bundle.read("u_ledger.jsonl").splitlines()
        return {json.loads(line)["policy_set_hash"] for line in lines}
