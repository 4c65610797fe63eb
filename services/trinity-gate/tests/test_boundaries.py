"""The service never runs the engine in its own process: what it imports can't."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import trinity_gate

SOURCE = Path(trinity_gate.__file__).parent


def imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_of_the_operative_only_the_wire_contract_is_imported() -> None:
    for file in SOURCE.rglob("*.py"):
        strange = {
            name
            for name in imported(file)
            if name.startswith("gbe_operative_aether") and not name.startswith("gbe_operative_aether.wire")
        }
        assert not strange, file


def test_the_engine_is_met_in_two_places_and_nobody_runs_it_there() -> None:
    users = {file.name: names for file in SOURCE.rglob("*.py") if (names := _of_the_engine(file))}
    assert set(users) == {"engine.py", "comparing.py"}
    used = set().union(*users.values())
    assert not used & {"gbe_aether.run_session", "gbe_aether.Session", "gbe_aether.compare_snapshots"}


def _of_the_engine(file: Path) -> set[str]:
    return {name for name in imported(file) if name.startswith("gbe_aether")}


def test_neither_engine_nor_fastapi_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, trinity_gate.command\n"
        "print(*[name for name in ('gbe_aether', 'fastapi', 'numpy', 'uvicorn') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
