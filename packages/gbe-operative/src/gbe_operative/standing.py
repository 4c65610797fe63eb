"""What a worker knows about the past: which messages were in the queue before it could hear of cancels, and which
cancels it heard."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable

from gbe_jobs_domain.payloads import TaskControl, TaskQueued
from gbe_nexus import Message

REMEMBERED_FOR = 3600.0
REMEMBERED = 10_000
"""Cancels remembered: seconds, and how many. One that is forgotten is found at the next renewal of the lease."""


class Standing:
    """The mark and the cancels.

    The mark is the queue's last sequence at a moment from which on control messages are heard. Messages at or below it
    may be unwanted without our knowing, so they are looked up in the journal before they start; so are those delivered
    before. Newer first deliveries start at once. In doubt (a connection that was lost, a loop that stood still) the
    mark is above everything until a new one is read.
    """

    def __init__(self, refresh: Callable[[], None]) -> None:
        self._refresh = refresh
        self._mark = sys.maxsize
        self._marked_at: float | None = None
        self._cancels: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()

    def doubt(self) -> None:
        """Something may have been missed: look everything up until there is a new mark."""
        already = self._marked_at is None
        self._mark = sys.maxsize
        self._marked_at = None
        if not already:
            self._refresh()

    def set_mark(self, last_seq: int, asked_at: float) -> None:
        """The queue's last sequence, and the loop time before it was asked for."""
        self._mark = last_seq
        self._marked_at = asked_at

    @property
    def in_doubt(self) -> bool:
        """Whether there is no mark."""
        return self._marked_at is None

    def is_new(self, seq: int) -> bool:
        """Whether the message came after the mark."""
        return seq > self._mark

    def as_of(self, message: Message) -> float:
        """From when on knowledge about this message is good enough.

        What was merely waiting when the mark was set: from then on, as later cancels are heard of. What was
        delivered before: only from now on, as somebody may have finished it.
        """
        if message.deliveries == 1 and self._marked_at is not None:
            return self._marked_at
        return asyncio.get_running_loop().time()

    # --- cancels ---

    def remember(self, control: TaskControl) -> None:
        """A cancel was heard."""
        now = asyncio.get_running_loop().time()
        reason = f"cancelled: {control.reason}" if control.reason else "cancelled"
        for task_id in control.task_ids or [""]:
            key = (control.job_id, task_id)
            self._cancels[key] = (now, reason)
            self._cancels.move_to_end(key)
        while self._cancels:
            key, (heard, _) = next(iter(self._cancels.items()))
            if len(self._cancels) <= REMEMBERED and now - heard <= REMEMBERED_FOR:
                break
            del self._cancels[key]

    def is_cancelled(self, task: TaskQueued) -> bool:
        """Whether a cancel of the task or its job was heard."""
        return bool(self._cancels) and self.cancel_reason(task) is not None

    def cancel_reason(self, task: TaskQueued) -> str | None:
        """Why it was cancelled; None where it was not."""
        found = self._cancels.get((task.job_id, "")) or self._cancels.get((task.job_id, task.task_id))
        return None if found is None else found[1]
