"""Being told by the event loop that a child has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Protocol

from gbe_envoy.adapter.errors import CommandError

UNKNOWN_STATUS = 255 << 8
"""The wait status of a child which somebody else has reaped: exit code 255, as in asyncio."""


class ExitWatch:
    """One child: whether it has `ended`, and its status."""

    __slots__ = ("_close", "_status", "callback", "ended", "pid")

    def __init__(self, pid: int, callback: Callable[[], None], close: Callable[[], None] | None = None) -> None:
        self.pid = pid
        self.callback = callback
        self.ended = False
        self._close = close
        self._status: int | None = None

    def reap(self) -> int:
        """The wait status; waits for the child if need be. Afterwards it is gone from the process table."""
        if self._status is None:
            try:
                self._status = os.waitpid(self.pid, 0)[1]
            except ChildProcessError:
                self._status = UNKNOWN_STATUS
        return self._status

    def close(self) -> None:
        if self._close is not None:
            self._close()
            self._close = None

    def tell(self) -> None:
        """The child has ended."""
        self.ended = True
        self.callback()


class ExitWatcher(Protocol):
    """Watches children for one event loop."""

    def watch(self, pid: int, callback: Callable[[], None]) -> ExitWatch:
        """Call back once, in the loop, when the child `pid` has ended. Raises CommandError."""

    def close(self) -> None: ...


class PidfdWatcher:
    """By pidfds in an epoll set of its own, which is one reader of the loop: a tenth of the cost of one for each."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[int, ExitWatch] = {}
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._on_ready)

    def watch(self, pid: int, callback: Callable[[], None]) -> ExitWatch:
        try:
            fd = os.pidfd_open(pid)
            # Closing the descriptor takes it out of the set; one-shot, so that until then it is reported once.
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        except OSError as error:
            raise CommandError(f"cannot watch process {pid}: {error.strerror}") from error
        watch = self._watched[fd] = ExitWatch(pid, callback, lambda: self._forget(fd))
        return watch

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _forget(self, fd: int) -> None:
        del self._watched[fd]
        os.close(fd)

    def _on_ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            watch = self._watched.get(fd)
            if watch is not None:
                watch.tell()


class ThreadWatcher:
    """By one waiting thread for each child, where there are no pidfds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def watch(self, pid: int, callback: Callable[[], None]) -> ExitWatch:
        watch = ExitWatch(pid, callback)
        threading.Thread(target=self._wait, args=(watch,), name=f"wait-{pid}", daemon=True).start()
        return watch

    def close(self) -> None:
        return

    def _wait(self, watch: ExitWatch) -> None:
        watch.reap()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(watch.tell)


def exit_watcher(loop: asyncio.AbstractEventLoop) -> ExitWatcher:
    """The best that the system has."""
    if hasattr(os, "pidfd_open") and hasattr(select, "epoll"):
        return PidfdWatcher(loop)
    return ThreadWatcher(loop)
