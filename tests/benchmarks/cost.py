"""CPU time per task of each process: a figure that other load on the machine disturbs little.

`python -m tests.benchmarks.cost [workload …]`
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gbe_jobs_domain.definitions import JobDefinition
from tests.benchmarks import shapes
from tests.benchmarks.ecumene import Ecumene

WORKLOADS: dict[str, tuple[int, Callable[[], Sequence[JobDefinition]]]] = {
    "chain": (200, lambda: [shapes.chain(200)]),
    "fan": (5002, lambda: [shapes.fan(5000)]),
    "diamonds": (2000, lambda: [shapes.diamond() for _ in range(500)]),
    "bulk": (50, lambda: [shapes.passing(50)]),
    "shell": (201, lambda: [shapes.commands(200)]),
}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _server_pid() -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if b"nats-server" in arguments[0] and _descends(parent):
                return int(entry.name)
    raise RuntimeError("no nats-server of ours")


def _descends(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return False


async def main(names: Sequence[str]) -> None:
    """Print microseconds of CPU per task and process."""
    async with Ecumene() as ecumene:
        await ecumene.run([shapes.fan(500)])
        pids = {"server": _server_pid(), "client": os.getpid(), **ecumene.supervisor.pids}
        for name in names or WORKLOADS:
            tasks, make = WORKLOADS[name]
            rounds = 5
            before = {who: cpu_seconds(pid) for who, pid in pids.items()}
            for _ in range(rounds):
                await ecumene.run(make())
            spent = {who: (cpu_seconds(pid) - before[who]) / rounds / tasks * 1e6 for who, pid in pids.items()}
            total = sum(spent.values())
            parts = "  ".join(f"{who} {value:.0f}" for who, value in spent.items() if value >= 0.5)
            print(f"{name:9} {total:6.0f} us/task: {parts}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
