"""Control messages for one attempt: pause, resume, step, where the task type can."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

from gbe_jobs_domain.payloads import TaskControl

WAITING = 64
"""Control messages that wait for an Operative that does not look at them."""

REMEMBERED = 1024
"""Ids by which a repeated message is recognised, per attempt."""


class Controls:
    """The control messages for one attempt, in the order in which they came, each once.

    `async for control in execution.controls` gives what came before, too, and ends with the attempt. `take()` gives
    what is there without waiting. One reader at a time.
    """

    __slots__ = ("_ended", "_heard", "_waiting", "_wake")

    def __init__(self) -> None:
        self._waiting: deque[TaskControl] = deque()
        self._heard: OrderedDict[str, None] = OrderedDict()
        self._wake: asyncio.Event | None = None
        self._ended = False

    def tell(self, control_id: str, control: TaskControl) -> bool:
        """One has come. False where it is dropped, since too many wait. One that came before is passed over."""
        if self._ended or control_id in self._heard:
            return True
        if len(self._waiting) >= WAITING:
            return False
        self._heard[control_id] = None
        if len(self._heard) > REMEMBERED:
            self._heard.popitem(last=False)
        self._waiting.append(control)
        self._rouse()
        return True

    def end(self) -> None:
        """None will follow: the attempt is over, or is to end."""
        self._ended = True
        self._waiting.clear()
        self._rouse()

    def take(self) -> list[TaskControl]:
        """Those that are there."""
        found = list(self._waiting)
        self._waiting.clear()
        return found

    def __aiter__(self) -> AsyncIterator[TaskControl]:
        return self

    async def __anext__(self) -> TaskControl:
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._wake = asyncio.Event()
            await self._wake.wait()
        return self._waiting.popleft()

    def _rouse(self) -> None:
        if self._wake is not None:
            self._wake.set()
