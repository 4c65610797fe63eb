"""Queue messages of jobs that are over, of task types that nobody serves: an Operative would drop them, but none comes.

They would stay, and count towards the limit of the stream from which on new jobs are refused.
"""

from __future__ import annotations

import logging

from msgspec import Struct

from gbe_jobs_domain import streams, subjects
from gbe_nexus import Journal, NotFound, PayloadDecoder, Transport, UndecodableMessage, UnknownVersion
from gbe_oracle.heads import head_of

log = logging.getLogger("gbe.oracle")

MESSAGES_AT_ONCE = 1_000
"""Messages looked at in one round, of all types together."""


class _TaskHead(Struct, frozen=True):
    """A queue message, as far as it says whose it is."""

    job_id: str
    job_type: str


_task = PayloadDecoder(_TaskHead)


class Unserved:
    """Looks for them and deletes them, some at each call. Several Oracles may do so at once."""

    def __init__(self, transport: Transport, queue: Journal, journal: Journal) -> None:
        self._transport = transport
        self._queue = queue
        self._journal = journal
        self._after: dict[str, int] = {}
        """Per subject how far it was looked through; what is left of it is looked at again from the beginning."""

    async def sweep(self) -> int:
        """One round; returns how many were deleted. Raises `NexusError`."""
        waiting = await self._queue.subjects("gbe.tasks.*.queue")
        self._after = {subject: seq for subject, seq in self._after.items() if subject in waiting}
        room, deleted = MESSAGES_AT_ONCE, 0
        over: dict[str, bool] = {}
        for subject in sorted(waiting):
            if room <= 0:
                break
            if await self._served(subject.split(".")[2]):
                continue
            ended: list[int] = []
            last = 0
            async for entry in self._queue.replay(subject, self._after.get(subject, 0)):
                last = entry.seq
                room -= 1
                if await self._over(entry.payload, over):
                    ended.append(entry.seq)
                if room <= 0:
                    break
            self._after[subject] = last if room <= 0 else 0
            for seq in ended:
                await self._queue.erase(seq)
            deleted += len(ended)
        if deleted:
            log.info("deleted %d queued tasks of jobs that are over, which nobody serves", deleted)
        return deleted

    async def _served(self, task_type: str) -> bool:
        """Whether somebody waits for tasks of this type, or has some in hand."""
        try:
            state = await self._transport.consumer_state(streams.QUEUE, subjects.operative_consumer(task_type))
        except NotFound:
            return False
        return bool(state.waiting or state.ack_pending)

    async def _over(self, payload: bytes, known: dict[str, bool]) -> bool:
        """Whether nobody wants the task any more. What can't be read is left to the Operatives, which say so."""
        try:
            task = _task.decode(payload).data
        except (UndecodableMessage, UnknownVersion):
            return False
        found = known.get(task.job_id)
        if found is None:
            # Tasks are queued after their job's record is stored, so a job without a journal is in the history.
            entry = await self._journal.last(subjects.journal(task.job_type, task.job_id))
            head = None if entry is None else head_of(entry)
            found = known[task.job_id] = entry is None or (head is not None and head.final is not None)
        return found
