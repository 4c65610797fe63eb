"""`gbe-oracle`: an Oracle as a process."""

from __future__ import annotations

import sys

from gbe_oracle.settings import OracleSettings
from gbe_runtime.command import role_command
from gbe_runtime.connection import connect_bus
from gbe_runtime.lifecycle import Role


def main() -> None:
    """Run until TERM or INT. Exit codes: 0 stopped, 1 failed, 2 the settings or the environment are wrong."""
    sys.exit(
        role_command(
            OracleSettings,
            _make,
            name="gbe-oracle",
            description="Walk the DAGs of submitted jobs and queue the tasks that are ready.",
            use_uvloop=True,
        )
    )


async def _make(settings: OracleSettings) -> Role:
    from gbe_oracle.oracle import BusOracle

    return BusOracle(await connect_bus(settings, name="gbe-oracle"), settings, close_transport=True)
