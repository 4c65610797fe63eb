"""Slots of a task type: how many tasks are in hand, and how much credit may be given back."""

from __future__ import annotations


class Slots:
    """Counts. Messages in hand never exceed the slots, as credit is only given back for a slot that is free."""

    __slots__ = ("in_hand", "total")

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"at least one slot is needed, not {total}")
        self.total = total
        self.in_hand = 0

    def taken(self, count: int) -> None:
        """So many messages came."""
        self.in_hand += count

    def freed(self, count: int) -> int:
        """So many are done with; returns the credit to grant."""
        if count > self.in_hand:
            raise ValueError(f"{count} slots freed, {self.in_hand} in use")
        self.in_hand -= count
        return count
