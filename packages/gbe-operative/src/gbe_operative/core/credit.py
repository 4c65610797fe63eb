"""Slots of a task type: how many tasks are in hand, and how much credit may be given back."""

from __future__ import annotations


class Slots:
    """Counts. No more tasks run than there are slots, as credit is only given back for a slot that is free.

    A slot is free when its task has ended, even if the report of that end is still under way: nothing is waited for
    in between. As many ends as there are slots may be under way like that; so messages in hand are at most twice the
    slots, also where reports take for ever.
    """

    __slots__ = ("in_hand", "reporting", "total")

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"at least one slot is needed, not {total}")
        self.total = total
        self.in_hand = 0
        """Slots in use."""
        self.reporting = 0
        """Tasks whose slots are free again, and whose reports are under way."""

    def taken(self, count: int) -> None:
        """So many messages came."""
        self.in_hand += count

    def ended(self, count: int) -> int:
        """So many ended and are being reported; returns the credit to grant now: all or nothing."""
        if self.reporting + count > self.total:
            return 0
        self.reporting += count
        return self.freed(count)

    def reported(self, count: int) -> None:
        """So many that were freed by `ended` are done with."""
        self.reporting -= count

    def freed(self, count: int) -> int:
        """So many are done with; returns the credit to grant."""
        if count > self.in_hand:
            raise ValueError(f"{count} slots freed, {self.in_hand} in use")
        self.in_hand -= count
        return count
