"""The sample app, served by a worker on the memory transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gbe_jobs_domain.payloads import TaskEnded, TaskQueued
from gbe_nexus import Transport, connect
from gbe_operative.apps import load_app
from gbe_operative.secrets import Secrets
from gbe_operative.testing import Hall

APPS = Path(__file__).with_name("apps")


class Served:
    """A hall with a worker that serves an app."""

    def __init__(self, hall: Hall) -> None:
        self.hall = hall

    async def run(self, task_type: str, **params: Any) -> Any:
        """The outcome of one task."""
        return (await self.ended(task_type, params=params)).outcome

    async def ended(self, task_type: str, **fields: Any) -> TaskEnded:
        """The report of one task."""
        return await self.end_of(await self.begun(task_type, **fields))

    async def begun(self, task_type: str, **fields: Any) -> TaskQueued:
        """A task that was queued."""
        fields["params"] = {
            name: str(value) if isinstance(value, int | float | Path) else value
            for name, value in fields["params"].items()
        }
        task = self.hall.task(task_type, task_type, **fields)
        await self.hall.queue(task)
        return task

    async def end_of(self, task: TaskQueued) -> TaskEnded:
        """Its report."""
        await self.hall.until(lambda: any(end.task_id == task.task_id for end in self.hall.ended), 30)
        return next(end for end in self.hall.ended if end.task_id == task.task_id)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    bus = await connect("memory://")
    yield bus
    await bus.close()


@pytest.fixture
async def hall(transport: Transport) -> AsyncIterator[Hall]:
    async with Hall.on(transport) as hall:
        yield hall


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    """The sample app, served by one worker for all tests of a module: to start it takes longer than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(APPS))
        patch.setenv("SAMPLE_SETTING", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "the worker's own")
        bus = await connect("memory://")
        async with Hall.on(bus) as hall:
            await hall.worker(load_app("sample:app"), secrets=Secrets({"GBE_SECRET_TOKEN": "tok-123456"})).start()
            yield Served(hall)
        await bus.close()


@pytest.fixture
def write_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    return write
