"""`MemoryMessage`: one delivery of one stored message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gbe_nexus import dead_letter_subject, encode_payload, make_dead_letter

if TYPE_CHECKING:
    from gbe_nexus_memory.consumer import Lease, MemorySubscription
    from gbe_nexus_memory.stream import Stored


class MemoryMessage:
    """What a handler gets. Without a lease (observers) there is nothing to acknowledge and settling says nothing."""

    __slots__ = ("_lease", "_subscription", "deliveries", "headers", "payload", "seq", "settled", "subject")

    def __init__(self, stored: Stored, lease: Lease | None, subscription: MemorySubscription) -> None:
        self.subject = stored.subject
        self.payload = stored.payload
        self.headers = stored.headers
        self.seq = stored.seq
        self.deliveries = 1 if lease is None else lease.deliveries
        self.settled = False
        self._lease = lease
        self._subscription = subscription

    def __repr__(self) -> str:
        return f"<message {self.seq} on {self.subject}, delivery {self.deliveries}>"

    def ack(self) -> None:
        """Done: never deliver it again (to this group)."""
        if not self.settled:
            self.settled = True
            if self._lease is not None and not self._subscription.cut_off:
                self._subscription.group.settle(self._lease)

    def nak(self, delay: float = 0.0) -> None:
        """Not done: deliver it again, not before `delay` seconds."""
        if not self.settled:
            self.settled = True
            if self._current:
                self._subscription.group.give_back(self._lease, delay)

    def in_progress(self) -> None:
        """Still at it: the ack wait starts anew."""
        if not self.settled and self._current:
            self._subscription.group.renew(self._lease)

    def term(self) -> None:
        """Never deliver it again, without having done it."""
        self.ack()

    async def dead_letter(self, reason: str) -> None:
        """Store it under `gbe._deadletter.{domain}` with the reason, then `term` it."""
        if self.settled:
            return
        stream = self._subscription.group.stream.spec.name
        letter = make_dead_letter(self.subject, stream, self.seq, reason, dict(self.headers), self.payload)
        event_id = f"{stream}:{self.seq}:dead"
        self.settled = True  # of two calls at once the first counts
        try:
            await self._subscription.owner.publish(
                dead_letter_subject(self.subject), encode_payload(event_id, letter), msg_id=event_id
            )
        except BaseException:
            self.settled = False
            raise
        self.settled = False
        self.term()

    @property
    def _current(self) -> bool:
        """Whether the lease is still this delivery's: a late nak must not take the message from its next holder."""
        return self._lease is not None and not self._subscription.cut_off and self._lease.deliveries == self.deliveries
