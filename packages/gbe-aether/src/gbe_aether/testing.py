"""Documents of small and of random graphs, for tests and measurements."""

import random
from typing import Any

from gbe_aether.session_config import SessionConfigV1, session_config_from_documents


def topology(n: int, edges: list[tuple[int, int, int, int]], sc: int = 8, **more: Any) -> dict[str, Any]:
    """A topology's document; edges are (i, j, k, cap)."""
    return {
        "gid": "G",
        "profile": "CMP-0",
        "N": n,
        "SC": sc,
        "nodes": [{"node_id": number} for number in range(1, n + 1)],
        "edges": [
            {"e_id": number, "i": i, "j": j, "k": k, "cap": cap, "SC": sc}
            for number, (i, j, k, cap) in enumerate(edges, 1)
        ],
        **more,
    }


def profile(sc: int = 8, **more: Any) -> dict[str, Any]:
    """A profile's document."""
    return {"name": "CMP-0", "modulus_M": 1_000_000_007, "C0": 1_234_567, "SC": sc, "I_block_spacing_W": 4, **more}


def run_config(state: list[int], ticks: int = 6, **more: Any) -> dict[str, Any]:
    """A run config's document."""
    return {
        "v": 1,
        "gid": "G",
        "run_id": "R",
        "topology_path": "topology.json",
        "profile_path": "profile.json",
        "ticks": ticks,
        "initial_state": state,
        "windows": [{"window_id": "W", "apx_name": "A", "start_tick": 1, "end_tick": ticks}],
        "primary_window_id": "W",
        "logging": {"enabled": True},
        "metrics": {"enabled": True},
        **more,
    }


def pfna(*entries: dict[str, Any], run_id: str = "R") -> dict[str, Any]:
    """A PFNA document."""
    return {"v": 0, "pfna_id": "P", "gid": "G", "run_id": run_id, "nid": "N", "entries": list(entries)}


LINE = topology(3, [(1, 2, 3, 50), (2, 3, 3, 50)])


def line(ticks: int = 6, **more: Any) -> SessionConfigV1:
    """A session on a line of three nodes that moves in every tick at first."""
    return session_config_from_documents(run_config([90, 0, 3], ticks, **more), LINE, profile())


def random_graph(nodes: int, edges: int, ticks: int, *, seed: int = 1, k: int = 32) -> SessionConfigV1:
    """A random graph that keeps moving, with logging and metrics on and governance off.

    SC is 32 and every k a random number from 1 to `k`: the sum of k/SC exceeds 1 at most nodes, so that
    the state overshoots and never comes to rest.
    """
    chance = random.Random(seed)
    graph = topology(
        nodes,
        [(chance.randint(1, nodes), chance.randint(1, nodes), chance.randint(1, k), 64) for _ in range(edges)],
        32,
    )
    config = run_config([chance.randrange(2000) for _ in range(nodes)], ticks)
    return session_config_from_documents(config, graph, profile(32, I_block_spacing_W=8))
