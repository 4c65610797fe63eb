"""The sample app, served by a worker on the memory transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.payloads import TaskEnded
from gbe_nexus import Transport, connect
from gbe_operative.apps import load_app
from gbe_operative.secrets import Secrets
from gbe_operative.testing import Hall

APPS = Path(__file__).with_name("apps")


class Served:
    """A hall with a worker that serves an app."""

    def __init__(self, hall: Hall) -> None:
        self.hall = hall

    async def run(self, task_type: str, *, secrets: dict[str, Any] | None = None, **params: Any) -> Any:
        """The outcome of one task."""
        return (await self.ended(task_type, params=params)).outcome

    async def ended(self, task_type: str, **fields: Any) -> TaskEnded:
        """The report of one task."""
        fields["params"] = {
            name: str(value) if isinstance(value, int | Path) else value for name, value in fields["params"].items()
        }
        task = self.hall.task(task_type, task_type, **fields)
        await self.hall.queue(task)
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


@pytest.fixture
async def served(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The sample app."""
    monkeypatch.syspath_prepend(str(APPS))
    monkeypatch.setenv("SAMPLE_SETTING", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the worker's own")
    await hall.worker(load_app("sample:app"), secrets=Secrets({"GBE_SECRET_TOKEN": "tok-123456"})).start()
    return Served(hall)


@pytest.fixture
def write_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    return write
