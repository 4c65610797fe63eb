"""Renders templates with a `TemplateOperative` alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gbe_jobs_domain.outcomes import TaskOutcome
from gbe_nexus import Transport, connect
from gbe_operative_command.testing import Stage
from gbe_operative_template import TemplateOperative
from gbe_operative_template.operative import TemplateSettings


class Templates:
    """A started Operative, its stage, and the root of its templates."""

    def __init__(self, operative: TemplateOperative, stage: Stage, root: Path) -> None:
        self.operative = operative
        self.stage = stage
        self.root = root

    def write(self, name: str, text: str) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    def limit(self, seconds: float) -> None:
        """From now on a rendering may take so long."""
        self.operative._settings = replace(self.operative._settings, timeout=seconds)

    async def run(self, template: str | None = None, **params: str) -> TaskOutcome:
        if template is not None:
            params["template"] = template
        return await self.operative.execute(self.stage.execution(params, task_type="template"))


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    bus = await connect("memory://")
    yield bus
    await bus.close()


@pytest.fixture
async def templates(transport: Transport, tmp_path: Path) -> AsyncIterator[Templates]:
    root, work = tmp_path / "root", tmp_path / "work"
    root.mkdir()
    work.mkdir()
    stage = await Stage.on(transport, work)
    settings = TemplateSettings(root=root, timeout=60.0, max_bytes=1 << 20, memory=64 << 20)
    operative = TemplateOperative(settings=settings)
    await operative.start(stage.context)
    yield Templates(operative, stage, root)
    await operative.close()
