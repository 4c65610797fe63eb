"""What the driver keeps per job beside the core's state: waiting events, records whose effects are under way."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Protocol

from msgspec import Raw

from gbe_jobs_domain import subjects
from gbe_jobs_domain.records import JournalRecord, OutcomeRecord
from gbe_nexus import Outgoing
from gbe_oracle.core.events import JobEvent, Submitted
from gbe_oracle.core.job import Job

FEW = 1000
"""So many tasks may have their summaries in the history message itself; and their outcomes are kept up to a larger
limit, for theirs is a history worth not reading again."""


class Acknowledgeable(Protocol):
    """A bus message, or whoever else waits for an event to be durable with its effects out."""

    def ack(self) -> None: ...
    def nak(self, delay: float = 0.0) -> None: ...
    def in_progress(self) -> None: ...


class Item:
    """An event and who waits for it. `size`: about how many bytes it adds to a record."""

    __slots__ = ("deliveries", "early", "event", "message", "size")

    def __init__(self, event: JobEvent | Submitted, message: Acknowledgeable, size: int, deliveries: int = 1) -> None:
        self.event = event
        self.message = message
        self.size = size
        self.deliveries = deliveries
        self.early = False


class Slot:
    """One live job in this Oracle."""

    __slots__ = (
        "busy",
        "created_at_seq",
        "dirty",
        "edges",
        "ending",
        "final_seq",
        "inbox",
        "inflight",
        "job",
        "job_id",
        "job_type",
        "key",
        "outcome_bytes",
        "outcomes",
        "settled",
        "subject",
        "whole",
    )

    def __init__(self, job_type: str, job_id: str, key: str = "") -> None:
        self.key = key or job_id
        self.job_type = job_type
        self.job_id = job_id
        self.subject = subjects.journal(job_type, job_id)
        self.job: Job | None = None
        self.inbox: deque[Item] = deque()
        self.busy = False
        """A commit or a load is under way: one job's commits are strictly serial."""
        self.dirty = False
        self.settled: set[int] = set()
        """Records whose effects are known to be out."""
        self.inflight: dict[int, list[Acknowledgeable]] = {}
        """Records whose effects are on their way, with who waits for them."""
        self.ending: Entry | None = None
        """The final record's entry, whose effects are out but for the history."""
        self.created_at_seq = 0
        self.final_seq = 0
        self.outcomes: dict[int, OutcomeRecord] = {}
        self.outcome_bytes = 0
        self.whole = True
        """Whether `outcomes` has every outcome of the journal (none was evicted)."""
        self.edges: dict[int, Raw] = {}

    def take(self, limit: int) -> list[Item]:
        """The waiting items that fit into one record of `limit` bytes; at least one."""
        inbox = self.inbox
        total = 0
        taken: list[Item] = []
        while inbox and (not taken or total + inbox[0].size <= limit):
            item = inbox.popleft()
            total += item.size
            taken.append(item)
        return taken


class OutcomeCache:
    """Outcomes in memory, in all slots together at most `limit` bytes. What is not kept is read from the journal.

    Of a small job all are kept, for its history; of one whose outcomes pass `whole` bytes only those that dependents
    read, so that a wide job costs no more than its counters.
    """

    _OVERHEAD = 240  # a record's objects, as measured with 64-bit CPython
    whole = 256 << 10
    whole_of_few = 8 << 20

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0

    def remember(self, slot: Slot, record: JournalRecord) -> None:
        """Keep the record's outcomes; the slot's own oldest ones go first when there is no room."""
        assert slot.job is not None
        read = slot.job.graph.read
        for outcome in record.outcomes:
            if not slot.whole and not read[outcome.index]:
                continue
            size = self._size(outcome)
            slot.outcomes[outcome.index] = outcome
            slot.outcome_bytes += size
            self._total += size
        if slot.whole and slot.outcome_bytes > (self.whole_of_few if len(read) <= FEW else self.whole):
            slot.whole = False
            for index in [index for index in slot.outcomes if not read[index]]:
                self._drop(slot, index)
        while self._total > self._limit and slot.outcomes:
            slot.whole = False
            self._drop(slot, next(iter(slot.outcomes)))

    def _drop(self, slot: Slot, index: int) -> None:
        size = self._size(slot.outcomes.pop(index))
        slot.outcome_bytes -= size
        self._total -= size

    def _size(self, outcome: OutcomeRecord) -> int:
        return memoryview(outcome.outcome).nbytes + self._OVERHEAD

    def forget(self, slot: Slot) -> None:
        """The slot's outcomes are no longer needed."""
        self._total -= slot.outcome_bytes
        slot.outcomes = {}
        slot.outcome_bytes = 0
        slot.whole = False


class Recent:
    """The last jobs that ended here: a late message about them needs no reading."""

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._jobs: OrderedDict[str, str] = OrderedDict()

    def add(self, job_id: str, sha256: str) -> None:
        self._jobs[job_id] = sha256
        if len(self._jobs) > self._limit:
            self._jobs.popitem(last=False)

    def sha256(self, job_id: str) -> str | None:
        """Of its definition; None for a job that is not among them."""
        return self._jobs.get(job_id)


class Entry:
    """One job's share of a commit: the record, what it was expected to follow, and who waits for it."""

    __slots__ = ("applied", "expected", "job", "record", "seq", "slot")

    def __init__(self, slot: Slot, job: Job | None, record: JournalRecord, expected: int, applied: list[Item]) -> None:
        self.slot = slot
        self.job = job
        self.record = record
        self.expected = expected
        self.applied = applied
        self.seq = 0


class Commit:
    """Records of different jobs on their way together: first the appends, then all their effects."""

    __slots__ = ("entries", "outgoing")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.outgoing: list[Outgoing] = []

    def held(self) -> Iterator[Acknowledgeable]:
        """Everything that waits for this commit."""
        for entry in self.entries:
            for item in entry.applied:
                yield item.message
            yield from entry.slot.inflight.get(entry.seq, ())
