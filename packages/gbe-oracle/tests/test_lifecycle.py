"""The Oracle as a role: started, stopped, disturbed at every step."""

from __future__ import annotations

import pytest

import gbe_nexus
from gbe_nexus import Transport
from gbe_oracle.oracle import BusOracle
from gbe_oracle.testing import QUICK
from gbe_runtime.lifecycle import Role
from gbe_runtime.lifecycle_suite import LifecycleContract, MakeRole


class TestOracleOnASharedBus(LifecycleContract):
    @pytest.fixture
    def make_role(self, bus: Transport) -> MakeRole:
        async def make() -> Role:
            return BusOracle(bus, QUICK)

        return make


class TestOracleWithItsOwnBus(LifecycleContract):
    @pytest.fixture
    def make_role(self, bus: Transport) -> MakeRole:
        async def make() -> Role:
            return BusOracle(await gbe_nexus.connect("memory://oracle-own"), QUICK, close_transport=True)

        return make
