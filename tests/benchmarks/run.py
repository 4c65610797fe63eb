"""`make bench`: the table of the architecture's section 8 in one run. `--full` for the long forms.

One Oracle process, two Operative processes, file storage, no-op tasks; everything up and warm; the clock runs from
the client's submit until it sees the job completed. Figures are medians. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gbe_jobs_domain.definitions import JobDefinition
from tests.benchmarks import raw, shapes, spawn
from tests.benchmarks.ecumene import SLOTS, Ecumene
from tests.benchmarks.report import LOAD_BEFORE, Figure, Report

ROOT = Path(__file__).resolve().parent.parent.parent
OUTPUT = ROOT / "benchmark.json"
SHELL_TASKS = 200

Make = Callable[[], Sequence[JobDefinition]]


async def _seconds(ecumene: Ecumene, make: Make, rounds: int) -> list[float]:
    return [await ecumene.run(make()) for _ in range(rounds)]


def _fan(width: int) -> list[JobDefinition]:
    return [shapes.fan(width)]


def _range(values: Sequence[float], form: str) -> str:
    return f"{format(min(values), form)} to {format(max(values), form)}, {len(values)} runs"


async def chain(ecumene: Ecumene, report: Report, name: str = "chain of 200", target: float | None = 0.7) -> float:
    """Milliseconds per hop."""
    hops = [seconds / 200 * 1000 for seconds in await _seconds(ecumene, lambda: [shapes.chain(200)], 5)]
    value = statistics.median(hops)
    wanted = "" if target is None else f"<= {target}"
    met = None if target is None else value <= target
    report.add(Figure(name, value, "ms/hop", wanted, met, detail=_range(hops, ".3f")))
    return value


async def fan(ecumene: Ecumene, report: Report, limit: float) -> float:
    """Tasks per second of the fan-outs; returns the 5,000 case."""
    rates = [5002 / seconds for seconds in await _seconds(ecumene, lambda: [shapes.fan(5000)], 5)]
    base = statistics.median(rates)
    report.add(
        Figure(
            "1 -> 5,000 -> 1",
            base,
            "tasks/s",
            ">= 20,000",
            base >= 20_000,
            f"{base / limit:.2f} x raw nats-py",
            _range(rates, ",.0f"),
        )
    )
    for width, rounds, within in ((500, 7, 0.6), (20_000, 3, 0.2), (50_000, 3, 0.2)):
        sample = await _seconds(ecumene, partial(_fan, width), rounds)
        rate = (width + 2) / statistics.median(sample)
        over = base / rate - 1
        report.add(
            Figure(
                f"1 -> {width:,} -> 1",
                rate,
                "tasks/s",
                f"cost +{within:.0%}",
                over <= within,
                f"cost per task {over:+.0%}",
                _range([(width + 2) / s for s in sample], ",.0f"),
            )
        )
    return base


async def diamonds(ecumene: Ecumene, report: Report, limit: float) -> None:
    """500 jobs at once."""
    sample = await _seconds(ecumene, lambda: [shapes.diamond() for _ in range(500)], 5)
    rates = [2000 / seconds for seconds in sample]
    value = statistics.median(rates)
    report.add(
        Figure(
            "500 diamonds at once",
            value,
            "tasks/s",
            ">= 12,000",
            value >= 12_000,
            f"{value / limit:.2f} x raw nats-py",
            _range(rates, ",.0f"),
        )
    )


async def shell(ecumene: Ecumene, report: Report) -> None:
    """Commands and a join, beside the bare spawn loops, taken in turns."""
    ours, threads, bare = [], [], []
    for _ in range(3):
        ours.append((SHELL_TASKS + 1) / await ecumene.run([shapes.commands(SHELL_TASKS)]))
        threads.append(await asyncio.to_thread(spawn.threads_rate, SHELL_TASKS, 16))
        bare.append(await asyncio.to_thread(spawn.bare_posix_spawn_rate, SHELL_TASKS, 16))
    best = max(statistics.median(threads), statistics.median(bare))
    value = statistics.median(ours)
    report.add(
        Figure(
            f"{SHELL_TASKS} x sh -c and a join",
            value,
            "tasks/s",
            ">= 85% bare",
            value >= 0.85 * best,
            f"{value / best:.0%} of bare {best:,.0f}/s",
            f"threads {statistics.median(threads):,.0f}, posix_spawn {statistics.median(bare):,.0f}",
        )
    )


async def bulk(ecumene: Ecumene, report: Report) -> None:
    """100 kB from task to task."""
    hops = [seconds / 50 * 1000 for seconds in await _seconds(ecumene, lambda: [shapes.passing(50)], 3)]
    value = statistics.median(hops)
    report.add(
        Figure("chain of 50 passing 100 kB", value, "ms/hop", "<= 1.4", value <= 1.4, detail=_range(hops, ".2f"))
    )


async def overtaking(ecumene: Ecumene, report: Report) -> None:
    """O11: a one-task job while 50,000 tasks fan out."""
    wide = asyncio.create_task(ecumene.run([shapes.fan(50_000)]))
    times: list[float] = []
    while not wide.done() and len(times) < 5:
        await asyncio.sleep(0.3)
        if not wide.done():
            times.append(await ecumene.run([shapes.chain(1)]))
    await wide
    if times:
        report.add(
            Figure("one task during 50,000", max(times), "s", "<= 1", max(times) <= 1, detail=f"{len(times)} jobs")
        )


async def memory(report: Report) -> None:
    """Growth of the Oracle over a job of 50,000 tasks with 100-byte definitions, while it is held."""
    async with Ecumene(operatives=1) as ecumene:
        await ecumene.run([shapes.fan(500)])
        before = ecumene.rss("oracle-0")
        worker_before = ecumene.rss("operative-0")
        running = asyncio.create_task(ecumene.run([shapes.fan(50_000, padding=20)]))
        peak = before
        while not running.done():
            await asyncio.wait({running}, timeout=0.05)
            peak = max(peak, ecumene.rss("oracle-0"))
        await running
        per_task = (peak - before) / 50_000
        report.add(
            Figure(
                "Oracle memory per task held", per_task, "bytes", "<= 1,000", per_task <= 1000, detail="peak RSS growth"
            )
        )
        grown = (ecumene.rss("operative-0") - worker_before) / 1e6
        report.add(Figure("Operative memory growth", max(grown, 0.0), "MB", "flat", grown < 8))


def starting(report: Report) -> None:
    """Imports and whole commands, wall clock."""

    def timed(*argv: str) -> float:
        began = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        return time.perf_counter() - began

    bare = min(timed(sys.executable, "-c", "pass") for _ in range(5))
    full = statistics.median(timed(sys.executable, "-c", "import gbe_oracle") for _ in range(5))
    report.add(
        Figure(
            "import gbe_oracle", (full - bare) * 1000, "ms", "< 100", full - bare < 0.1, detail="without python's own"
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "three.yaml"
        steps = "".join(
            f"  - {{name: s{i}, task_type: shell, params: {{command: 'echo {i}'}}"
            + (f", depends_on: [s{i - 1}]" if i else "")
            + "}\n"
            for i in range(3)
        )
        job.write_text(f"name: three\ntasks:\n{steps}")
        gbe = str(Path(sys.executable).parent / "gbe")
        runs = [timed(gbe, "run", str(job), "--json") for _ in range(3)]
        report.add(
            Figure("gbe run, 3 steps, embedded", statistics.median(runs), "s", "< 2", statistics.median(runs) < 2)
        )
        inner = _memory_mode(job)
        report.add(Figure("3 steps in memory mode", inner * 1000, "ms", "< 50", inner < 0.05, detail="after imports"))


def _memory_mode(job: Path) -> float:
    code = (
        "import sys, time, json, io, contextlib\n"
        "from tests.benchmarks.memory_mode import run\n"
        f"print(run({str(job)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return float(done.stdout.strip().splitlines()[-1])


async def main(full: bool) -> None:
    """Print the table and write `benchmark.json`."""
    began = time.perf_counter()
    print(f"slots per Operative: noop {SLOTS}, shell 16; load before: {LOAD_BEFORE}", flush=True)
    report = Report()
    raw_rates = await raw.rate(5000, 4)
    limit = statistics.median(raw_rates)
    report.add(Figure("raw nats-py, the same pattern", limit, "msgs/s", detail=_range(raw_rates, ",.0f")))
    async with Ecumene() as ecumene:
        await ecumene.run([shapes.fan(2000)])
        await ecumene.run([shapes.commands(20)])
        await chain(ecumene, report)
        base = await fan(ecumene, report, limit)
        await diamonds(ecumene, report, limit)
        await shell(ecumene, report)
        await bulk(ecumene, report)
        await overtaking(ecumene, report)
    async with Ecumene(oracles=2) as ecumene:
        await ecumene.run([shapes.fan(2000)])
        rates = [5002 / seconds for seconds in await _seconds(ecumene, lambda: [shapes.fan(5000)], 5)]
        value = statistics.median(rates)
        report.add(
            Figure(
                "two Oracles: 1 -> 5,000 -> 1",
                value,
                "tasks/s",
                "as one",
                value >= 0.95 * base,
                f"{value / base:.2f} x one Oracle",
                _range(rates, ",.0f"),
            )
        )
    await memory(report)
    starting(report)
    if full:
        await servers(report)
    report.write(OUTPUT)
    print(f"{time.perf_counter() - began:.0f} s; written to {OUTPUT.name}")


async def servers(report: Report) -> None:
    """Other servers: flushed at each write, three replicas, both."""
    for name, cluster, sync in (
        ("sync always", False, "always"),
        ("three replicas", True, None),
        ("three replicas, sync always", True, "always"),
    ):
        async with Ecumene(cluster=cluster, sync_interval=sync) as ecumene:
            await ecumene.run([shapes.fan(1000)])
            await chain(ecumene, report, f"{name}: chain of 200", None)
            rates = [5002 / seconds for seconds in await _seconds(ecumene, lambda: [shapes.fan(5000)], 3)]
            report.add(
                Figure(f"{name}: 1 -> 5,000 -> 1", statistics.median(rates), "tasks/s", detail=_range(rates, ",.0f"))
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the long forms as well")
    asyncio.run(main(parser.parse_args().full))
