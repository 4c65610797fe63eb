"""Artifacts that nobody needs any more: a job's go with its history, and what that doesn't refer to goes before."""

from __future__ import annotations

import logging
import re
from collections import defaultdict

from msgspec import DecodeError, json

from gbe_jobs_domain import subjects
from gbe_jobs_domain.ids import JOB_ID, ulid_time
from gbe_jobs_domain.records import ParentRecord
from gbe_nexus import ArtifactStore, IntegrityError, Journal, NotFound, PayloadTooLarge, now_ms
from gbe_oracle.unreferenced import Unreferenced

log = logging.getLogger("gbe.oracle")

PATIENCE = 3600.0
"""Seconds a job must have been unknown: its submit may still be on the way, with its definition stored already."""
AT_ONCE = 200
"""Jobs looked up in one sweep."""

GENERATIONS = 64
"""Parents of parents that are asked for."""

TIDY_AFTER = 600.0
"""Seconds after its end for which a job keeps what its history doesn't refer to: its attempts may still clean up."""
ABANDONED_EVERY = 6 * 3600.0
ABANDONED_AGE = 24 * 3600.0
"""Seconds since its last byte after which a put is taken to be over: its process is dead."""

_parent = json.Decoder(ParentRecord).decode
_ULID = re.compile(r"job_[0-9A-HJKMNP-TV-Z]{26}\Z")


class Leftovers:
    """Finds and deletes them, some at each call. Several Oracles may do so at once."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        journal: Journal,
        history: Journal,
        *,
        history_age: float,
        tidy_after: float = TIDY_AFTER,
    ) -> None:
        self._artifacts = artifacts
        self._journal = journal
        self._history = history
        self._history_age = history_age
        self._unknown_since: dict[str, float] = {}
        self._remembered_at: dict[str, float] = {}
        self._unreferenced = Unreferenced(artifacts, history, after=tidy_after)
        self._next_abandoned = 0.0

    async def sweep(self, now: float) -> int:
        """One round at loop time `now`; returns how many jobs' artifacts were deleted. Raises `NexusError`."""
        owners: defaultdict[str, list[str]] = defaultdict(list)
        for key in await self._artifacts.keys():
            owners[key.split("/", 1)[0]].append(key)
        self._unknown_since = {job: since for job, since in self._unknown_since.items() if job in owners}
        deleted = 0
        self._remembered_at = {job: at for job, at in self._remembered_at.items() if job in owners}
        suspects = [job for job in owners if JOB_ID.match(job) and self._may_be_forgotten(job)]
        # Those known to be unknown first, then the others in turn: each costs two reads.
        suspects.sort(key=lambda job: (job not in self._unknown_since, self._remembered_at.get(job, -1.0), job))
        for job in suspects[:AT_ONCE]:
            if await self._remembered(job) or await self._remembered_by_parent(job):
                self._unknown_since.pop(job, None)
                self._remembered_at[job] = now
            elif now - self._unknown_since.setdefault(job, now) >= PATIENCE:
                await self._artifacts.delete_prefix(job + "/")
                del self._unknown_since[job]
                deleted += 1
                del owners[job]
        await self._unreferenced.sweep({job: keys for job, keys in owners.items() if JOB_ID.match(job)})
        if now >= self._next_abandoned:
            self._next_abandoned = now + ABANDONED_EVERY
            if count := await self._artifacts.discard_abandoned(ABANDONED_AGE):
                log.info("deleted what %d puts left that came to no end", count)
        if deleted:
            log.info("deleted the artifacts of %d jobs that are no longer in the history", deleted)
        return deleted

    def _may_be_forgotten(self, job_id: str) -> bool:
        """Whether it is worth asking: an id of our own making tells its age."""
        if not _ULID.match(job_id):
            return True
        return now_ms() - ulid_time(job_id[4:]) > self._history_age * 1000

    async def _remembered_by_parent(self, job_id: str) -> bool:
        """Whether a job that was handed references to this one's artifacts is remembered."""
        for _ in range(GENERATIONS):
            try:
                parent = _parent(await self._artifacts.read(subjects.parent_key(job_id), limit=4096)).job_id
            except (NotFound, IntegrityError, PayloadTooLarge, DecodeError):
                return False
            if await self._remembered(parent):
                return True
            job_id = parent
        return False

    async def _remembered(self, job_id: str) -> bool:
        return (
            await self._journal.last(subjects.journal("*", job_id)) is not None
            or await self._history.last(subjects.history("*", job_id)) is not None
        )
