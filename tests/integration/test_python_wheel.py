"""The wheel of gbe-operative-python alone, with some bus, serves functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.environments import Environments, run

pytestmark = pytest.mark.wheels

TASKS = """
from gbe_operative_python import task

@task
def add(a: int, b: int = 2) -> int:
    return a + b
"""

SERVE = """
import asyncio
from gbe_nexus import connect
from gbe_operative.apps import load_app
from gbe_operative.testing import Hall

async def main():
    bus = await connect("memory://")
    async with Hall.on(bus) as hall:
        await hall.worker(load_app("own")).start()
        await hall.queue(hall.task("t", "add", params={"a": "3"}))
        print((await hall.ends())[0].outcome.data.decoded())
    await bus.close()

asyncio.run(main())
"""


def test_it_serves_functions(environments: Environments, tmp_path: Path) -> None:
    bin_folder = environments.make("python-functions", "gbe-operative-python", "gbe-nexus-memory")
    (tmp_path / "own.py").write_text(TASKS)
    (tmp_path / "serve.py").write_text(SERVE)
    assert run(bin_folder / "python", "-W", "error", "serve.py", cwd=tmp_path) == "5\n"
