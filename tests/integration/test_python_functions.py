"""Functions as tasks, by `gbe-operative --app` on a real server, with workers that are killed (P12-P14)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.outcomes import FailureKind
from gbe_jobs_domain.payloads import OnLost
from gbe_nexus import ConnectOptions, connect
from gbe_nexus_nats.server import EmbeddedServer
from gbe_operative.testing import Hall as RealHall
from tests.integration.test_operative_processes import Site, gone, pid_in, runs

pytestmark = pytest.mark.server

TASKS = """
import asyncio, os, subprocess, sys
from pathlib import Path
from gbe_operative_python import current, task

@task("greet", slots=2)
def greet(name: str = "world") -> dict:
    print("hello", name)
    return {"name": name, "worker": os.getppid()}

def begun(directory: Path) -> None:
    child = subprocess.Popen(["sleep", "600"])
    (directory / "child").write_text(str(child.pid))
    (directory / "own").write_text(str(os.getpid()))

@task
def work(directory: Path) -> str:
    # Without end where it is run first; at once where that was done.
    if (directory / "own").exists():
        return "second time"
    begun(directory)
    while True:
        print("busy")

@task
async def work_async(directory: Path) -> str:
    if (directory / "own").exists():
        return "second time"
    begun(directory)
    await asyncio.sleep(600)
    return "never"

@task
def murder() -> None:
    # Kills its worker, always.
    os.kill(os.getppid(), 9)
"""


MODULE = """
import os, subprocess, sys, time
from pathlib import Path
from gbe_operative_python import write_result

directory = Path(sys.argv[2])
if (directory / "own").exists():
    write_result("second time")
    sys.exit()
child = subprocess.Popen(["sleep", "600"])
(directory / "child").write_text(str(child.pid))
(directory / "own").write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A server, and the tasks in the directory where the workers are started."""
    (tmp_path / "own_tasks.py").write_text(TASKS)
    async with EmbeddedServer(tmp_path / "data") as server:
        options = ConnectOptions(user=server.options.user, password=server.options.password)
        bus = await connect(server.url, options)
        async with RealHall.on(bus) as hall:
            hall.ack_wait = 1.0
            site = Site(server, hall, tmp_path)
            try:
                yield site
            finally:
                await site.close()
        await bus.close()


async def test_the_current_directory_is_where_an_app_is_found(site: Site) -> None:
    await site.app("own_tasks")
    hall = site.hall
    await hall.queue(*[hall.task(f"t{n}", "greet", params={"name": str(n)}) for n in range(50)])
    ended = await hall.ends(50)
    assert {end.outcome.data.decoded()["name"] for end in ended} == {str(n) for n in range(50)}
    assert {tuple(end.outcome.output) for end in ended} == {(f"hello {n}",) for n in range(50)}


@pytest.mark.parametrize("task_type", ["work", "work-async"])
async def test_a_killed_worker_leaves_no_function_and_another_runs_the_task(
    site: Site, tmp_path: Path, task_type: str
) -> None:
    """P14."""
    hall: Any = site.hall
    first = await site.app("own_tasks")
    await hall.queue(hall.task("w", task_type, params={"directory": str(tmp_path)}))
    own, child = await pid_in(tmp_path / "own"), await pid_in(tmp_path / "child")
    second = await site.app("own_tasks")
    first.signal(signal.SIGKILL)
    await gone(own, 1.0)
    await gone(child, 1.0)
    (end,) = await hall.ends()
    assert end.outcome.data.decoded() == "second time"
    assert (end.attempt, end.starts) == (1, 2), "a lost start is no failed attempt"
    await asyncio.wait_for(first.process.wait(), 10)
    assert await second.stop() == 0


async def test_a_killed_worker_leaves_no_module_and_another_runs_the_task(site: Site, tmp_path: Path) -> None:
    """P14, of `python -m`."""
    package = tmp_path / "gbe_tasks"
    package.mkdir()
    (package / "work.py").write_text(MODULE)
    hall: Any = site.hall
    first = await site.worker("work=python")
    await hall.queue(hall.task("w", "work", params={"directory": str(tmp_path)}))
    own, child = await pid_in(tmp_path / "own"), await pid_in(tmp_path / "child")
    await site.worker("work=python")
    first.signal(signal.SIGKILL)
    await gone(own, 1.0)
    await gone(child, 1.0)
    (end,) = await hall.ends()
    assert end.outcome.data.decoded() == "second time"


async def test_on_lost_fail(site: Site, tmp_path: Path) -> None:
    hall: Any = site.hall
    first = await site.app("own_tasks")
    await hall.queue(hall.task("w", "work", params={"directory": str(tmp_path)}, on_lost=OnLost.FAIL))
    own = await pid_in(tmp_path / "own")
    await site.app("own_tasks")
    first.signal(signal.SIGKILL)
    await gone(own, 1.0)
    (end,) = await hall.ends()
    assert end.outcome.kind is FailureKind.LOST


async def test_a_worker_that_stops_hands_the_task_to_another(site: Site, tmp_path: Path) -> None:
    hall: Any = site.hall
    first = await site.app("own_tasks")
    await hall.queue(hall.task("w", "work-async", params={"directory": str(tmp_path)}))
    own, child = await pid_in(tmp_path / "own"), await pid_in(tmp_path / "child")
    await site.app("own_tasks")
    assert await first.stop() == 0
    assert not runs(own)
    assert not runs(child)
    (end,) = await hall.ends()
    assert end.outcome.data.decoded() == "second time"


async def test_a_function_that_always_kills_its_worker(site: Site) -> None:
    """P14: dead-lettered after the budget."""
    hall: Any = site.hall
    await hall.queue(hall.task("m", "murder"))
    for _ in range(4):
        worker = await site.app("own_tasks")
        if hall.ended:
            break
        await asyncio.wait(
            {asyncio.ensure_future(worker.process.wait()), asyncio.ensure_future(hall.ends())},
            return_when=asyncio.FIRST_COMPLETED,
        )
    (end,) = await hall.ends()
    assert end.outcome.kind is FailureKind.LOST
    await hall.until(lambda: len(hall.dead) == 1)


async def test_an_app_that_can_not_be_served_is_exit_code_2(site: Site) -> None:
    (site.directory / "needy.py").write_text(
        "import os\nfrom gbe_operative_python import task\nos.environ['NEEDED']\n@task\ndef t() -> None: ...\n"
    )
    with pytest.raises(AssertionError, match="needy can't be imported in a process of its own: KeyError: 'NEEDED'"):
        await site.app("needy", NEEDED="x")
    assert site.workers[0].process.returncode == 2
