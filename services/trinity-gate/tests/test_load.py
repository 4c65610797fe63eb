"""Fifty clients poll the state, start and stop runs, while a run goes on. What it takes is reported, not asserted."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest

from tests.integration.gate_process import GateProcess

pytestmark = pytest.mark.server

CLIENTS = 50


@dataclass
class Seen:
    """What the clients saw. `times`: seconds per answer of `GET /state`."""

    times: list[float] = field(default_factory=list)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        """In milliseconds."""
        ordered = sorted(self.times)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000


class Connection:
    """As little of HTTP as it takes, so that the clients are not what is measured."""

    def __init__(self, url: httpx.URL) -> None:
        self._url = url

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(self._url.host, self._url.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if method == "POST" else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\nHost: {self._url.host}\r\n{kind}\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        return int(head.split()[1]), await self._reader.readexactly(length)


async def load(gate: GateProcess, seconds: float) -> Seen:
    """Nine of ten poll; the others start and stop runs as fast as they are let."""
    seen, until = Seen(), time.perf_counter() + seconds

    async def poll() -> None:
        async with Connection(httpx.URL(gate.url)) as connection:
            while time.perf_counter() < until:
                began = time.perf_counter()
                status, body = await connection.call("GET", "/state")
                seen.times.append(time.perf_counter() - began)
                seen.statuses["state", status] += 1
                assert len(json.loads(body)["pillars"]) == 5
                await asyncio.sleep(0.05)

    async def steer() -> None:
        start = json.dumps({"scenario_id": "ring-5", "overrides": {"ticks_total": 1_000_000}}).encode()
        async with Connection(httpx.URL(gate.url)) as connection:
            while time.perf_counter() < until:
                status, body = await connection.call("POST", "/runs", start)
                seen.statuses["start", status] += 1
                if status == 201:
                    run_id = json.loads(body)["run_id"]
                    await asyncio.sleep(0.3)
                    status, _ = await connection.call("POST", f"/runs/{run_id}/stop")
                    seen.statuses["stop", status] += 1
                await asyncio.sleep(0.1)

    await asyncio.gather(*(poll() for _ in range(CLIENTS * 9 // 10)), *(steer() for _ in range(CLIENTS // 10)))
    return seen


async def check(gate: GateProcess, seconds: float) -> None:
    seen = await load(gate, seconds)
    print(
        f"/state: {len(seen.times) / seconds:.0f}/s by {CLIENTS} clients, p50 {seen.quantile(0.5):.1f} ms, "
        f"p99 {seen.quantile(0.99):.1f} ms; {dict(seen.statuses)}"
    )
    answers = set(seen.statuses)
    assert answers <= {("state", 200), ("start", 201), ("start", 409), ("stop", 200), ("stop", 409)}, seen.statuses
    assert seen.statuses["start", 201] > 0
    assert seen.statuses["start", 201] == seen.statuses["stop", 200] + seen.statuses["stop", 409]
    await gate.idle()
    # Nothing was lost on the way: every run that was started is in the history, with its end.
    found = await gate.get("/history", limit=1000)
    assert len({entry["run_id"] for entry in found}) == len(found) >= seen.statuses["start", 201]


async def test_fifty_clients_for_a_moment(gate: GateProcess) -> None:
    await check(gate, 2.0)


@pytest.mark.slow
async def test_fifty_clients_for_a_while(gate: GateProcess) -> None:
    await check(gate, 20.0)
