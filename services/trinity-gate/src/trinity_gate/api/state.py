"""4.1.1: the state of everything, as an answer and as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable
from typing import Any, Final

from fastapi import APIRouter, Response, WebSocket, WebSocketDisconnect

from trinity_gate.api.common import KNOWN, Observer, Operator, TheGate, caller_with, known_query
from trinity_gate.errors import GateError
from trinity_gate.gate import Gate
from trinity_gate.models import Health, Role, StateResponse, WhoAmI
from trinity_gate.security import PROTOCOL
from trinity_gate.tokens import LOCAL

router = APIRouter()

PACE: Final = 0.1
"""Seconds between two messages of a stream at least."""

SEND_TIMEOUT: Final = 10.0
"""Seconds a client may take for one message."""

MAX_STREAMS: Final = 200

VERSION: Final = "0.1.0"


@router.get("/state", response_model=StateResponse)
async def get_state(gate: TheGate, caller: Observer) -> Response:
    """The current run (or the last one, until it is dismissed), the active scenario, the pillars, live figures."""
    return Response(gate.encoded_state(), media_type="application/json")


@router.post("/state/reset", response_model=StateResponse)
async def reset_state(gate: TheGate, caller: Operator) -> StateResponse:
    """Dismiss the last run: `run` is null afterwards. 409 while a run is under way."""
    await gate.audited(caller, "state.reset", "", {}, gate.runs.dismiss)
    return gate.state()


@router.get("/whoami", response_model=WhoAmI)
async def who_am_i(caller: Observer) -> WhoAmI:
    """Who the service takes the caller for."""
    return WhoAmI(name=caller.name, role=Role(caller.role), token_required=caller is not LOCAL)


@router.get("/health", response_model=Health, dependencies=KNOWN)
async def get_health(gate: TheGate) -> Health:
    """Whether the service answers (it does), and whether it can start runs."""
    return await gate.health(VERSION)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_metrics(gate: TheGate, caller: Observer) -> Response:
    """Counters and gauges, in the text format of Prometheus."""
    run = gate.runs.active
    values = {
        **gate.metrics.snapshot(),
        "run_active": 0.0 if run is None else 1.0,
        "run_ticks_completed": 0.0 if run is None else float(run.record.ticks_completed),
        "run_ticks_per_second": 0.0 if run is None or run.report is None else run.report.ticks_per_s,
    }
    lines: list[str] = []
    for name, value in sorted(values.items()):
        kind = "counter" if name.startswith(("http_", "writes_", "runs_")) else "gauge"
        full = f"trinity_gate_{name}{'_total' if kind == 'counter' else ''}"
        lines += [f"# TYPE {full} {kind}", f"{full} {value:g}"]
    return Response("\n".join([*lines, ""]), media_type="text/plain; version=0.0.4")


@router.websocket("/stream")
async def stream_state(socket: WebSocket) -> None:
    """The state at once and at every change, at most ten times a second; and which other resources changed."""
    gate: Gate = socket.app.state.gate
    if not await admitted(socket):
        return
    with gate.hub.watch() as watcher:

        async def talk() -> None:
            sent = -1
            while True:
                if gate.hub.version != sent:
                    sent = gate.hub.version
                    state = gate.encoded_state().decode()
                    await told(socket, f'{{"type":"state","state":{state}}}')
                topics = await watcher.wait()
                if topics:
                    await told(socket, json.dumps({"type": "changed", "topics": topics}))
                await asyncio.sleep(PACE)

        await converse(socket, gate, talk())


# --- WebSockets in general ------------------------------------------------------------------------------------------


async def admitted(socket: WebSocket) -> bool:
    """Accept it, and close it again where the caller may not look on, or asks for what there isn't: before that, a
    browser is told nothing."""
    offered = socket.scope.get("subprotocols", ())
    await socket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
    try:
        caller_with(socket, Role.OBSERVER)
        known_query(socket)
    except GateError as error:
        await socket.close(4000 + error.status, error.code)
        return False
    return True


async def told(socket: WebSocket, text: str) -> None:
    """Send a message. One who does not read for long is told to come back later."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            await socket.send_text(text)
    except TimeoutError:
        raise SlowClient from None


class SlowClient(Exception):
    """It doesn't take what it is sent."""


async def converse(socket: WebSocket, gate: Gate, talk: Any) -> None:
    """Talk until that ends or the client is gone. What the client says is read and means nothing."""
    count = gate.metrics.gauge("websockets")
    talking: asyncio.Future[None] = asyncio.ensure_future(talk)
    listening = asyncio.ensure_future(_until_gone(socket))
    count.set(count.value + 1)
    try:
        if count.value > MAX_STREAMS:
            await socket.close(1013, "too many streams")
            return
        await asyncio.wait({talking, listening}, return_when=asyncio.FIRST_COMPLETED)
        if talking.done():
            await _farewell(socket, talking)
    finally:
        count.set(count.value - 1)
        for task in (talking, listening):
            task.cancel()
        await asyncio.gather(talking, listening, return_exceptions=True)


async def _farewell(socket: WebSocket, talking: Awaitable[None]) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        try:
            await talking
        except SlowClient:
            await socket.close(1013, "too slow")
        except GateError as error:
            await socket.close(4000 + error.status, error.code)


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
