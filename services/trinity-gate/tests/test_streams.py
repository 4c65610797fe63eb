"""What is pushed: the live state, and log entries as they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.integration.gate_process import PATIENCE, GateProcess

pytestmark = pytest.mark.server


def socket_of(gate: GateProcess, path: str) -> connect:
    return connect(gate.url.replace("http", "ws", 1) + path)


async def next_state(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            message = json.loads(await socket.recv())
            if message["type"] == "state":
                state: dict[str, Any] = message["state"]
                return state


async def drained(socket: ClientConnection) -> tuple[list[Any], int]:
    """All messages until it is closed, and the close code."""
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionClosed):
            while True:
                found.append(json.loads(await socket.recv()))
    assert socket.close_code is not None
    return found, socket.close_code


async def test_the_stream_begins_with_the_state_and_follows_it(gate: GateProcess) -> None:
    async with socket_of(gate, "stream") as socket:
        assert await next_state(socket) == await gate.get("/state")
        run_id = await gate.paused()
        while not ((state := await next_state(socket))["run"]["run_id"] == run_id and state["run"]["paused"]):
            pass
        await gate.post(f"/runs/{run_id}/step")
        while (state := await next_state(socket))["run"]["ticks_completed"] != 1:
            pass
        assert state["live"]["tick"] == 1
        assert len(state["live"]["nodes"]) == 5
        assert state["live"]["flux"][-1] == [1, state["live"]["sum_abs_flux"]]
        await gate.post(f"/runs/{run_id}/stop")
        while (state := await next_state(socket))["run"]["state"] != "cancelled":
            pass


async def test_it_says_what_else_changed(gate: GateProcess) -> None:
    async with socket_of(gate, "stream") as socket:
        await next_state(socket)
        before = await gate.get("/governance")
        await gate.post("/governance", {"mode": before["mode"]})
        async with asyncio.timeout(PATIENCE):
            while (message := json.loads(await socket.recv()))["type"] != "changed":
                pass
        assert "governance" in message["topics"]


async def test_a_reader_that_comes_back_has_missed_nothing(gate: GateProcess) -> None:
    async with socket_of(gate, "stream") as socket:
        await next_state(socket)
    run_id = (await gate.run("gf01"))["run_id"]
    async with socket_of(gate, "stream") as socket:
        state = await next_state(socket)
        assert (state["run"]["run_id"], state["run"]["state"]) == (run_id, "completed")


async def test_the_log_of_a_run_that_is_over_is_sent_whole(gate: GateProcess) -> None:
    run_id = (await gate.run("gf01"))["run_id"]
    whole = (await gate.get(f"/runs/{run_id}/logs"))["entries"]
    async with socket_of(gate, f"runs/{run_id}/logs/stream") as socket:
        assert await drained(socket) == (whole, 1000)
    async with socket_of(gate, f"runs/{run_id}/logs/stream?since={whole[3]['cursor']}") as socket:
        assert await drained(socket) == (whole[4:], 1000)
    async with socket_of(gate, f"runs/{run_id}/logs/stream?level=INFO&batch=true") as socket:
        batches, code = await drained(socket)
        assert code == 1000
        assert [entry for batch in batches for entry in batch] == [e for e in whole if e["level"] != "DEBUG"]


async def test_a_live_log_is_followed_and_its_replacement_is_told(gate: GateProcess) -> None:
    run_id = await gate.paused()
    async with socket_of(gate, f"runs/{run_id}/logs/stream") as socket:
        async with asyncio.timeout(PATIENCE):
            await gate.post(f"/runs/{run_id}/step")
            first = [json.loads(await socket.recv()) for _ in range(3)]
            assert [entry["event_type"] for entry in first] == ["run_start", "tick_loop_start", "tick_complete"]
            await gate.post(f"/runs/{run_id}/step")
            assert json.loads(await socket.recv())["tick"] == 2
        await gate.post(f"/runs/{run_id}/stop")
        _, code = await drained(socket)
    # With the cursor it goes on where it stopped, in the complete log.
    assert code == 4000
    await gate.collected(run_id)
    async with socket_of(gate, f"runs/{run_id}/logs/stream?since=4") as socket:
        rest, code = await drained(socket)
    assert code == 1000
    assert [entry["index"] for entry in rest] == list(range(4, 4 + len(rest)))
    assert rest[-1]["event_type"] == "run_stopped"


@pytest.mark.parametrize(
    ("query", "code"),
    [("since=x", 4422), ("level=LOUD", 4422), ("batch=1", 4422), ("form=x", 4422), ("since=1&since=2", 4422)],
)
async def test_a_stream_that_can_not_be_is_closed_with_the_reason(gate: GateProcess, query: str, code: int) -> None:
    run_id = (await gate.run("gf01"))["run_id"]
    async with socket_of(gate, f"runs/{run_id}/logs/stream?{query}") as socket:
        assert await drained(socket) == ([], code)
    async with socket_of(gate, "runs/nowhere/logs/stream") as socket:
        assert await drained(socket) == ([], 4404)


async def test_what_a_client_says_means_nothing_and_is_limited(gate: GateProcess) -> None:
    async with socket_of(gate, "stream") as socket:
        await next_state(socket)
        await socket.send("hello")
        await socket.send("x" * 200_000)
        _, code = await drained(socket)
        assert code == 1009
    assert (await gate.get("/health"))["status"] == "ok"
