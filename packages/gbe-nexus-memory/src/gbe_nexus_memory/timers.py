"""`Timers`: any number of deadlines on one timer of the event loop."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class Timers:
    """Calls functions at times of the loop's clock.

    Nothing is cancelled: who is called looks whether it still matters.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0.0

    def at(self, when: float, callback: Callable[..., None], *args: Any) -> None:
        """Call `callback(*args)` at `when`."""
        heapq.heappush(self._heap, (when, next(self._order), callback, args))
        if self._handle is None or when < self._armed:
            self._arm()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = self._heap[0][0]
        self._handle = self._loop.call_at(self._armed, self._fire)

    def _fire(self) -> None:
        # The loop may call up to one tick of its clock early; that counts as due, or it would spin until then.
        now = max(self._loop.time(), self._armed)
        while self._heap and self._heap[0][0] <= now:
            _, _, callback, args = heapq.heappop(self._heap)
            callback(*args)
        if self._heap:
            self._arm()
        else:
            self._handle = None
