"""Role processes that can be killed, stopped and started again, and what they leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

READY_WITHIN = 60.0


class RoleProcess:
    """One command, in one life after the other. `on_death` is told of an end that nobody asked for."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        parent_pipe: int,
        on_death: Callable[[RoleProcess, int], None],
    ) -> None:
        self.name = name
        self._argv = argv
        self._environment = environment
        self.log = log
        self._parent_pipe = parent_pipe
        self._on_death = on_death
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._gone = asyncio.Event()
        self._gone.set()
        self._watching: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int:
        """Of the present or the last life."""
        return 0 if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether it lives (it may be stopped)."""
        return not self._gone.is_set()

    def start(self) -> asyncio.Task[None]:
        """Begin a life; the task ends when it is ready, or gone."""
        ready, ready_end = os.pipe()
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                list(self._argv),
                env={**self._environment, "GBE_READY_FD": str(ready_end), "GBE_PARENT_FD": str(self._parent_pipe)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(ready_end, self._parent_pipe),
                start_new_session=True,
            )
        os.close(ready_end)
        self._process = process
        self._wanted = True
        self._gone.clear()
        watching = asyncio.create_task(self._watch(process))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return asyncio.create_task(_closed(ready))

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await self._end(signal.SIGKILL)

    async def terminate(self, grace: float = 20.0) -> bool:
        """SIGTERM; returns when it is gone, False where it had to be killed after `grace` seconds."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)
        self._wanted = False
        try:
            await asyncio.wait_for(self._gone.wait(), grace)
        except TimeoutError:
            await self.kill()
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        """A signal, where it lives."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    async def _end(self, number: signal.Signals) -> None:
        self._wanted = False
        self.send(number)
        await self._gone.wait()

    async def _watch(self, process: subprocess.Popen[bytes]) -> None:
        descriptor = os.pidfd_open(process.pid)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        code = process.wait()
        self._gone.set()
        if self._wanted:
            self._wanted = False
            self._on_death(self, code)


async def _closed(descriptor: int) -> None:
    """Wait until the other end says that it is ready, or is closed."""
    os.set_blocking(descriptor, False)
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(READY_WITHIN):
            await readable.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def uptime() -> float:
    """The clock that the tasks read."""
    return float(Path("/proc/uptime").read_text().split()[0])


def processes_of(directory_of_run: Path) -> list[str]:
    """Processes that have the directory in their environment, or a path in it on their command line, for people."""
    marker = str(directory_of_run)
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        try:
            command = (directory / "cmdline").read_bytes()
            if marker.encode() in (directory / "environ").read_bytes() or f"{marker}/".encode() in command:
                text = command.replace(b"\0", b" ").decode(errors="replace")
                found.append(f"process {directory.name}: {text[:150]}")
        except OSError:
            continue  # gone meanwhile, or not ours
    return found
