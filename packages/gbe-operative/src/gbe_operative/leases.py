"""Renewing the leases of everything in hand, from one timer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from gbe_nexus import Message, NexusError

log = logging.getLogger(__name__)


class Held(Protocol):
    """Messages in hand: one attempt's, or those of a batch that is being reported."""

    def renew(self) -> None:
        """Say that it is still worked on."""
        ...

    def adopt(self, message: Message) -> bool:
        """The message was delivered again while it is in hand: take the new delivery's place if it is yours."""
        ...


def clock() -> float:
    """Seconds that also pass while the host sleeps, where the system can tell."""
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Leases:
    """Everything in hand, and the beat in which it is renewed: a third of the ack wait.

    The beat runs on the event loop, outside the user's code but not beside it: code that blocks the loop for longer
    than two thirds of the ack wait loses its leases, as a stopped process does. `stalled` tells when that may have
    happened: what arrives then may have been delivered long ago, and be somebody else's by now.
    """

    def __init__(self, ack_wait: float, on_beat: Callable[[], None], on_stall: Callable[[], None]) -> None:
        self.ack_wait = ack_wait
        self._on_beat = on_beat
        self._on_stall = on_stall
        self._held: set[Held] = set()
        self._last = clock()

    def add(self, held: Held) -> None:
        """Renew it from now on."""
        self._held.add(held)

    def remove(self, held: Held) -> None:
        """It is settled."""
        self._held.discard(held)

    def adopt(self, message: Message) -> bool:
        """Whether the message is of something in hand, which then goes on with this delivery of it."""
        return any(held.adopt(message) for held in self._held)

    @property
    def stalled(self) -> bool:
        """Whether the loop stood still for half the ack wait."""
        return clock() - self._last > self.ack_wait / 2

    async def keep(self) -> None:
        """The beat, for ever."""
        while True:
            await asyncio.sleep(self.ack_wait / 3)
            self.beat()

    def beat(self) -> None:
        """Renew everything now."""
        if self.stalled:
            # A loop that wakes up serves its timers before its sockets: what waits there must not pass for fresh.
            self._on_stall()
        self._last = clock()
        try:
            for held in self._held:
                held.renew()
        except NexusError as error:
            log.debug("leases not renewed: %s", error)
        self._on_beat()
