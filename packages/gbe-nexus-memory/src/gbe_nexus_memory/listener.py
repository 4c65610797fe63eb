"""`Listener`: hears every message published on its subjects, stored or not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from gbe_nexus import Subscription
from gbe_nexus_memory.subjects import matcher


class Listener(Subscription):
    """Hands over what it heard in one call of the loop, never from within the publisher's."""

    def __init__(
        self,
        subjects: Sequence[str],
        handler: Callable[[str, bytes], None],
        loop: asyncio.AbstractEventLoop,
        on_stop: Callable[[Listener], None],
    ) -> None:
        self.matches = matcher(subjects)
        self._handler = handler
        self._loop = loop
        self._on_stop = on_stop
        self._heard: deque[tuple[str, bytes]] = deque()
        self._stopped = False

    @property
    def ack_wait(self) -> float:
        """Nothing is acknowledged here."""
        return 0.0

    def grant(self, credit: int) -> None:
        """Listeners have no credit."""
        raise ValueError("a listener hears everything: it has no credit")

    async def stop(self) -> None:
        """No more calls."""
        self._stopped = True
        self._on_stop(self)

    def hear(self, subject: str, payload: bytes) -> None:
        """A message was published."""
        if not self._heard:
            self._loop.call_soon(self._tell)
        self._heard.append((subject, payload))

    def _tell(self) -> None:
        heard, self._heard = self._heard, deque()
        for subject, payload in heard:
            if self._stopped:
                return
            try:
                self._handler(subject, payload)
            except Exception as error:  # as over a network: a listener's trouble is never the publisher's
                self._loop.call_exception_handler({"message": f"listener on {subject} raised", "exception": error})
