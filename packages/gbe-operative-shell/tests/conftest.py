"""Runs tasks with a `ShellOperative` alone: a stand-in for the worker, on the memory transport."""

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
from gbe_operative_shell import ShellOperative


class Stage:
    """What stands behind an `Execution` here."""

    def __init__(self, artifacts: ArtifactStore, root: Path) -> None:
        self.artifacts = artifacts
        self.root = root
        self.job_id = new_job_id()
        self.lines: list[tuple[str, str]] = []
        self.said = asyncio.Event()

    def make_work_dir(self, execution: Execution) -> Path:
        path = self.root / "work"
        path.mkdir(exist_ok=True)
        return path

    def report_progress(
        self, execution: Execution, kind: ProgressKind, message: str, lines: Sequence[str], stream: str, data: object
    ) -> None:
        self.lines += [(stream, line) for line in lines]
        self.said.set()

    def line_reporter(self, execution: Execution) -> LineReporter:
        def report(stream: str, line: bytes) -> None:
            self.lines.append((stream, line.decode()))
            self.said.set()

        return report

    async def spill(
        self, execution: Execution, source: bytes | Path | AsyncIterable[bytes], name: str, media_type: str
    ) -> Ref:
        data = source.read_bytes() if isinstance(source, Path) else source
        return self.ref(await self.artifacts.put(f"{self.job_id}/{name}", data, media_type=media_type))

    def ref(self, artifact: Artifact) -> Ref:
        return Ref(ARTIFACT_STORE, artifact.key, artifact.size, artifact.sha256, artifact.media_type)

    def execution(self, params: Mapping[str, str], refs: Mapping[str, Ref] | None = None) -> Execution:
        task = TaskQueued(task_id(self.job_id, 0), self.job_id, "org_default", "test", "the-task", "shell")
        return Execution(self, task, 2, params, refs or {})


class Shell:
    """A started Operative and its stage."""

    def __init__(self, operative: ShellOperative, stage: Stage) -> None:
        self.operative = operative
        self.stage = stage

    async def run(self, command: str, **params: str) -> TaskOutcome:
        return await self.operative.execute(self.stage.execution({"command": command, **params}))


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    bus = await connect("memory://")
    yield bus
    await bus.close()


@pytest.fixture
async def stage(transport: Transport, tmp_path: Path) -> Stage:
    return Stage(await transport.artifact_store(ARTIFACT_STORE), tmp_path)


@pytest.fixture
async def shell(transport: Transport, stage: Stage, tmp_path: Path) -> AsyncIterator[Shell]:
    operative = ShellOperative(
        environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "AWS_SECRET": "worker's own"}
    )
    await operative.start(OperativeContext("test", transport, stage.artifacts, tmp_path))
    yield Shell(operative, stage)
    await operative.close()
