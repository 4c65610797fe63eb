"""`trinity-gate [--host H] [--port P] [--data DIR]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gbe_runtime.command import role_command
from gbe_runtime.lifecycle import Role
from trinity_gate.settings import GateSettings


async def _make(settings: GateSettings) -> Role:
    from trinity_gate.service import GateService

    return GateService(settings)


def run(argv: Sequence[str] | None = None) -> int:
    """Run the service until TERM or INT. Returns the exit code."""
    return role_command(
        GateSettings,
        _make,
        name="trinity-gate",
        description="The Operator Service of the Aether engine, with its web page.",
        argv=argv,
    )


def main() -> None:
    """The entry point."""
    sys.exit(run())
