"""The worker's side of the guardian: starting it, and telling it what to clean up."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import signal
import sys
import tempfile
from pathlib import Path

from gbe_envoy.adapter import guardian
from gbe_envoy.adapter.exits import ExitWatch, ExitWatcher
from gbe_envoy.adapter.spawn import spawn

_MAX_RESTARTS = 10
_GOODBYE_SECONDS = 2.0
# Blocked from the start, for the guardian must outlive whoever sends them to everything in sight.
_UNWANTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_log = logging.getLogger(__name__)


class Guard:
    """Owns the guardian process, and the table of process groups which it shares with it.

    Noting a group is a store into shared memory: no system call, and it outlives a SIGKILL of the worker.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._exits: ExitWatcher | None = None
        self._table_fd = -1
        self._map: mmap.mmap | None = None
        self._free = list(range(guardian.TABLE_SLOTS))
        self._slots: dict[int, int] = {}
        self._table: memoryview[int] | None = None
        self._paths: set[Path] = set()
        self._pipe = -1
        self._watch: ExitWatch | None = None
        self._restarts = 0
        self._stopping = False
        self._gone = asyncio.Event()

    @property
    def marker(self) -> bytes:
        """What the environment of every command of this runner contains."""
        return f"{guardian.MARKER}={self._token}.".encode()

    def start(self, exits: ExitWatcher) -> None:
        """Start the guardian. Raises CommandError or OSError."""
        self._exits = exits
        size = guardian.TABLE_SLOTS * 8
        self._table_fd = _shared_memory(size)
        self._map = mmap.mmap(self._table_fd, size)
        self._table = memoryview(self._map).cast("q")
        self._launch(exits)

    def note(self, group: int) -> None:
        """Have the group killed, should the worker be killed."""
        if self._table is not None and self._free:
            slot = self._slots[group] = self._free.pop()
            self._table[slot] = group

    def forget(self, group: int) -> None:
        """The group is gone. To be called before its leader is reaped, for then its number is free again."""
        slot = self._slots.pop(group, None)
        if slot is not None and self._table is not None:
            self._table[slot] = 0
            self._free.append(slot)

    def add_path(self, path: Path) -> None:
        """Have the directory removed, should the worker be killed."""
        self._paths.add(path)
        self._tell(guardian.ADD, path)

    def forget_path(self, path: Path) -> None:
        self._paths.discard(path)
        self._tell(guardian.FORGET, path)

    async def stop(self) -> None:
        """Say goodbye and wait until the guardian has ended."""
        self._stopping = True
        if self._pipe >= 0:
            self._send(guardian.record(guardian.GOODBYE))
            os.close(self._pipe)
            self._pipe = -1
        if self._watch is not None:
            try:
                await asyncio.wait_for(self._gone.wait(), _GOODBYE_SECONDS)
            except TimeoutError:
                _log.warning("the guardian does not end; left behind")
                self._watch.close()
        if self._table is not None and self._map is not None:
            self._table.release()
            self._table = None
            self._map.close()
            os.close(self._table_fd)

    def _launch(self, exits: ExitWatcher) -> None:
        reading, self._pipe = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            # Isolated and without site packages: fast, and nobody's PYTHONSTARTUP or .pth files run in it. It has no
            # environment, hence none of an outer runner's marker: it must outlive the worker.
            argv = [sys.executable, "-I", "-S", guardian.__file__, str(os.getpid()), self.marker.decode()]
            pid = spawn(argv, {}, "/", [reading, null, null, self._table_fd], _UNWANTED)
        finally:
            os.close(reading)
            os.close(null)
        self._watch = exits.watch(pid, self._on_exit)
        for path in self._paths:
            self._tell(guardian.ADD, path)

    def _on_exit(self) -> None:
        if self._watch is not None:
            self._watch.reap()
            self._watch.close()
            self._watch = None
        if self._stopping:
            self._gone.set()
            return
        os.close(self._pipe)
        self._pipe = -1
        self._restarts += 1
        if self._restarts > _MAX_RESTARTS:
            _log.error("the guardian ended %d times; commands are unguarded from now on", self._restarts)
            return
        _log.warning("the guardian ended; starting another")
        if self._exits is not None:
            self._launch(self._exits)

    def _tell(self, kind: bytes, path: Path) -> None:
        if self._pipe >= 0:
            self._send(guardian.record(kind, os.fsencode(path)))

    def _send(self, data: bytes) -> None:
        try:
            os.write(self._pipe, data)
        except BrokenPipeError:
            _log.debug("the guardian has just ended")  # _on_exit follows, and tells the next one everything


def _shared_memory(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("gbe-guardian")
    else:
        fd, name = tempfile.mkstemp(prefix="gbe-guardian-")
        os.unlink(name)
    os.ftruncate(fd, size)
    return fd
