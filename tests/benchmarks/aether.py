"""`make bench-aether`: what the engine costs, in time and in memory. Nothing here is asserted.

Every workload runs in a process of its own, with logging and metrics on. Time is the CPU time of the process from the
session's making to its metrics, the best of several runs: other load disturbs it least. Memory is the largest resident
set of the whole process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from gbe_aether import (
    GovernanceConfigV1,
    LoggingConfigV1,
    MetricsConfigV1,
    Session,
    SessionConfigV1,
    load_scenario_session_config,
    verify_ledger,
    with_ticks,
    write_bundle,
)
from gbe_aether.fixtures import registry_path
from gbe_aether.testing import random_graph
from tests.benchmarks.report import LOAD_BEFORE, Figure, Report

OUTPUT = Path(__file__).resolve().parent.parent.parent / "benchmark-aether.json"


def scenario(name: str, ticks: int, *, governed: bool = True) -> SessionConfigV1:
    """A shipped scenario over another number of ticks."""
    config = with_ticks(load_scenario_session_config(registry_path(), name), ticks)
    governance = config.governance if governed else GovernanceConfigV1()
    return msgspec.structs.replace(
        config, logging=LoggingConfigV1(enabled=True), metrics=MetricsConfigV1(True), governance=governance
    )


def workload(name: str) -> SessionConfigV1:
    """The session of a workload."""
    kind, _, rest = name.partition(":")
    if kind == "random":
        nodes, edges, ticks = map(int, rest.split("x"))
        return random_graph(nodes, edges, ticks)
    governed = kind != "off"
    which, ticks_text = rest.split("x")
    return scenario(which, int(ticks_text), governed=governed)


def measure(name: str) -> dict[str, Any]:
    """Run a workload once; called in its own process."""
    config = workload(name)
    # NumPy's loading is not a session's cost: for a graph of this kind it is loaded once.
    Session(with_ticks(config, 2)).result()
    begun = time.process_time()
    session = Session(config)
    longest = 0.0
    while not session.done:
        piece = time.perf_counter()
        session.advance(0.05)
        longest = max(longest, time.perf_counter() - piece)
    result = session.result()
    assert result.metrics is not None
    spent = time.process_time() - begun
    return {
        "cpu": spent,
        "edges": len(config.topology.edges),
        "ticks": config.total_ticks,
        "longest": longest,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "spooled": session.spooled_bytes / 2**20,
    }


def cancel(name: str) -> dict[str, Any]:
    """How long a stop takes, in the worst of ten moments spread over ticking and sealing."""
    config = workload(name)
    worst = 0.0
    for tenth in range(10):
        session = Session(config)
        while not session.done and session.progress.fraction < 0.1 * tenth:
            session.advance(0.05)
        # The request comes while a piece of work is under way, so it waits for the whole piece.
        asked = time.perf_counter()
        session.advance(0.05)
        session.cancel()
        session.result()
        worst = max(worst, time.perf_counter() - asked)
    return {"worst": worst}


def export(name: str) -> dict[str, Any]:
    """Write a bundle and verify it."""
    result = Session(workload(name)).result()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bundle.zip"
        begun = time.process_time()
        write_bundle(result, file)
        written = time.process_time()
        assert verify_ledger(file).ok
        return {
            "write": written - begun,
            "verify": time.process_time() - written,
            "size": file.stat().st_size / 2**20,
            "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


MEASURES = {"measure": measure, "cancel": cancel, "export": export}


def _in_process(what: str, name: str, runs: int = 1, best: str = "cpu") -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.aether", "--one", what, name]
    found = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(runs)]
    return min(found, key=lambda each: float(each[best]))


def main(arguments: list[str]) -> None:
    """Run all, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "WORKLOAD"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(MEASURES[options.one[0]](options.one[1])))
        return
    print(f"load before: {LOAD_BEFORE}", flush=True)
    report = Report()
    for nodes, ticks in ((1_000, 2_000), (10_000, 200)):
        found = _in_process("measure", f"random:{nodes}x{2 * nodes}x{ticks}", runs=3)
        value = 1e6 * found["cpu"] / (found["edges"] * found["ticks"])
        about = f"{2 * nodes:,} edges, {ticks:,} ticks"
        report.add(Figure(f"{nodes:,} nodes", value, "µs/e·tick", "<= 0.3", value <= 0.3, detail=about))
    for kind, about in (("off", "governance off"), ("as-it-is", "governance OBSERVE, as configured")):
        found = _in_process("measure", f"{kind}:gf01x200000", runs=3)
        value = found["ticks"] / found["cpu"]
        report.add(Figure("GF01", value, "ticks/s", ">= 60,000", value >= 60_000, detail=about))
    found = _in_process("measure", "random:6x8x50000", runs=3)
    report.add(Figure("6 nodes that never rest", found["ticks"] / found["cpu"], "ticks/s", detail="8 edges"))
    found = _in_process("measure", "random:10000x20000x1000")
    about = f"{found['cpu']:.1f} s of CPU, {found['spooled']:.0f} MB in the temporary file"
    report.add(Figure("10,000 nodes x 1,000 ticks", found["rss"], "MB", "<= 120", found["rss"] <= 120, detail=about))
    for ticks in (20_000, 200_000):
        found = _in_process("measure", f"as-it-is:ring-5x{ticks}")
        report.add(Figure(f"ring-5, {ticks:,} ticks", found["rss"], "MB", detail=f"{found['cpu']:.1f} s of CPU"))
    for name in ("as-it-is:ring-5x200000", "random:10000x20000x200"):
        worst = 1000 * _in_process("cancel", name, best="worst")["worst"]
        report.add(Figure("a stop, at worst", worst, "ms", "<= 200", worst <= 200, detail=name))
    for name in ("as-it-is:ring-5x20000", "random:1000x2000x200"):
        found = _in_process("export", name, best="write")
        about = f"verify {found['verify']:.1f} s, {found['size']:.0f} MB, resident {found['rss']:.0f} MB; {name}"
        report.add(Figure("bundle", found["write"], "s", detail=about))
    report.write(OUTPUT)


if __name__ == "__main__":
    main(sys.argv[1:])
