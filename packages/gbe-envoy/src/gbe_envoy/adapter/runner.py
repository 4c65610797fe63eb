"""Running commands for one event loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gbe_envoy.adapter import guardian
from gbe_envoy.adapter.execution import Execution, Stop, Surroundings
from gbe_envoy.adapter.exits import exit_watcher
from gbe_envoy.adapter.growth import Growth
from gbe_envoy.adapter.guard import Guard
from gbe_envoy.adapter.model import Command, CommandResult, Limits, OnLine
from gbe_runtime.private_directory import PrivateDirectory

_DEFAULT_LIMITS = Limits()
_SWEEP_GRACE = 1.0
_EMPTY_DIRS = 64
_NOT_RUNNING = "the CommandRunner is closed or was never started"


class CommandRunner:
    """Runs commands for one event loop; owns the guardian process and a directory.

    The directory, made below `spill_dir` (default: the system's directory for temporary files), holds the working
    directories and the outputs too large for memory; `close` removes it, and so does the guardian when the worker is
    killed. Without a guardian a killed worker leaves its commands running.
    """

    def __init__(self, *, guardian: bool = True, spill_dir: Path | None = None) -> None:
        self._token = secrets.token_hex(8)
        self._guard = Guard(self._token) if guardian else None
        self._parent = spill_dir
        self._own: PrivateDirectory | None = None
        self._shared: Surroundings | None = None
        self._running: set[Execution] = set()
        self._idle = asyncio.Event()
        self._closed = False
        self._made = itertools.count(1)
        self._empty_dirs: list[Path] = []

    async def start(self) -> None:
        """Make the directory and start the guardian. Raises CommandError or OSError."""
        if self._own is not None or self._closed:
            raise RuntimeError("a CommandRunner is started once")
        loop = asyncio.get_running_loop()
        own = PrivateDirectory("gbe-envoy-", self._parent)
        exits = exit_watcher(loop)
        if self._guard is not None:
            try:
                self._guard.start(exits)
            except BaseException:
                exits.close()
                own.path.rmdir()
                own.let_go()
                raise
            self._guard.add_path(own.path)
        self._own = own
        self._shared = Surroundings(
            loop=loop,
            guard=self._guard,
            directory=own.path,
            executor=ThreadPoolExecutor(2, thread_name_prefix="gbe-output"),
            searcher=ThreadPoolExecutor(1, thread_name_prefix="gbe-search"),
            exits=exits,
            growth=Growth(loop),
            null=os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC),
            token=self._token,
        )

    async def close(self) -> None:
        """End what still runs (SIGTERM, grace, SIGKILL; its `run` returns `cancelled`), and the guardian."""
        if self._closed:
            return
        self._closed = True
        while self._running:
            for execution in self._running:
                execution.stop(Stop.CANCEL)
            self._idle.clear()
            await self._idle.wait()
        if self._shared is None or self._own is None:
            return
        # What left its session and outlived its command can be told from others only by a search.
        marker = f"{guardian.MARKER}={self._token}.".encode()
        await asyncio.to_thread(guardian.terminate_all, frozenset[int](), marker, _SWEEP_GRACE)
        if self._guard is not None:
            await self._guard.stop()
        self._shared.executor.shutdown()
        self._shared.searcher.shutdown()
        self._shared.growth.close()
        self._shared.exits.close()
        os.close(self._shared.null)
        await asyncio.to_thread(guardian.remove_tree, os.fsencode(self._own.path))
        self._own.let_go()

    async def __aenter__(self) -> CommandRunner:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run(
        self,
        command: Command,
        *,
        limits: Limits = _DEFAULT_LIMITS,
        timeout: float | None = None,
        cancel: asyncio.Event | None = None,
        on_line: OnLine | None = None,
    ) -> CommandResult:
        """Run a command to its end; afterwards nothing of its process group is left.

        `timeout` is in seconds. `cancel` ends the command, `timeout` too, and so does the cancellation of this call,
        which is then raised again. Raises CommandError when the command cannot be started, OutputError when its output
        cannot be stored.
        """
        if self._shared is None or self._closed:
            raise RuntimeError(_NOT_RUNNING)
        execution = Execution(command, limits, timeout, cancel, on_line, self._shared)
        self._running.add(execution)
        try:
            return await execution.run()
        finally:
            self._forget(execution)

    def _forget(self, execution: Execution) -> None:
        self._running.discard(execution)
        if self._closed and not self._running:
            self._idle.set()

    def make_work_dir(self) -> Path:
        """An empty directory, for one attempt alone until it is given back to `remove_work_dir`.

        Its path is not unique for ever: removing a directory takes 0.4 ms on ext4, as long as a short command, so one
        which comes back as it was handed out is handed out again.
        """
        if self._own is None or self._closed:
            raise RuntimeError(_NOT_RUNNING)
        while self._empty_dirs:
            path = self._empty_dirs.pop()
            if path.is_dir():  # unless a cleaner of temporary files was here
                return path
        return self._own.make(f"work-{next(self._made)}")

    async def remove_work_dir(self, path: Path) -> None:
        """Remove a directory of `make_work_dir` with all in it; what cannot be removed stays until `close`."""
        if (
            len(self._empty_dirs) < _EMPTY_DIRS
            and self._own is not None
            and path.parent == self._own.path
            and _untouched(path)
        ):
            self._empty_dirs.append(path)
        else:
            await asyncio.to_thread(guardian.remove_tree, os.fsencode(path.absolute()))

    def guard_path(self, path: Path) -> None:
        """Have the guardian remove this directory or file too, should the worker be killed."""
        if self._guard is not None:
            self._guard.add_path(path.absolute())

    def release_path(self, path: Path) -> None:
        """Take back `guard_path`."""
        if self._guard is not None:
            self._guard.forget_path(path.absolute())


def _untouched(path: Path) -> bool:
    """Whether the directory is as it was made: ours alone, and empty."""
    try:
        status = os.lstat(path)
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    except OSError:
        return False
    return empty and status.st_mode == stat.S_IFDIR | 0o700 and status.st_uid == os.geteuid()
