"""Runs assertions with an `AssertOperative` alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gbe_jobs_domain.outcomes import TaskOutcome
from gbe_nexus import Transport, connect
from gbe_operative_assert import AssertOperative
from gbe_operative_command.testing import Stage


class Asserts:
    """A started Operative and its stage."""

    def __init__(self, operative: AssertOperative, stage: Stage) -> None:
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
async def asserts(transport: Transport, tmp_path: Path) -> AsyncIterator[Asserts]:
    stage = await Stage.on(transport, tmp_path)
    operative = AssertOperative(environment={"PATH": "/usr/local/bin:/usr/bin:/bin"}, check_timeout=1.5)
    await operative.start(stage.context)
    yield Asserts(operative, stage)
    await operative.close()
