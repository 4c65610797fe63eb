"""For these tests: documents run over a bus, and what came of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import json

from gbe_jobs_domain.documents import load_document
from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Completed, Failed, TaskOutcome
from gbe_jobs_domain.payloads import JobSummary, TaskQueued
from gbe_nexus import Transport
from gbe_operative.composite import CompositeOperative
from gbe_operative.contract import Execution, Operative, Result
from gbe_operative.mock import Behaviour, MockOperative
from gbe_operative.settings import WorkerSettings
from gbe_operative.worker import Worker
from gbe_operative_molecule import MoleculeOperative
from gbe_operative_shell import ShellOperative
from gbe_overseer.client import JobClient

PATIENCE = 60.0
SETTINGS = WorkerSettings(ack_wait=5, moment=0.02, stop_grace=0.05, interrupt_grace=5)

_outcome: json.Decoder[TaskOutcome] = json.Decoder(TaskOutcome)


class Seen(Operative):
    """A molecule Operative of which the tasks are noted."""

    def __init__(self, inner: MoleculeOperative) -> None:
        self.inner = inner
        self.tasks: list[TaskQueued] = []

    @property
    def handles(self) -> tuple[str, ...]:
        return self.inner.handles

    async def start(self, context: Any) -> None:
        await self.inner.start(context)

    async def close(self) -> None:
        await self.inner.close()

    async def execute(self, execution: Execution) -> Result:
        self.tasks.append(execution.task)
        return await self.inner.execute(execution)


class Ecumene:
    """Runs documents."""

    def __init__(self, bus: Transport, worker: Worker, mock: MockOperative, molecules: Seen) -> None:
        self.bus = bus
        self.client = JobClient(bus)
        self.worker = worker
        self.mock = mock
        self.molecules = molecules

    @classmethod
    @contextlib.asynccontextmanager
    async def on(
        cls,
        bus: Transport,
        behaviours: Mapping[str, Behaviour] | None = None,
        environment: Mapping[str, str] | None = None,
        slots: int = 4,
    ) -> AsyncIterator[Ecumene]:
        mock = MockOperative(("mock",), dict(behaviours or {}) or {"": Behaviour()})
        molecules = Seen(MoleculeOperative(environment=environment or {}))
        operative = CompositeOperative([mock, molecules, ShellOperative(["shell"])])
        worker = Worker(bus, operative, dict.fromkeys(operative.handles, slots), settings=SETTINGS)
        await worker.start()
        try:
            yield cls(bus, worker, mock, molecules)
        finally:
            await worker.stop()

    async def submit(self, text: str, folder: Path | None = None, **variables: str) -> str:
        """Submit a document; its id."""
        definition = load_document(text, source="job.yaml", folder=folder, variables=variables).definition
        return (await self.client.submit(definition)).job_id

    async def run(self, text: str, folder: Path | None = None, **variables: str) -> JobSummary:
        """Run a document to its end."""
        return await self.end(await self.submit(text, folder, **variables))

    async def end(self, job_id: str) -> JobSummary:
        """The job's history, as soon as it is written."""
        async with self.client.watch(job_id) as watch, asyncio.timeout(PATIENCE):
            await watch.end()
        summary = await self.client.summary(job_id)
        assert summary is not None
        return summary

    async def outcome(self, summary: JobSummary, name: str) -> TaskOutcome:
        """How a task ended."""
        found = next(task for task in await self.client.results(summary) if task.name == name)
        assert found.outcome is not None, found
        return _outcome.decode(found.outcome)

    async def data(self, summary: JobSummary, name: str) -> Any:
        """What a completed task hands on."""
        outcome = await self.outcome(summary, name)
        assert isinstance(outcome, Completed), outcome
        assert outcome.data is not None
        if isinstance(outcome.data, Ref):
            return json.decode(await self.client.fetch(outcome.data))
        return outcome.data.decoded()

    async def failure(self, summary: JobSummary, name: str) -> Failed:
        """How a task failed."""
        outcome = await self.outcome(summary, name)
        assert isinstance(outcome, Failed), outcome
        return outcome
