"""Records that lead to other records, and who waits for all of them."""

from __future__ import annotations

from gbe_oracle.slots import Acknowledgeable


class Joint:
    """Waiters of a record that leads to other records: a child's first one to its parent's, a queue message that is
    refused to the one that fails its task. Nobody else's message would bring those about again after a crash."""

    def __init__(self, waiters: list[Acknowledgeable]) -> None:
        self._waiters = waiters
        self.missing = 1
        """What is not durable yet: the record's own effects, and each of those records with its own."""

    def ack(self) -> None:
        self.missing -= 1
        if not self.missing:
            for waiter in self._waiters:
                waiter.ack()

    def nak(self, delay: float = 0.0) -> None:
        for waiter in self._waiters:
            waiter.nak(delay)

    def in_progress(self) -> None:
        for waiter in self._waiters:
            waiter.in_progress()
