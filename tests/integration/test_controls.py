"""Pause, resume and step over a real server: from a service's client to the task that is meant."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

import gbe_nexus
from gbe_jobs_domain.definitions import TaskDefinition
from gbe_jobs_domain.outcomes import Completed, TaskOutcome
from gbe_jobs_domain.payloads import ControlKind, ProgressKind, TaskControl
from gbe_jobs_domain.streams import EVENTS
from gbe_nexus import PayloadDecoder
from gbe_nexus_nats.server import EmbeddedServer
from gbe_operative.contract import Execution, Operative
from gbe_operative.settings import WorkerSettings
from gbe_operative.worker import Worker
from tests.integration.site import QUICK, Site, outcome

pytestmark = pytest.mark.server


class Engine(Operative):
    """Counts steps while it is paused, and says after each message how it stands; ends when it is resumed."""

    def __init__(self) -> None:
        self.running = 0

    @property
    def handles(self) -> tuple[str, ...]:
        return ("engine",)

    def controls(self, task_type: str) -> frozenset[ControlKind]:
        return frozenset({ControlKind.PAUSE, ControlKind.RESUME, ControlKind.STEP})

    async def execute(self, execution: Execution) -> TaskOutcome:
        paused, ticks = False, 0
        self.running += 1
        async for control in execution.controls:
            match control.kind:
                case ControlKind.PAUSE:
                    paused = True
                case ControlKind.STEP:
                    ticks += paused
                case _:
                    break
            execution.progress(kind=ProgressKind.STEP, data={"paused": paused, "ticks": ticks})
        return Completed(output=[str(ticks)])


async def test_a_service_pauses_steps_and_resumes_one_task_of_two(tmp_path: Path) -> None:
    async with Site(EmbeddedServer(), tmp_path) as site:
        await site.start(site.oracle(**QUICK))
        engine = Engine()
        # Not the connection of the client: the messages travel.
        bus = await gbe_nexus.connect(site.server.url, site.server.options)
        settings = WorkerSettings(ack_wait=2, moment=0.0, work_root=tmp_path)
        worker = Worker(bus, engine, {"engine": 2}, settings=settings, close_transport=True)
        await worker.start()
        try:
            job_id = await site.submit(TaskDefinition("a", "engine"), TaskDefinition("b", "engine"))
            await site.until(lambda: engine.running == 2, what="both to run")
            task = f"task_{job_id.removeprefix('job_')}_0"

            async def tell(kind: ControlKind, **wanted: object) -> str:
                """As a service does: say it until progress shows the effect."""
                control_id = await site.client.control(job_id, "engine", kind, task_ids=[task])
                while not any(said.get("data") == wanted for said in site.progress if said["task_id"] == task):
                    again = await site.client.control(job_id, "engine", kind, task_ids=[task], control_id=control_id)
                    assert again == control_id
                    await asyncio.sleep(0.02)
                return control_id

            await tell(ControlKind.PAUSE, paused=True, ticks=0)
            first = await tell(ControlKind.STEP, paused=True, ticks=1)
            await tell(ControlKind.STEP, paused=True, ticks=2)
            await site.client.control(job_id, "engine", ControlKind.STEP, task_ids=[task], control_id=first)
            await tell(ControlKind.STEP, paused=True, ticks=3)
            await site.client.control(job_id, "engine", ControlKind.RESUME)  # everybody
            assert await site.end(job_id) == "completed"
            ends = {name: outcome(ended) for name, ended in (await site.tasks(job_id)).items()}
            assert ends == {"a": Completed(output=["3"]), "b": Completed(output=["0"])}

            # Stored too, each id once within the duplicate window: what was said can be looked up.
            decoder = PayloadDecoder(TaskControl)
            log = await site.transport.journal(EVENTS)
            kept = [decoder.decode(entry.payload).data async for entry in log.replay("gbe.tasks.engine.control")]
            assert [control.kind for control in kept] == ["pause", "step", "step", "step", "resume"]
            assert kept[0] == TaskControl(ControlKind.PAUSE, job_id, [task])
            assert msgspec.json.encode(kept[-1]) == msgspec.json.encode(TaskControl(ControlKind.RESUME, job_id))
        finally:
            await worker.stop()
