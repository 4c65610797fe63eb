"""A bus of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

import gbe_nexus
from gbe_jobs_domain import streams, subjects
from gbe_nexus import Transport
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import QUICK, Events, Script

_buses = itertools.count()


@pytest.fixture
async def bus() -> AsyncIterator[Transport]:
    transport = await gbe_nexus.connect(f"memory://oracle-{next(_buses)}")
    yield transport
    await transport.close()


@pytest.fixture
async def oracle(bus: Transport) -> AsyncIterator[BusOracle]:
    role = BusOracle(bus, QUICK)
    await role.start()
    yield role
    await role.stop()


@pytest.fixture
async def script(bus: Transport) -> Script:
    for spec in streams.streams():
        await bus.ensure_stream(spec)
    return Script(bus)


@pytest.fixture
async def events(bus: Transport) -> Events:
    log = Events()
    await bus.listen([f"gbe.jobs.*.{name}" for name in subjects.JOB_EVENTS], log.seen)
    return log
