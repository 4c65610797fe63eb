"""A bus of one process with an Oracle, molecules and shells on it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

import gbe_nexus
from gbe_nexus import Transport
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import QUICK

_buses = itertools.count()


@pytest.fixture
async def bus() -> AsyncIterator[Transport]:
    transport = await gbe_nexus.connect(f"memory://molecules-{next(_buses)}")
    yield transport
    await transport.close()


@pytest.fixture
async def oracle(bus: Transport) -> AsyncIterator[BusOracle]:
    role = BusOracle(bus, QUICK)
    await role.start()
    yield role
    await role.stop()
