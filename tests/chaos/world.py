"""The world of a run: a server or a cluster, the roles as processes, and the faults that befall them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Protocol

from gbe_nexus import ConnectOptions
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer
from gbe_runtime.settings import PREFIX
from tests.chaos.evidence import Incident, Run
from tests.chaos.plan import POISON_BUDGET, POISON_TYPE, TASK_TYPE, FaultPlan, Plan
from tests.chaos.processes import RoleProcess, uptime

SLOTS = 8
LEASE = 4.0
PURGE_AFTER = 6.0
POISONED = "operative-poisoned"
BEAT = 0.1
STALL = 0.8
"""Seconds without a turn after which the machine is called stalled: nobody else got one either."""


class _Bus(Protocol):
    """A server or a cluster."""

    @property
    def url(self) -> str: ...
    @property
    def options(self) -> ConnectOptions: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class World:
    """Everything that runs, in one directory. Incidents go into `run`."""

    def __init__(self, plan: Plan, directory: Path, run: Run) -> None:
        self.plan = plan
        self.directory = directory
        self.run = run
        self.log = directory / "evidence.log"
        self._offset = uptime() - time.monotonic()
        self._server = None if plan.cluster else EmbeddedServer(directory / "server")
        self._cluster = EmbeddedCluster(data=directory / "cluster") if plan.cluster else None
        self._roles: dict[str, RoleProcess] = {}
        self._parent_pipe, self._ours = os.pipe()
        self._expected_deaths: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bus_lock = asyncio.Lock()
        self._over = False

    def clock(self) -> float:
        """Now, by the clock that the tasks read."""
        return time.monotonic() + self._offset

    @property
    def _bus(self) -> _Bus:
        bus: _Bus | None = self._server or self._cluster
        assert bus is not None
        return bus

    @property
    def url(self) -> str:
        """Of the server, or of all members."""
        return self._bus.url

    @property
    def options(self) -> ConnectOptions:
        """To connect with."""
        return self._bus.options

    async def start(self) -> None:
        """Start everything; returns when all roles are ready."""
        self.log.touch()
        self.run.wall = time.time() - self.clock()
        self.run.lease = LEASE
        await self._bus.start()
        oracles = [self._oracle(n) for n in range(self.plan.oracles)]
        operatives = [self._operative(n) for n in range(self.plan.operatives)]
        if any(task.poison for job in self.plan.jobs for task in job.tasks):
            operatives.append(self._poisoned())
        await asyncio.gather(*(role.start() for role in oracles))
        await asyncio.gather(*(role.start() for role in operatives))
        self._keep(self._watch_the_machine())

    async def stop(self) -> None:
        """End everything: in order, then by force."""
        self._over = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ended = await asyncio.gather(*(role.terminate() for role in self._roles.values() if role.running))
        if not all(ended):
            self.run.deaths.append("a role did not end within 20 s of its TERM")
        await self._bus.stop()
        for descriptor in (self._parent_pipe, self._ours):
            os.close(descriptor)

    async def befall(self, begin: float) -> None:
        """Let the plan's faults happen, the plan's time beginning at `begin`; returns when all is well again."""
        under_way: list[asyncio.Task[None]] = []
        for fault in self.plan.faults:
            await asyncio.sleep(max(0.0, begin + fault.at - self.clock()))
            under_way.append(asyncio.create_task(self._fault(fault)))
        await asyncio.gather(*under_way)

    # --- roles ----------------------------------------------------------------------------------------------

    def _oracle(self, number: int) -> RoleProcess:
        # The least of memory, so that what was evicted is read again.
        extra = {
            "GBE_PURGE_AFTER": str(PURGE_AFTER),
            "GBE_WINDOW": str(self.plan.windows[number]),
            "GBE_CACHE_MIB": "1",
        }
        return self._role(f"oracle-{number}", ["gbe_oracle"], extra)

    def _operative(self, number: int) -> RoleProcess:
        # The budget is for tasks that kill their workers; here it is us who do, as often as chance has it.
        extra = {"GBE_ACK_WAIT": str(LEASE), "GBE_CRASH_BUDGET": "20"}
        argv = ["gbe_operative.command", "--handles", f"{TASK_TYPE}:{SLOTS}"]
        return self._role(f"operative-{number}", argv, extra)

    def _poisoned(self) -> RoleProcess:
        extra = {"GBE_ACK_WAIT": str(LEASE), "GBE_CRASH_BUDGET": str(POISON_BUDGET)}
        argv = ["gbe_operative.command", "--handles", f"{POISON_TYPE}=shell:1"]
        return self._role(POISONED, argv, extra)

    def _role(self, name: str, module: list[str], extra: dict[str, str]) -> RoleProcess:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        options = self.options
        environment |= {
            "GBE_NATS_URL": self.url,
            "GBE_NATS_USER": options.user or "",
            "GBE_NATS_PASSWORD": options.password or "",
            "GBE_REPLICAS": str(options.replicas),
            "GBE_CONNECT_TIMEOUT": "60",
            "GBE_CHAOS": str(self.directory),
            **extra,
        }
        role = RoleProcess(
            name,
            [sys.executable, "-m", *module],
            environment,
            self.directory / f"{name}.log",
            self._parent_pipe,
            self._on_death,
        )
        self._roles[name] = role
        return role

    def _on_death(self, role: RoleProcess, code: int) -> None:
        self._note(role.name, "died", self.clock(), pid=role.pid, detail=f"exit code {code}")
        if role.name != POISONED:
            self.run.deaths.append(f"{role.name} ended by itself with exit code {code}: {last_lines(role.log)}")
        if not self._over:
            role.start()

    # --- faults ---------------------------------------------------------------------------------------------

    async def _fault(self, fault: FaultPlan) -> None:
        try:
            role = self._roles.get(fault.target)
            if role is not None:
                await self._role_fault(role, fault)
            elif self._server is not None:
                await self._server_fault(self._server, fault.target, fault)
            else:
                async with self._bus_lock:  # one node at a time: two of three are a majority
                    await self._node_fault(fault)
        except Exception as error:
            self.run.deaths.append(f"the fault {fault} could not happen: {type(error).__name__}: {error}")

    async def _role_fault(self, role: RoleProcess, fault: FaultPlan) -> None:
        begin, pid = self.clock(), role.pid
        if not role.running:
            return
        if fault.kind == "stop":
            role.send(signal.SIGSTOP)
            await self._pause(fault.seconds)
            role.send(signal.SIGCONT)
        elif fault.kind == "term":
            if not await role.terminate():
                self.run.deaths.append(f"{role.name} did not end within 20 s of its TERM: {last_lines(role.log)}")
            await self._pause(fault.seconds)
            role.start()
        else:
            await role.kill()
            await self._pause(fault.seconds)
            role.start()
        self._note(role.name, fault.kind, begin, pid=pid)

    async def _server_fault(self, server: EmbeddedServer, name: str, fault: FaultPlan) -> None:
        begin, pid = self.clock(), server.pid or 0
        if fault.kind == "stop":
            server.suspend()
            await self._pause(fault.seconds)
            server.resume()
        else:
            await server.kill()
            await self._pause(fault.seconds)
            await server.start(30)
        self._note(name, fault.kind, begin, pid=pid, detail=fault.stream and f"leader of {fault.stream}")

    async def _node_fault(self, fault: FaultPlan) -> None:
        cluster = self._cluster
        assert cluster is not None
        if fault.kind == "leader":
            index = await cluster.leader_of(fault.stream, 20)
        else:
            index = int(fault.target.rpartition("-")[2])
        await self._server_fault(cluster.servers[index], f"node-{index}", fault)
        begin = self.clock()
        await cluster.ready(30)
        self._note("node", "ready", begin)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _note(self, target: str, kind: str, begin: float, *, pid: int = 0, detail: str = "") -> None:
        self.run.incidents.append(Incident(target, kind, begin, self.clock(), pid, detail))

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch_the_machine(self) -> None:
        """When nobody gets a turn, leases are lost without anybody's fault."""
        while True:
            before = self.clock()
            await asyncio.sleep(BEAT)
            if self.clock() - before > BEAT + STALL:
                self._note("machine", "stall", before)

    # --- afterwards -----------------------------------------------------------------------------------------

    def errors_logged(self) -> list[str]:
        """What roles logged as errors of their own making."""
        found = []
        for role in self._roles.values():
            with contextlib.suppress(OSError):
                lines = role.log.read_text(errors="replace").splitlines()
                for number, line in enumerate(lines):
                    if line.startswith("Traceback") or " ERROR " in line:
                        around = " | ".join(lines[max(0, number - 1) : number + 1])
                        tail = next((x for x in lines[number + 1 : number + 60] if x and x[0] not in " \t"), "")
                        found.append(f"{role.name} logged: {around} … {tail}"[:600])
        return found


def last_lines(path: Path, count: int = 3) -> str:
    """The end of a log, on one line."""
    try:
        return " | ".join(path.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return ""
