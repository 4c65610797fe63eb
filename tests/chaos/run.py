"""`python -m tests.chaos.run --seconds 60 [--seed 7] [--cluster] [--jobs 200]`: one run of chaos and its judgement.

Exit codes: 0 nothing is wrong, 1 something is, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import SystemRandom

from msgspec import Raw

from gbe_jobs_domain import subjects
from gbe_jobs_domain.payloads import JobCancelRequested, JobSubmitted, encode
from gbe_nexus import NexusError, Transport, connect, encode_payload, now_ms
from tests.chaos import story
from tests.chaos.checker import Judgement, check
from tests.chaos.evidence import Run, Submitted, parse_log
from tests.chaos.observer import Observer
from tests.chaos.plan import JobPlan, Plan, make_plan
from tests.chaos.processes import processes_of
from tests.chaos.world import World

AFTERWARDS = 15.0
"""Of `--seconds`, what is kept for the last jobs to end and for looking at what is left."""
PATIENCE = 45.0
"""Seconds after the last fault in which every job has to end: several leases."""
JOBS_PER_MINUTE = 200


async def chaos(plan: Plan, directory: Path) -> tuple[Run, Judgement, str]:
    """Do it; returns the evidence, the judgement, and the summary."""
    began = time.monotonic()
    run = Run()
    world = World(plan, directory, run)
    try:
        await world.start()
        bus = await connect(world.url, world.options)
        try:
            await _act(plan, world, bus, run)
        finally:
            await bus.close()
    finally:
        await world.stop()
    await _gone(world, run)
    run.deaths += world.errors_logged()
    run.executions, run.strange_lines = parse_log(world.log.read_text().splitlines())
    judgement = check(run)
    return run, judgement, story.summary(plan, run, judgement, time.monotonic() - began)


async def _act(plan: Plan, world: World, bus: Transport, run: Run) -> None:
    observer = Observer(bus, run, world.clock)
    await observer.start()
    begin = world.clock()
    client = _Client(plan, world, bus, run, begin)
    await asyncio.gather(world.befall(begin), *(client.drive(job) for job in plan.jobs))
    job_types = {job.job_id(plan.seed): job.job_type for job in plan.jobs}
    await observer.until_over(list(job_types), PATIENCE)
    await observer.histories(job_types, 5.0)
    await observer.backlog(15.0)
    await observer.notes()


class _Client:
    """Who submits and cancels, until the bus has taken it."""

    def __init__(self, plan: Plan, world: World, bus: Transport, run: Run, begin: float) -> None:
        self._plan = plan
        self._world = world
        self._bus = bus
        self._run = run
        self._begin = begin

    async def drive(self, job: JobPlan) -> None:
        """Everything that a client does about one job."""
        await asyncio.sleep(max(0.0, self._begin + job.at - self._world.clock()))
        if job.cancel_after is not None and job.cancel_after < 0:
            await self._cancel(job)
            await asyncio.sleep(-job.cancel_after)
        await self._submit(job)
        self._run.jobs[job.job_id(self._plan.seed)] = Submitted(job, self._world.clock())
        later: list[Awaitable[None]] = []
        if job.cancel_after is not None and job.cancel_after >= 0:
            later.append(self._later(job.cancel_after, lambda: self._cancel(job)))
        if job.again_after is not None:
            later.append(self._later(job.again_after, lambda: self._submit(job)))
        await asyncio.gather(*later)

    async def _later(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(seconds)
        await action()

    async def _submit(self, job: JobPlan) -> None:
        job_id = job.job_id(self._plan.seed)
        definition = Raw(encode(job.definition(str(self._world.log))))
        body = JobSubmitted(job_id, job.job_type, definition=definition, submitted_at=now_ms())
        # A message id of its own for each submit: that the job id makes it idempotent is the Oracle's promise.
        event_id = f"{job_id}:submit:{now_ms()}"
        await self._insist(subjects.submit(job.job_type), encode_payload(event_id, body), event_id)

    async def _cancel(self, job: JobPlan) -> None:
        job_id = job.job_id(self._plan.seed)
        body = encode_payload(f"{job_id}:cancel", JobCancelRequested(job_id, "chaos"))
        await self._insist(subjects.cancel(job.job_type), body, f"{job_id}:cancel:{now_ms()}")
        if job_id in self._run.jobs:
            self._run.jobs[job_id].cancelled_at = self._world.clock()

    async def _insist(self, subject: str, body: bytes, event_id: str) -> None:
        while True:
            try:
                await self._bus.publish(subject, body, msg_id=event_id)
                return
            except NexusError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(0.2)


async def _gone(world: World, run: Run) -> None:
    """What still runs when everything has stopped."""
    for _ in range(50):
        run.leftovers = processes_of(world.directory)
        if not run.leftovers:
            return
        await asyncio.sleep(0.1)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.chaos.run", description="Kill things, and see whether it matters.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, about (default 60)")
    parser.add_argument("--seed", type=int, help="of the plan (default: one of its own)")
    parser.add_argument("--cluster", action="store_true", help="three servers instead of one")
    parser.add_argument("--jobs", type=int, help=f"how many (default {JOBS_PER_MINUTE} per minute)")
    parser.add_argument("--quiet", action="store_true", help="the same jobs without any fault")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave logs and data there")
    parser.add_argument("--story", type=int, action="append", default=[], metavar="N", help="tell of job N in any case")
    arguments = parser.parse_args(argv)
    seed = arguments.seed if arguments.seed is not None else SystemRandom().randrange(100_000)
    jobs = arguments.jobs or round(JOBS_PER_MINUTE * arguments.seconds / 60)
    length = max(5.0, arguments.seconds - AFTERWARDS)
    plan = make_plan(seed, length, jobs, cluster=arguments.cluster, quiet=arguments.quiet)
    print(f"seed {seed}: {jobs} jobs and {len(plan.faults)} faults in {length:g} s", flush=True)
    directory = arguments.keep or Path(tempfile.mkdtemp(prefix="gbe-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        parser.error(f"{directory} is not empty: what another run left there would be taken for this one's")
    logging.getLogger("gbe").setLevel(logging.ERROR)  # that our own connection comes and goes is what this is about
    run, judgement, table = asyncio.run(chaos(plan, directory.absolute()))
    if not judgement.ok:
        print(story.report(plan, run, judgement))
        print(f"logs and data are left in {directory}")
    for number in arguments.story:
        print("\n".join(story.story(run, f"job_chaos-{seed}-{number}")))
    print(table)
    if judgement.ok and arguments.keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if judgement.ok else 1


if __name__ == "__main__":
    sys.exit(main())
