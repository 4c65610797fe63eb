"""A runner, shell commands, and waiting for processes which a test did not start itself."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gbe_envoy.adapter import Command, CommandRunner

ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[CommandRunner]:
    async with CommandRunner(spill_dir=tmp_path) as running:
        yield running


@pytest.fixture
def sh() -> Callable[..., Command]:
    """Makes the command for a shell text; `cwd` may be given too."""

    def make(text: str, *, cwd: str | None = None) -> Command:
        return Command(("sh", "-c", text), ENV, cwd=cwd)

    return make


@pytest.fixture
def process() -> Callable[[int], Pid]:
    """Opens a process by its pid."""
    return Pid


@pytest.fixture
def pid_from() -> Callable[[Path], Awaitable[Pid]]:
    """Waits for a command to write its pid, or a child's, to a file, and opens that process."""
    return _pid_from


class Pid:
    """A process opened while it lives, so that it cannot be mixed up."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._fd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = None

    def gone(self, within: float = 10.0) -> bool:
        """Waits until it has ended."""
        if self._fd is None:
            return True
        ended = bool(select.select([self._fd], [], [], within)[0])
        os.close(self._fd)
        self._fd = None
        return ended


async def _pid_from(path: Path) -> Pid:
    """The process whose pid a command writes to the file, with a newline behind it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return Pid(int(text))
        await asyncio.sleep(0.005)
    raise AssertionError(f"{path} was not written")
