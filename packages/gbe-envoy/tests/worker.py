"""A worker for the tests to kill: runs commands, one for each line of its stdin, and says when all have been started.

Arguments: the directory for spills, and a directory to have guarded. Run as a script.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from gbe_envoy.adapter import Command, CommandRunner


async def churn(runner: CommandRunner, environment: dict[str, str]) -> None:
    while True:
        await runner.run(Command(("sh", "-c", "sleep 600 & echo x"), environment))


async def main(spills: Path, guarded: Path) -> None:
    runner = CommandRunner(spill_dir=spills)
    await runner.start()
    runner.guard_path(guarded)
    environment = dict(os.environ)
    directory = runner.make_work_dir()
    (directory / "left").write_text("x")
    commands = [Command(("sh", "-c", text.strip()), environment) for text in sys.stdin]
    runs: list[asyncio.Task[Any]] = [asyncio.create_task(runner.run(command)) for command in commands]
    if "--churn" in sys.argv:
        runs += [asyncio.create_task(churn(runner, environment)) for _ in range(4)]
    await asyncio.sleep(0)
    print("started", flush=True)
    await asyncio.gather(*runs)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
