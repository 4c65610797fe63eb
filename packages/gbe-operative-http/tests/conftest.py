"""A started Operative with a stand-in for the worker, on the memory transport, and a web server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.ids import new_job_id, task_id
from gbe_jobs_domain.outcomes import TaskOutcome
from gbe_jobs_domain.payloads import ProgressKind, TaskQueued
from gbe_nexus import Artifact, ArtifactStore, Transport, connect
from gbe_operative.contract import Execution, LineReporter, OperativeContext
from gbe_operative_http import HttpOperative
from gbe_operative_http.settings import HttpSettings
from gbe_operative_http.testing import Web


class Stage:
    """What stands behind an `Execution` here."""

    def __init__(self, artifacts: ArtifactStore, root: Path) -> None:
        self.artifacts = artifacts
        self.root = root
        self.job_id = new_job_id()
        self.last: Execution | None = None

    def make_work_dir(self, execution: Execution) -> Path:
        raise AssertionError("a request needs no directory")

    def report_progress(
        self, execution: Execution, kind: ProgressKind, message: str, lines: Sequence[str], stream: str, data: object
    ) -> None:
        return

    def line_reporter(self, execution: Execution) -> LineReporter:
        raise AssertionError("a request has no output as it goes")

    async def spill(
        self, execution: Execution, source: bytes | Path | AsyncIterable[bytes], name: str, media_type: str
    ) -> Ref:
        assert not isinstance(source, Path)
        key = f"{self.job_id}/{name}"
        return self.ref(await self.artifacts.put(key, source, media_type=media_type))

    def ref(self, artifact: Artifact) -> Ref:
        return Ref(ARTIFACT_STORE, artifact.key, artifact.size, artifact.sha256, artifact.media_type)

    def execution(self, params: Mapping[str, str], refs: Mapping[str, Ref] | None = None) -> Execution:
        task = TaskQueued(task_id(self.job_id, 0), self.job_id, "org_default", "test", "the-task", "http")
        return Execution(self, task, 1, params, refs or {})


class Http:
    """A started Operative and its stage."""

    def __init__(self, operative: HttpOperative, stage: Stage) -> None:
        self.operative = operative
        self.stage = stage

    async def get(self, url: str, **params: str) -> TaskOutcome:
        return await self.run({"url": url, **params})

    async def run(self, params: Mapping[str, str], refs: Mapping[str, Ref] | None = None) -> TaskOutcome:
        self.stage.last = self.stage.execution(params, refs)
        async with asyncio.timeout(20):
            return await self.operative.execute(self.stage.last)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    bus = await connect("memory://")
    yield bus
    await bus.close()


@pytest.fixture
async def stage(transport: Transport, tmp_path: Path) -> Stage:
    return Stage(await transport.artifact_store(ARTIFACT_STORE), tmp_path)


@pytest.fixture
async def start(transport: Transport, stage: Stage, tmp_path: Path) -> AsyncIterator[object]:
    """Starts an Operative with these settings."""
    started: list[HttpOperative] = []

    async def start(**settings: object) -> Http:
        settings.setdefault("allow", ("loopback",))
        operative = HttpOperative(settings=HttpSettings(**settings))  # type: ignore[arg-type]
        await operative.start(OperativeContext("test", transport, stage.artifacts, tmp_path))
        started.append(operative)
        return Http(operative, stage)

    yield start
    for operative in started:
        await operative.close()


@pytest.fixture
async def http(start: object) -> Http:
    http: Http = await start()  # type: ignore[operator]
    return http


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web() as web:
        yield web
