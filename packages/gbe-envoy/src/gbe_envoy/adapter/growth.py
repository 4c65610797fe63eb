"""Calling the event loop's attention to commands which are not over at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

YOUNG = 0.003
"""Seconds after which a command is no longer one of the short ones."""


class Growing(Protocol):
    """What grows."""

    done: bool

    def grow(self) -> None:
        """Called once, when it is `YOUNG` seconds old and not `done`."""


class Growth:
    """One timer for all young commands: they all have the same time, so the first in is the first due."""

    __slots__ = ("_loop", "_queue", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[tuple[float, Growing]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Growing) -> None:
        due = self._loop.time() + YOUNG
        self._queue.append((due, one))
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def close(self) -> None:
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._loop.time()
        while self._queue and (self._queue[0][1].done or self._queue[0][0] <= now):
            one = self._queue.popleft()[1]
            if not one.done:
                one.grow()
        self._timer = self._loop.call_at(self._queue[0][0], self._look) if self._queue else None
