"""What starts fast imports little. Times are measured by the benchmarks; here it is which modules are loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRINT_MODULES = "import sys, {module}; print(*sys.modules)"

HEAVY = {
    "aiohttp",
    "asyncio",
    "concurrent.futures",
    "http",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "nats",
    "pydantic",
    "rich",
    "ssl",
    "typer",
    "urllib.request",
    "uvloop",
    "yaml",
}


def loaded_by(module: str) -> set[str]:
    """The modules that are there after an import in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", PRINT_MODULES.format(module=module)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["gbe_oracle", "gbe_jobs_domain", "gbe_operative"])
def test_a_contract_loads_nothing_heavy(module: str) -> None:
    """`import gbe_oracle` takes as long as reading its contract."""
    assert loaded_by(module) & HEAVY == set()


@pytest.mark.parametrize("module", ["gbe_oracle.command", "gbe_operative.command"])
def test_a_command_loads_no_bus_and_no_terminal(module: str) -> None:
    """Which bus it is, the URL says; a role has no terminal."""
    assert loaded_by(module) & {"nats", "pydantic", "rich", "typer", "yaml", "gbe_nexus_nats"} == set()


def test_the_oracle_s_core_is_pure() -> None:
    """Neither an event loop nor a transport, also not through what it imports."""
    assert not {name for name in loaded_by("gbe_oracle.core.job") if name.split(".")[0] in {"asyncio", "gbe_nexus"}}
