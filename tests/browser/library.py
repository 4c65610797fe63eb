"""A scenario library for these tests: what is shipped, and some scenarios that a service meets rarely."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from trinity_gate import engine

MARKUP: Final = '<img src="x" onerror="window.__owned=1"><script>window.__owned=1</script><b class="owned">bold</b>'
"""What must come out as exactly this text."""


def make(root: Path) -> None:
    """Write it to `root`, which must not exist yet.

    `pulse-100`: never comes to rest, so it takes its time, and is still drawn. `wide-1000`: too large to be drawn.
    `faulty`: without edges, which the engine refuses at the first I-block. `markup`: hostile texts wherever some are.
    """
    shutil.copytree(engine.shipped_library(), root, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    registry = json.loads((root / "scenarios" / "registry.json").read_text())
    for scenario, nodes, edges, description, label in (
        ("pulse-100", 100, _ring(100), "Two halves that swap their values with every tick.", "n"),
        ("wide-1000", 1000, _mesh(1000), "A ring of 1,000 nodes with chords.", "n"),
        ("faulty", 3, [], "Three nodes and no edge between them.", "n"),
        ("markup", 4, [(1, 2), (2, 3), (3, 4)], MARKUP, MARKUP),
    ):
        window = MARKUP if scenario == "markup" else "W1"
        _write(root / "topologies" / f"{scenario}.json", _topology(scenario, nodes, edges, label))
        _write(root / "configs" / f"{scenario}.json", _run_config(scenario, nodes, window))
        registry["scenarios"].append(
            {
                "scenario_id": scenario,
                "description": description,
                "pillars": ["gate", label],
                "runtime_hint": label,
                "run_config_path": f"../configs/{scenario}.json",
            }
        )
    _write(root / "scenarios" / "registry.json", registry)


def _ring(nodes: int) -> list[tuple[int, int]]:
    return [(node, node % nodes + 1) for node in range(1, nodes + 1)]


def _mesh(nodes: int) -> list[tuple[int, int]]:
    return _ring(nodes) + [(node, (node + nodes // 3) % nodes + 1) for node in range(1, nodes + 1, 4)]


def _topology(gid: str, nodes: int, edges: list[tuple[int, int]], label: str) -> dict[str, Any]:
    return {
        "gid": gid,
        "profile": "CMP-2",
        "N": nodes,
        "SC": 20,
        "nodes": [{"node_id": node, "label": f"{label}{node}"} for node in range(1, nodes + 1)],
        "edges": [
            {"e_id": number, "i": i, "j": j, "k": 10 if gid == "pulse-100" else 3, "cap": 10_000, "SC": 20, "c": 0}
            for number, (i, j) in enumerate(edges, 1)
        ],
    }


def _run_config(scenario: str, nodes: int, window: str) -> dict[str, Any]:
    return {
        "v": 1,
        "gid": scenario,
        "run_id": scenario,
        "topology_path": f"../topologies/{scenario}.json",
        "profile_path": "../profiles/cmp-2.json",
        "ticks": 20,
        "initial_state": [
            2000 * (node % 2) if scenario == "pulse-100" else node * 7919 % 5000 for node in range(nodes)
        ],
        "windows": [{"window_id": window, "apx_name": f"{scenario} window", "start_tick": 1, "end_tick": 20}],
        "primary_window_id": window,
    }


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2))
