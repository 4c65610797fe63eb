"""A Trinity Gate as a process of its own, with everything it brings along, and a client that talks to it: for tests."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.integration.site import RoleProcess, Site

PATIENCE = 30.0

QUICK = {"GBE_ACK_WAIT": "2", "GBE_LOG_LEVEL": "info"}
"""A lease of two seconds: an Operative that was killed is noticed in that time."""


class GateProcess:
    """`trinity-gate` in a data directory. `client` talks to its present life."""

    def __init__(self, folder: Path, *, environment: Mapping[str, str] | None = None, arguments: tuple[str, ...] = ()):
        self.folder = folder
        self.data = folder / "data"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GBE_")}
        argv = [sys.executable, "-m", "trinity_gate", "--port", "0", "--data", str(self.data), *arguments]
        self.process = RoleProcess("trinity-gate", argv, {**kept, **QUICK, **(environment or {})}, folder)
        self.headers: dict[str, str] = {}
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> GateProcess:
        """Start it, or start it again."""
        await self.forget_client()
        await self.process.start()
        lines = [line for line in self.process.log.read_text().splitlines() if line.startswith("Trinity Gate: ")]
        self.url = lines[-1].split()[2]
        return self

    @property
    def client(self) -> httpx.AsyncClient:
        """Of the running loop."""
        if self._client is None:
            self._client = httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=PATIENCE)
        return self._client

    async def stop(self) -> int:
        """TERM; returns its exit code."""
        await self.forget_client()
        return await self.process.stop()

    async def kill(self) -> None:
        """KILL."""
        await self.forget_client()
        await self.process.kill()

    async def forget_client(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    # --- what tests do all the time ---

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of a successful GET."""
        response = await self.client.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        """The JSON of a POST that is answered with that status."""
        response = await self.client.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    async def begin(self, scenario: str, *, paused: bool = False, **overrides: Any) -> str:
        """Start a run; its id."""
        body = {"scenario_id": scenario, "overrides": overrides, "paused": paused}
        run_id: str = (await self.post("/runs", body, 201))["run_id"]
        return run_id

    async def until(self, run_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The run's status as soon as it holds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                status: dict[str, Any] = await self.get(f"/runs/{run_id}")
                if holds(status):
                    return status
                await asyncio.sleep(0.02)

    async def end(self, run_id: str) -> dict[str, Any]:
        """The run's status when it is over."""
        return await self.until(run_id, lambda status: status["state"] != "running")

    async def run(self, scenario: str, **overrides: Any) -> dict[str, Any]:
        """A run from its start to its end."""
        return await self.end(await self.begin(scenario, **overrides))

    async def collected(self, run_id: str) -> dict[str, Any]:
        """Its details when everything that was left of it is there."""
        async with asyncio.timeout(PATIENCE):
            while True:
                detail: dict[str, Any] = await self.get(f"/history/{run_id}")
                if detail["log"]["state"] != "live":
                    return detail
                await asyncio.sleep(0.05)

    async def paused(self, scenario: str = "ring-5", ticks: int = 2_000) -> str:
        """A run that waits before its first tick; its id."""
        run_id = await self.begin(scenario, paused=True, ticks_total=ticks)
        await self.until(run_id, lambda status: bool(status["paused"]))
        return run_id

    async def idle(self) -> None:
        """Nothing is under way afterwards."""
        run = (await self.get("/state"))["run"]
        if run is not None and run["state"] == "running":
            await self.post(f"/runs/{run['run_id']}/stop")


def site_environment(site: Site) -> dict[str, str]:
    """What a gate is told that joins the site's bus."""
    options = site.server.options
    return {
        "GBE_NATS_URL": site.server.url,
        "GBE_NATS_USER": options.user or "",
        "GBE_NATS_PASSWORD": options.password or "",
    }


@asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[GateProcess]:
    """A gate of a test's own, which may kill it."""
    found = GateProcess(folder, **options)
    await found.start()
    try:
        yield found
    finally:
        if found.process.running:
            await found.stop()
