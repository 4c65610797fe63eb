"""`MemoryMessage`: one delivery of one stored message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gbe_nexus import PayloadTooLarge, dead_letter_subject, encode_payload, make_dead_letter

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
        self.settled = True  # of two calls at once the first counts
        try:
            await self._store_dead_letter(reason)
        except BaseException:
            self.settled = False
            raise
        if self._lease is not None and not self._subscription.cut_off:
            self._subscription.group.settle(self._lease)

    async def _store_dead_letter(self, reason: str) -> None:
        stream = self._subscription.group.stream.spec.name
        event_id = f"{stream}:{self.seq}:dead"
        subject = dead_letter_subject(self.subject)
        letter = make_dead_letter(self.subject, stream, self.seq, reason, dict(self.headers), self.payload)
        publish = self._subscription.owner.publish
        try:
            await publish(subject, encode_payload(event_id, letter), msg_id=event_id)
        except PayloadTooLarge:
            # A letter without the body beats a message that comes back for ever.
            note = f"{reason} (its payload of {len(self.payload)} bytes does not fit into a dead letter)"
            letter = make_dead_letter(self.subject, stream, self.seq, note, dict(self.headers), b"")
            await publish(subject, encode_payload(event_id, letter), msg_id=event_id)

    @property
    def _current(self) -> bool:
        """Whether the lease is still this delivery's: a late nak must not take the message from its next holder."""
        return self._lease is not None and not self._subscription.cut_off and self._lease.deliveries == self.deliveries
