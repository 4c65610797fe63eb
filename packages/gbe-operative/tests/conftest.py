"""The memory transport, and a hall on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gbe_nexus import Transport, connect
from gbe_operative.testing import Hall


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    bus = await connect("memory://")
    yield bus
    await bus.close()


@pytest.fixture
async def hall(transport: Transport) -> AsyncIterator[Hall]:
    async with Hall.on(transport) as hall:
        yield hall
