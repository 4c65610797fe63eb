"""A gate for the tests of a session, and how it is found idle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.gate_process import GateProcess, running


@pytest.fixture(scope="session")
def gate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_gate(gate_folder: Path) -> AsyncIterator[GateProcess]:
    async with running(gate_folder) as found:
        yield found


@pytest_asyncio.fixture
async def gate(shared_gate: GateProcess) -> AsyncIterator[GateProcess]:
    """The one of the whole session, with nothing under way, before and after."""
    await shared_gate.idle()
    yield shared_gate
    await shared_gate.idle()
    await shared_gate.forget_client()
