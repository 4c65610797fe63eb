"""The same under uvloop, which has its own handling of children and signals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gbe_envoy.adapter import Command, CommandRunner, Limits

ENV = {"PATH": os.environ["PATH"]}
Sh = Callable[..., Command]
PidFrom = Callable[[Path], Awaitable[Any]]


uvloop = pytest.importorskip("uvloop")


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def test_many_short_commands(tmp_path: Path, sh: Sh) -> None:
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        async with CommandRunner(spill_dir=tmp_path) as runner:
            for _ in range(10):
                results = await asyncio.gather(*(runner.run(sh(f"echo {index}; exit {index}")) for index in range(20)))
                assert [result.exit_code for result in results] == list(range(20))
                assert [int(result.stdout) for result in results] == list(range(20))
        assert len(os.listdir("/proc/self/fd")) <= before + 1

    run(main())


def test_timeout_cancel_and_cancellation(tmp_path: Path, pid_from: PidFrom, sh: Sh) -> None:
    async def main() -> None:
        async with CommandRunner(spill_dir=tmp_path) as runner:
            assert (await runner.run(sh("sleep 600 & sleep 600"), timeout=0.1)).timed_out
            cancel = asyncio.Event()
            result = await runner.run(sh("echo x; sleep 600"), cancel=cancel, on_line=lambda *_: cancel.set())
            assert result.cancelled
            task = asyncio.create_task(runner.run(sh("echo $$ >pid; sleep 600", cwd=str(tmp_path))))
            pid = await pid_from(tmp_path / "pid")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pid.gone(within=0)

    run(main())


def test_large_output_and_input(tmp_path: Path) -> None:
    async def main() -> None:
        async with CommandRunner(spill_dir=tmp_path) as runner:
            data = os.urandom(3_000_000)
            result = await runner.run(Command(["cat"], ENV, stdin=data), limits=Limits(tail_bytes=1000))
            assert result.spill is not None
            assert result.spill.read_bytes() == data

    run(main())
