"""Who looks on: wakes those that show the state when it changes, each at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

TOPICS = ("scenarios", "governance", "history", "logs")


class Watcher:
    """One who looks on. What happened since the last look is put together, so a slow one misses no last state."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._topics: set[str] = set()

    def wake(self, topic: str | None) -> None:
        """Something changed: the state, or a topic beside it."""
        if topic is not None:
            self._topics.add(topic)
        self._woken.set()

    async def wait(self) -> list[str]:
        """Return when something changed, with the topics."""
        await self._woken.wait()
        self._woken.clear()
        topics, self._topics = self._topics, set()
        return sorted(topics)


class Hub:
    """`changed` after every change; `watch` to be woken by it. `version` counts the changes of the state."""

    def __init__(self) -> None:
        self.version = 0
        self._watchers: set[Watcher] = set()

    def changed(self, topic: str | None = None) -> None:
        """The state changed, and what `topic` names."""
        self.version += 1
        for watcher in self._watchers:
            watcher.wake(topic)

    @contextmanager
    def watch(self) -> Iterator[Watcher]:
        """A watcher for the while."""
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
