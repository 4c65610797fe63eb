"""A job cancelled at any moment leaves no process, no slot and no artifact that nobody refers to.

A hundred jobs on one ecumene (a real server, an Oracle and an Operative in processes of their own), each cancelled at
another moment: from before its submit is acknowledged to after its end, and in the middle of what takes care: while it
stores what it printed, while it waits for its next attempt, while it cleans up after a first cancel.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE
from gbe_jobs_domain.ids import new_job_id
from gbe_jobs_domain.payloads import RetryPolicy
from gbe_nexus_nats.server import EmbeddedServer
from gbe_oracle.leftovers import AT_ONCE as JOBS_AT_ONCE
from gbe_oracle.leftovers import PATIENCE as FORGOTTEN_AFTER
from gbe_oracle.leftovers import Leftovers
from tests.integration.gbe_cli import processes
from tests.integration.site import QUICK, Site, shell

pytestmark = pytest.mark.server

MOMENTS = 100
BY_EVENT = 40
SLOTS = 8
AT_ONCE = 6
"""Jobs under way: the slots are contended, so some are cancelled while they queue."""

SMALL, LARGE = 400_000, 10_000_000
"""Bytes that a task prints: both go to the artifact store."""

MARK = "MOMENT"


class Moment:
    """One job, and when it is cancelled."""

    def __init__(self, site: Site, folder: Path, number: int) -> None:
        self.site = site
        self.number = number
        self.job_id = new_job_id()
        self.files = folder / str(number)
        self.files.mkdir()
        self.heard: list[asyncio.Event] = []

    def job(self, large: bool) -> JobDefinition:
        """Its tasks note how far they are, print more than a message takes, fail once, and start processes."""

        def task(name: str, command: str, needs: list[str], **fields: Any) -> TaskDefinition:
            return shell(name, command, needs, params={MARK: f"moment-{self.number}", "F": str(self.files)}, **fields)

        size = LARGE if large else SMALL
        return JobDefinition(
            "moment",
            "moment",
            [
                task("begin", 'touch "$F/begun"; echo \'{"n": 1}\'', []),
                task(
                    "flaky",
                    'touch "$F/flaky"; test "$GBE_ATTEMPT" -gt 1',
                    ["begin"],
                    max_retries=2,
                    retry=RetryPolicy(delay=0.4, factor=1.0),
                ),
                task(
                    "prints",
                    f'touch "$F/prints"; head -c {size} /dev/zero | tr "\\0" x; touch "$F/printed"',
                    ["begin"],
                ),
                task(
                    "reads",
                    'wc -c; sleep 300 & S=$!; touch "$F/deep"; '
                    "trap 'touch \"$F/term\"; sleep 0.2; kill $S; exit 1' TERM; sleep 0.1 & wait $!; kill $S",
                    ["prints"],
                    input_from={"stdin_ref": "prints"},
                ),
                task("end", "true", ["reads", "flaky"]),
            ],
        )

    async def cancel(self) -> None:
        await self.site.client.request_cancel(self.job_id, "moment", "a moment")

    async def file(self, name: str) -> None:
        """Until the job is so far, or over."""
        await self.site.until(
            lambda: (self.files / name).exists() or self.site.ended(self.job_id), what=f"{self.job_id}: {name}"
        )

    async def said(self, kind: str) -> None:
        """Until progress of that kind was heard, or the job is over."""
        await self.site.until(
            lambda: (
                any(said["job_id"] == self.job_id and said["kind"] == kind for said in self.site.progress)
                or self.site.ended(self.job_id)
            ),
            what=f"{self.job_id}: {kind}",
        )

    async def run(self, at: Callable[[Moment], Awaitable[None]], large: bool = False) -> str:
        """Submit it and cancel it when `at` says so; returns how it ended."""
        submitting = asyncio.create_task(self.site.client.submit(self.job(large), job_id=self.job_id))
        await at(self)
        await self.cancel()
        await submitting
        return await self.site.end(self.job_id)


async def created(moment: Moment) -> None:
    await moment.site.until(lambda: moment.site.events(moment.job_id), what="created")


async def started(moment: Moment) -> None:
    await moment.file("begun")


async def printing(moment: Moment) -> None:
    await moment.file("prints")


async def storing(moment: Moment) -> None:
    """What it printed is being stored: the command is over and its task is not."""
    await moment.file("printed")


async def waiting_for_the_next_attempt(moment: Moment) -> None:
    await moment.said("retry")


async def processes_below(moment: Moment) -> None:
    await moment.file("deep")


async def cleaning_up(moment: Moment) -> None:
    """A second cancel, in the middle of what the first one began."""
    await moment.file("deep")
    await moment.cancel()
    await moment.file("term")


async def over(moment: Moment) -> None:
    await moment.site.end(moment.job_id)


EVENTS = [created, started, printing, storing, waiting_for_the_next_attempt, processes_below, cleaning_up, over]


def after(seconds: float) -> Callable[[Moment], Awaitable[None]]:
    async def at(moment: Moment) -> None:
        await asyncio.sleep(seconds)

    return at


async def test_a_hundred_moments(tmp_path: Path) -> None:
    await try_moments(tmp_path, MOMENTS, BY_EVENT)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_seven_hundred_moments(tmp_path: Path) -> None:
    await try_moments(tmp_path, 700, 280)


async def try_moments(tmp_path: Path, count: int, by_event: int) -> None:
    folder = tmp_path / "moments"
    folder.mkdir()
    async with Site(EmbeddedServer(), tmp_path) as site:
        # The outcome of an attempt that was cut off is not waited for: the lease is long enough for a busy machine.
        operative = site.operative(f"shell:{SLOTS}", lease=5.0, GBE_HEARTBEAT_INTERVAL="0.2")
        await site.start(site.oracle(**QUICK, GBE_TIDY_AFTER="1"), operative)
        loads: list[dict[str, float]] = []

        def on_heartbeat(subject: str, body: bytes) -> None:
            loads.append(json.decode(body)["data"]["load"])

        await site.transport.listen(["gbe.lifecycle.operative.heartbeat"], on_heartbeat)

        # How long it takes when nobody cancels it, with as many others beside it as there will be.
        loop = asyncio.get_running_loop()
        begun = loop.time()
        whole = [Moment(site, folder, -1 - number) for number in range(AT_ONCE)]
        assert await asyncio.gather(*(moment.run(over) for moment in whole)) == ["completed"] * AT_ONCE
        usual = loop.time() - begun

        timed = count - by_event
        plans: list[tuple[Callable[[Moment], Awaitable[None]], bool]] = [
            (after(usual * 1.1 * number / timed), number % 10 == 0) for number in range(timed)
        ]
        plans += [(EVENTS[number % len(EVENTS)], EVENTS[number % len(EVENTS)] is storing) for number in range(by_event)]
        random.Random(7).shuffle(plans)
        places = asyncio.Semaphore(AT_ONCE)
        moments = [Moment(site, folder, number) for number in range(count)]

        async def one(moment: Moment, plan: tuple[Callable[[Moment], Awaitable[None]], bool]) -> str:
            async with places:
                return await moment.run(*plan)

        ends = Counter(await asyncio.gather(*map(one, moments, plans)))
        assert set(ends) <= {"cancelled", "completed"}, ends
        assert ends["cancelled"] > count * 0.6, f"too few were caught in the act: {ends}"
        assert ends["completed"] >= 1, "no cancel came after the end"

        # No message, no note, no process, no slot.
        await site.clean()
        marks = [{MARK: f"moment-{moment.number}"} for moment in moments]
        async with asyncio.timeout(10):
            while left := [pid for mark in marks for pid in processes(mark)]:
                await asyncio.sleep(0.05)
        assert left == []
        seen = len(loads)
        await site.until(lambda: any(load["in_hand.shell"] == 0 for load in loads[seen:]), what="all slots to be free")
        work = [entry for root in tmp_path.glob("gbe-*") for entry in root.iterdir()]
        assert work == []

        # No artifact but those that histories refer to.
        store = await site.transport.artifact_store(ARTIFACT_STORE)
        referred: set[str] = set()
        for moment in [*whole, *moments]:
            summary = json.encode(await site.history(moment.job_id))
            referred |= {found.decode() for found in re.findall(rb'"key":"([^"]+)"', summary)}
        try:
            async with asyncio.timeout(15):
                while (keys := set(await store.keys())) - referred:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"nobody refers to {sorted(keys - referred)}\n{site.logs()[-5000:]}") from None
        assert keys == referred, f"gone though referred to: {sorted(referred - keys)}"

        # When the histories have aged out, nothing at all, not even bytes that no artifact has.
        assert await operative.stop() == 0
        history = await site.transport.journal(streams.HISTORY)
        for moment in [*whole, *moments]:
            await history.purge(subjects.history("moment", moment.job_id))
        leftovers = Leftovers(store, await site.transport.journal(streams.JOURNAL), history, history_age=0.0)
        for round_ in range(2 + 2 * count // JOBS_AT_ONCE):  # a job that is unknown is looked at twice
            await leftovers.sweep(round_ * FORGOTTEN_AFTER)
        await store.discard_abandoned(0)
        assert await store.keys() == []
        with contextlib.suppress(KeyError):
            assert (await site.transport.stream_state(f"OBJ_{ARTIFACT_STORE}")).messages == 0
