"""O7: several Oracles on the same jobs, one of them killed or stopped. The others take over; nothing is recorded twice.

The Oracles have the settings of `gbe up` (a pin is given up after 2 s, what a dead Oracle held comes back after 3 s).
Take-over times are printed (`pytest -s`); what is asserted of them is generous.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gbe_jobs_domain.definitions import TaskDefinition
from gbe_jobs_domain.ids import new_job_id
from gbe_jobs_domain.streams import INBOX, JOURNAL, QUEUE
from gbe_nexus import NexusError
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer
from tests.integration.site import RoleProcess, Site, applied, shell

pytestmark = pytest.mark.server

TAKE_OVER = 6.0
"""Seconds: 3 to take over, 3 for the ack wait of what the dead one held."""
GENEROUS = 4.0
"""Seconds on top, for a busy machine."""


class Load:
    """Small jobs without an end, and when each was seen to complete."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.job_ids: list[str] = []
        self._task = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        tasks = [
            TaskDefinition("a", "noop"),
            *(TaskDefinition(f"t{number}", "noop", depends_on=["a"]) for number in range(5)),
            shell("z", "true", [f"t{number}" for number in range(5)]),
        ]
        while True:
            job_id = new_job_id()
            while True:  # the same id again is the same job
                with contextlib.suppress(NexusError):
                    await self.site.submit(*tasks, job_id=job_id)
                    break
            self.job_ids.append(job_id)
            await asyncio.sleep(0.02)

    @property
    def over(self) -> int:
        """Jobs that have ended."""
        return sum(self.site.ended(job_id) is not None for job_id in self.job_ids)

    async def more(self, count: int, patience: float = 30) -> float:
        """Seconds until so many more jobs have ended."""
        begin, wanted = time.perf_counter(), self.over + count
        await self.site.until(lambda: self.over >= wanted, patience, f"{count} more jobs to end")
        return time.perf_counter() - begin

    async def finish(self) -> None:
        """Submit no more; every job completes, and no outcome is recorded twice."""
        self._task.cancel()
        await asyncio.wait({self._task})
        await self.site.completed(self.job_ids, 60)
        for job_id in self.job_ids:
            once = applied(await self.site.records(job_id))
            assert once == dict.fromkeys(range(7), 1), (job_id, once)


class Oracles:
    """The Oracles of a site, and which of them works."""

    def __init__(self, site: Site, count: int) -> None:
        self.site = site
        # What is over stays in the journal, to be looked at.
        self.all = [site.oracle(GBE_PURGE_AFTER="3600") for _ in range(count)]

    async def working(self) -> RoleProcess:
        """The one that writes the journals now."""
        job_id = await self.site.submit(TaskDefinition("a", "noop"))
        await self.site.end(job_id)
        writer = (await self.site.records(job_id))[-1].writer
        [found] = [role for role in self.all if role.running and f"-{role.pid}-" in writer]
        return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(EmbeddedServer(), tmp_path) as site:
        yield site


async def start(site: Site, oracles: int) -> tuple[Oracles, Load]:
    """Oracles and one Operative, at work."""
    several = Oracles(site, oracles)
    await site.start(*several.all, site.operative("noop=mock:64,shell:2"))
    load = Load(site)
    await load.more(10)
    return several, load


async def test_killed_and_stopped(site: Site) -> None:
    """Three: one is killed, then the next stands still for a while and goes on as if nothing had been."""
    several, load = await start(site, 3)
    first = await several.working()
    await first.kill()
    killed = await load.more(1)
    await load.more(20)

    second = await several.working()
    assert second is not first
    second.send(signal.SIGSTOP)
    stopped = await load.more(1)
    await load.more(20)
    third = await several.working()
    assert third not in (first, second)
    second.send(signal.SIGCONT)
    await load.more(20)
    assert second.running

    await load.finish()
    print(f"\ntake-over: {killed:.2f} s after SIGKILL, {stopped:.2f} s after SIGSTOP")
    assert max(killed, stopped) < TAKE_OVER + GENEROUS
    for role in (second, third):
        assert await role.stop() == 0, role.log.read_text()


async def test_the_last_one_dies_and_comes_back(site: Site) -> None:
    """Two; both are killed in the middle of a fan-out, and one is started again."""
    several, load = await start(site, 2)
    names = [f"t{number}" for number in range(3000)]
    wide = await site.submit(
        TaskDefinition("root", "noop"),
        *(TaskDefinition(name, "noop", depends_on=["root"]) for name in names),
        TaskDefinition("join", "noop", depends_on=names),
    )
    await site.until(lambda: "created" in site.events(wide))
    for role in several.all:
        role.send(signal.SIGKILL)
    await asyncio.gather(*(role.wait() for role in several.all))
    begin = time.perf_counter()
    await several.all[0].start()
    assert await site.end(wide) == "completed"
    print(f"\nboth Oracles killed, one restarted: fan-out of 3,000 over {time.perf_counter() - begin:.2f} s after that")
    assert applied(await site.records(wide)) == dict.fromkeys(range(3002), 1)
    await load.finish()


async def test_an_orderly_stop_hands_over(site: Site) -> None:
    """Two; the one that works is asked to stop: nothing is lost, and the other goes on without waiting for leases."""
    several, load = await start(site, 2)
    first = await several.working()
    assert await first.stop() == 0, first.log.read_text()
    waited = await load.more(1)
    await load.more(20)
    await load.finish()
    print(f"\nhand-over: {waited:.2f} s")
    assert waited < TAKE_OVER + GENEROUS


@pytest.mark.cluster
@pytest.mark.parametrize(
    "streams", [[JOURNAL], pytest.param([INBOX, QUEUE, JOURNAL], marks=pytest.mark.slow)], ids=["journal", "all"]
)
async def test_on_a_cluster(tmp_path: Path, streams: list[str]) -> None:
    """Three servers: an Oracle is killed, then the server that leads the journal; then all that lead something."""
    cluster = EmbeddedCluster()
    async with Site(cluster, tmp_path) as site:
        several, load = await start(site, 2)
        first = await several.working()
        await first.kill()
        killed = await load.more(1)
        await load.more(10)
        elections = {}
        for stream in streams:
            index = await cluster.leader_of(stream)
            await cluster.kill(index)
            elections[stream] = await load.more(1)
            await load.more(10)
            if stream != streams[-1]:
                await cluster.restart(index)
        await load.finish()
        said = ", ".join(f"{waited:.2f} s after the leader of {name} was killed" for name, waited in elections.items())
        print(f"\ncluster: {killed:.2f} s after SIGKILL of the Oracle; {said}")
        assert killed < TAKE_OVER + GENEROUS
