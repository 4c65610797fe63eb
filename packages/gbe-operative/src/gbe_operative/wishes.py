"""Asking the journal whether tasks are still wanted: one reading per job for all who ask at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from gbe_jobs_domain import ids, subjects
from gbe_jobs_domain.payloads import TaskQueued
from gbe_nexus import Journal, PayloadDecoder, UndecodableMessage, UnknownVersion
from gbe_operative.core.wish import JobView, RecordHead

log = logging.getLogger(__name__)

MAX_VIEWS = 500
"""Jobs remembered. One that was forgotten is read again from the record that dispatched the task."""

_decode = PayloadDecoder(RecordHead).decode


class Wishes:
    """Views of jobs' journals, kept up to date by reading on."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._views: OrderedDict[str, JobView] = OrderedDict()
        self._readings: dict[str, asyncio.Future[None]] = {}

    async def wanted(self, task: TaskQueued, as_of: float) -> bool:
        """Whether the task was open and its job alive at `as_of` (loop time) or later. Raises `NexusError`."""
        job_id = task.job_id
        since = max(0, task.journal_seq - 1)
        while True:
            view = self._views.get(job_id)
            if view is not None and view.since <= since and view.read_at >= as_of:
                return view.wants(ids.task_index(job_id, task.task_id))
            reading = self._readings.get(job_id)
            if reading is None:
                await self._read(task, since)
            else:
                await asyncio.wait({reading})

    async def _read(self, task: TaskQueued, since: int) -> None:
        """Read on, or from `since` where that is further back. An error is this caller's; others try again."""
        loop = asyncio.get_running_loop()
        reading = self._readings[task.job_id] = loop.create_future()
        try:
            view = self._views.get(task.job_id)
            if view is None or view.since > since:
                view = JobView(since)
            began = loop.time()
            await self._catch_up(task, view)
            view.read_at = began
            self._views[task.job_id] = view
            self._views.move_to_end(task.job_id)
            while len(self._views) > MAX_VIEWS:
                self._views.popitem(last=False)
        finally:
            del self._readings[task.job_id]
            reading.set_result(None)

    async def _catch_up(self, task: TaskQueued, view: JobView) -> None:
        subject = subjects.journal(task.job_type, task.job_id)
        empty = True
        async for entry in self._journal.replay(subject, view.last_seq):
            empty = False
            try:
                view.apply(entry.seq, _decode(entry.payload).data)
            except (UndecodableMessage, UnknownVersion) as error:
                # Somebody newer writes this job. Running what is not wanted does no harm but the work.
                log.info("record %d of %s can't be read here: %s", entry.seq, task.job_id, error)
                view.last_seq = entry.seq
        # Nothing new, or nothing left? Once the history is written, the journal is purged, the last record with it.
        if empty and await self._journal.last(subject) is None:
            view.over = True
