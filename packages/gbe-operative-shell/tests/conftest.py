"""Runs tasks with a `ShellOperative` alone: a stand-in for the worker, on the memory transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gbe_jobs_domain.outcomes import TaskOutcome
from gbe_nexus import Transport, connect
from gbe_operative_command.testing import Stage
from gbe_operative_shell import ShellOperative


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
async def shell(transport: Transport, tmp_path: Path) -> AsyncIterator[Shell]:
    stage = await Stage.on(transport, tmp_path)
    operative = ShellOperative(
        environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "AWS_SECRET": "worker's own"}
    )
    await operative.start(stage.context)
    yield Shell(operative, stage)
    await operative.close()
