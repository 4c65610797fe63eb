"""Plain subscriptions: what is published from now on, without acks or replay."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gbe_nexus.transport import Subscription
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.parser import Delivery
from gbe_nexus_nats.wire import subject_pattern

logger = logging.getLogger("gbe.nexus.nats")


class ListenSubscription(Subscription):
    """Calls `handler(subject, payload)` for every message; restored by the client after a reconnect."""

    def __init__(
        self,
        client: FastClient,
        subjects: Sequence[str],
        handler: Callable[[str, bytes], None],
        forget: Callable[[Subscription], None],
    ) -> None:
        self._client = client
        self._handler = handler
        self._forget = forget
        self._stopped = False
        encoded = [subject_pattern(subject) for subject in subjects]
        self._sinks = [client.attach(subject, self._arrived) for subject in encoded]

    @property
    def ack_wait(self) -> float:
        return 0.0

    def grant(self, credit: int) -> None:
        raise ValueError("a plain subscription has no credit")

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._forget(self)
            for sink in self._sinks:
                self._client.detach(sink)

    def _arrived(self, batch: list[Delivery]) -> None:
        for subject, _, _, payload in batch:
            if self._stopped:
                return
            try:
                self._handler(subject.decode("utf-8", "replace"), payload)
            except Exception:  # it broke its word not to raise; the rest of the batch is still to be heard
                logger.exception("the handler of a subscription failed on %r", subject)
