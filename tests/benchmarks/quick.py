"""The hot workloads only, for work on the hot path: `python -m tests.benchmarks.quick`."""

from __future__ import annotations

import asyncio
import statistics

from tests.benchmarks import shapes
from tests.benchmarks.ecumene import Ecumene


async def main() -> None:
    """Print a line per workload."""
    async with Ecumene() as ecumene:
        await ecumene.run([shapes.fan(500)])
        chains = [await ecumene.run([shapes.chain(200)]) for _ in range(5)]
        print(f"chain 200: {statistics.median(chains) / 200 * 1000:.3f} ms/hop", [f"{c:.3f}" for c in chains])
        fans = [await ecumene.run([shapes.fan(5000)]) for _ in range(5)]
        print(f"fan 5000: {5002 / statistics.median(fans):.0f} tasks/s", [f"{c:.3f}" for c in fans])
        diamonds = [await ecumene.run([shapes.diamond() for _ in range(500)]) for _ in range(5)]
        print(f"500 diamonds: {2000 / statistics.median(diamonds):.0f} tasks/s", [f"{c:.3f}" for c in diamonds])
        bulk = [await ecumene.run([shapes.passing(50)]) for _ in range(3)]
        print(f"chain of 50 x 100 kB: {statistics.median(bulk) / 50 * 1000:.3f} ms/hop", [f"{c:.3f}" for c in bulk])
        shell = [await ecumene.run([shapes.commands(200)]) for _ in range(3)]
        print(f"200 sh: {200 / statistics.median(shell):.0f} tasks/s", [f"{c:.3f}" for c in shell])


if __name__ == "__main__":
    asyncio.run(main())
