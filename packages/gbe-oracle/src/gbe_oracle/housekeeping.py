"""What time drives: deadlines, and that no stream grows for ever (until the Watcher takes that over)."""

from __future__ import annotations

import asyncio
import logging

from gbe_jobs_domain import streams, subjects
from gbe_nexus import Journal, NotFound, Transport, now_ms
from gbe_oracle.core.events import DeadlinePassed
from gbe_oracle.engine import Engine
from gbe_oracle.heads import head_of
from gbe_oracle.leftovers import Leftovers
from gbe_oracle.unserved import Unserved

log = logging.getLogger("gbe.oracle")

PURGE_AT_ONCE = 64
STRAGGLER_AGE = 30.0
"""Seconds after which a journal that older live ones keep from being cut off is purged by itself."""
LIVE_AT_ONCE = 64
"""With more live journals than this, nothing is cut: finding the first needed record would cost a read for each."""
TRIM_EVERY = 2.0
SWEEP_EVERY = 60.0
LEFTOVERS_EVERY = 600.0
LOOK_AGAIN = 2.0
"""Seconds after which a job that was decided and not ended is looked at again."""
TOMBSTONE_AGE = 3600.0
"""Seconds a cancel waits for its submit."""
FULL = 0.8
"""Share of a limit from which new jobs are refused; work under way keeps the rest."""


class Housekeeping:
    """Called by the Oracle's tick. Every step may be done by several Oracles at once, or twice."""

    def __init__(
        self,
        transport: Transport,
        engine: Engine,
        journal: Journal,
        history: Journal,
        leftovers: Leftovers,
        unserved: Unserved,
        *,
        purge_after: float,
        leftovers_every: float = LEFTOVERS_EVERY,
        unserved_every: float = SWEEP_EVERY,
    ) -> None:
        self._transport = transport
        self._engine = engine
        self._journal = journal
        self._history = history
        self._leftovers = leftovers
        self._unserved = unserved
        self._leftovers_every = leftovers_every
        self._next_leftovers = 0.0
        # Readers that are a little behind are to find one of the two, journal or history.
        self._purge_after = purge_after
        self._next_trim = 0.0
        self._next_sweep = 0.0
        self._next_unserved = 0.0
        self._unserved_every = unserved_every
        self._tombstones: dict[str, float] = {}
        self._deadlines: dict[str, tuple[int, str]] = {}
        self._begun: set[str] = set()
        self._decided: set[str] = set()
        self._firsts: dict[str, int] = {}

    async def tick(self) -> None:
        """One round. Raises `NexusError`; the next round goes on where this one ended."""
        now = asyncio.get_running_loop().time()
        self._expire()
        await self._purge(now)
        if now >= self._next_trim:
            self._next_trim = now + TRIM_EVERY
            await self._trim()
            await self._watch_limits()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_EVERY
            await self._sweep(now)
        if now >= self._next_unserved:
            self._next_unserved = now + self._unserved_every
            await self._unserved.sweep()
        if now >= self._next_leftovers:
            self._next_leftovers = now + self._leftovers_every
            await self._leftovers.sweep(now)

    def _expire(self) -> None:
        now = now_ms()
        due = [*self._engine.deadlines()]
        due.extend((at, job_type, job_id) for job_id, (at, job_type) in self._deadlines.items())
        for deadline, job_type, job_id in due:
            if deadline <= now:
                self._deadlines.pop(job_id, None)
                self._engine.add(job_type, job_id, DeadlinePassed("the job's time is over"), _Unheard())

    async def _purge(self, now: float) -> None:
        """Journals of jobs that are in the history.

        Purging a subject costs the server as much as running half of a small job, and rewrites much of a large one's
        records. So the stream is cut below the first record that is still needed, and only what that leaves for long
        is purged one by one.
        """
        due = [subject for since, subject in self._engine.purgeable if since + self._purge_after <= now]
        if due:
            gone = await self._cut(set(due))
            self._engine.purgeable[:] = [item for item in self._engine.purgeable if item[1] not in gone]
            due = [subject for since, subject in self._engine.purgeable if since + STRAGGLER_AGE <= now]
        for start in range(0, len(due), PURGE_AT_ONCE):
            await asyncio.gather(*(self._journal.purge(subject) for subject in due[start : start + PURGE_AT_ONCE]))
        done = set(due)
        self._engine.purgeable[:] = [item for item in self._engine.purgeable if item[1] not in done]

    async def _cut(self, ended: set[str]) -> set[str]:
        """Cut the journal stream as far as only these jobs have records there; returns those that have none left."""
        # In this order: whatever has a record at or below `last` is among the subjects then.
        last = (await self._transport.stream_state(streams.JOURNAL)).last_seq
        left = await self._journal.subjects("gbe.journal.>")
        live = [subject for subject in left if subject not in ended]
        if len(live) > LIVE_AT_ONCE:
            return ended - left.keys()
        firsts: dict[str, int] = {}
        for subject in live:
            first = self._firsts.get(subject) or await self._first(subject)
            if first is not None:  # else it was purged meanwhile
                firsts[subject] = first
        self._firsts = firsts
        await self._transport.trim(streams.JOURNAL, min([last + 1, *firsts.values()]))
        return ended - (await self._journal.subjects("gbe.journal.>")).keys()

    async def _first(self, subject: str) -> int | None:
        async for entry in self._journal.replay(subject):
            return entry.seq
        return None

    async def _trim(self) -> None:
        """What all Oracles together have acknowledged."""
        try:
            state = await self._transport.consumer_state(streams.INBOX, subjects.ORACLE_CONSUMER)
        except NotFound:
            return
        if state.ack_floor:
            await self._transport.trim(streams.INBOX, state.ack_floor + 1)

    async def _watch_limits(self) -> None:
        reason = None
        for name in streams.WORK_STREAMS:
            state = await self._transport.stream_state(name)
            if state.fullness >= FULL:
                reason = f"stream {name} is {state.fullness:.0%} full: no new jobs until it is below {FULL:.0%}"
        if reason != self._engine.refusing:
            log.warning("%s", reason or "new jobs are taken again")
            self._engine.refusing = reason

    async def _sweep(self, now: float) -> None:
        """Journals that a dead Oracle left: purge those in the history, heed deadlines, end what was decided, drop old
        tombstones. And jobs that this Oracle holds although another has ended them.

        A job under way needs nothing: its reports come to whichever Oracle works.
        """
        quiet = self._engine.quiet()
        left = await self._journal.subjects("gbe.journal.>")
        by_history = {}
        for subject in left:
            _, _, job_type, job_id = subject.split(".")
            by_history[subjects.history(job_type, job_id)] = subject
        finished = await self._history.last_many(list(by_history))
        known = {subject for _, subject in self._engine.purgeable}
        self._engine.purgeable.extend(
            (now, by_history[subject]) for subject in finished if by_history[subject] not in known
        )
        self._engine.let_go(slot for subject, slot in quiet.items() if subject not in left)
        self._begun &= left.keys()
        jobs = {subject.rsplit(".", 1)[1] for subject in left}
        self._deadlines = {job_id: due for job_id, due in self._deadlines.items() if job_id in jobs}
        unfinished = [subject for history, subject in by_history.items() if history not in finished]
        for subject in unfinished:
            if subject not in self._begun:
                await self._look(subject, now)
        await self._end_decided(unfinished)
        if self._decided:
            self._next_sweep = now + LOOK_AGAIN

    async def _end_decided(self, unfinished: list[str]) -> None:
        """Jobs whose final record nobody's message leads to, should its writer have died before its effects."""
        found = await self._journal.last_many(unfinished)
        decided = {subject for subject, entry in found.items() if (head := head_of(entry)) and head.final}
        for subject in decided & self._decided:  # seen twice: it is not just ending
            _, _, job_type, job_id = subject.split(".")
            # Of a decided job an event changes nothing; but it is not answered before the final effects are out.
            self._engine.add(job_type, job_id, DeadlinePassed("the job is over"), _Unheard())
        self._decided = decided

    async def _look(self, subject: str, now: float) -> None:
        async for entry in self._journal.replay(subject):
            _, _, job_type, job_id = subject.split(".")
            record = head_of(entry)
            if record is None:
                return
            if record.created is not None:
                self._begun.add(subject)
                self._tombstones.pop(subject, None)
                if record.created.deadline_at and job_id not in self._deadlines:
                    self._deadlines[job_id] = (record.created.deadline_at, job_type)
                return
            first_seen = self._tombstones.setdefault(subject, now)
            if now - first_seen > TOMBSTONE_AGE:
                await self._journal.purge(subject)
                del self._tombstones[subject]


class _Unheard:
    """Nobody waits for the event of a clock."""

    def ack(self) -> None: ...
    def nak(self, delay: float = 0.0) -> None: ...
    def in_progress(self) -> None: ...
