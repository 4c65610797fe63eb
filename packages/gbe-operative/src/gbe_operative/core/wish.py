"""Whether a task is still wanted, read from the journal of its job."""

from __future__ import annotations

from msgspec import Struct


class OutcomeHead(Struct, frozen=True, array_like=True, gc=False):
    """`OutcomeRecord` without the outcome, which may be large: array elements that follow are ignored."""

    index: int


class FinalHead(Struct, frozen=True):
    """That there is a `FinalRecord`."""


class RecordHead(Struct, frozen=True):
    """`JournalRecord` as far as it answers the question. Whatever cancels queued tasks comes with a `final`."""

    outcomes: list[OutcomeHead] = []
    cancel: str | None = None
    final: FinalHead | None = None


class JobView:
    """What the journal says about the tasks of one job, from the record `since` on."""

    __slots__ = ("_ended", "last_seq", "over", "read_at", "since")

    def __init__(self, since: int) -> None:
        self.since = since
        self.last_seq = since
        self.read_at = float("-inf")
        """When the last reading began (the reader's clock)."""
        self.over = False
        self._ended = bytearray()  # a byte per task: many jobs of many tasks are remembered

    def apply(self, seq: int, record: RecordHead) -> None:
        """One more record."""
        self.last_seq = max(self.last_seq, seq)
        for outcome in record.outcomes:
            if outcome.index >= len(self._ended):
                self._ended.extend(bytes(outcome.index + 1 - len(self._ended)))
            self._ended[outcome.index] = 1
        if record.cancel is not None or record.final is not None:
            self.over = True

    def wants(self, index: int | None) -> bool:
        """Whether the task with that index is open and its job lives."""
        if self.over:
            return False
        return index is None or index >= len(self._ended) or not self._ended[index]
