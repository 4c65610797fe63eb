"""Runs scripts with a `ScriptOperative` alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gbe_jobs_domain.outcomes import TaskOutcome
from gbe_nexus import Transport, connect
from gbe_operative_command.testing import Stage
from gbe_operative_script import ScriptOperative


class Scripts:
    """A started Operative, its stage, and the root of its scripts."""

    def __init__(self, operative: ScriptOperative, stage: Stage, root: Path) -> None:
        self.operative = operative
        self.stage = stage
        self.root = root

    def write(self, name: str, text: str, mode: int = 0o755) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return name

    async def run(self, **params: str) -> TaskOutcome:
        return await self.operative.execute(self.stage.execution(params))


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    bus = await connect("memory://")
    yield bus
    await bus.close()


@pytest.fixture
async def scripts(transport: Transport, tmp_path: Path) -> AsyncIterator[Scripts]:
    root, work = tmp_path / "root", tmp_path / "work"
    root.mkdir()
    work.mkdir()
    stage = await Stage.on(transport, work)
    operative = ScriptOperative(root=root, environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "TOKEN": "worker's"})
    await operative.start(stage.context)
    yield Scripts(operative, stage, root)
    await operative.close()
