"""Reports of attempts that end at about the same time leave together.

A report that travels alone costs each of the processes it passes a wake-up; sixteen that travel together cost hardly
more than one. So while several other attempts run, a report waits a few milliseconds for theirs. Where only a few run,
as in a chain or a small DAG, it leaves at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gbe_nexus import NexusError, Outgoing, PubAck, Transport

DELAY = 0.005
"""Seconds that a report waits for others at the most."""

FEW = 4
"""With fewer attempts under way than this, latency counts more than throughput: no report waits."""

TOGETHER = 64
"""So many leave without waiting for more."""


class Outbox:
    """Publishes reports. `running`: how many attempts are under way, those that wait here included."""

    def __init__(self, transport: Transport, running: Callable[[], int]) -> None:
        self._transport = transport
        self._running = running
        self._waiting: list[tuple[Outgoing, asyncio.Future[PubAck | NexusError]]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def publish(self, report: Outgoing) -> PubAck | NexusError:
        """Store a report, with others or alone; returns what became of it, and never raises for it."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[PubAck | NexusError] = loop.create_future()
        self._waiting.append((report, result))
        running = self._running()
        if running < FEW or len(self._waiting) >= min(running, TOGETHER):
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(DELAY, self._flush)
        return await result

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return

        def answered(results: list[PubAck | NexusError]) -> None:
            for (_, result), answer in zip(waiting, results, strict=True):
                if not result.done():  # its attempt may have been given up
                    result.set_result(answer)

        try:
            self._transport.publish_many([report for report, _ in waiting]).then(answered)
        except NexusError as error:  # closed meanwhile
            answered([error] * len(waiting))
