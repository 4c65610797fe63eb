"""Artifacts of ended jobs that their history does not refer to: of attempts that were cancelled, killed, or reported
when nobody wanted that any more, and copies that were made for params and queue messages.

Only what attempts and the Oracle store by themselves is looked at (`{job_id}/{task_id}/{attempt}/…`,
`{job_id}/{task_id}/inputs/…`, `{job_id}/edges/…`). What is put elsewhere under a job's id is meant to be found by its
key, and stays as long as the history does.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

from gbe_jobs_domain import subjects
from gbe_jobs_domain.payloads import JobSummary
from gbe_nexus import (
    ArtifactStore,
    IntegrityError,
    Journal,
    NotFound,
    PayloadDecoder,
    PayloadTooLarge,
    UndecodableMessage,
    UnknownVersion,
    now_ms,
)

log = logging.getLogger("gbe.oracle")

JOBS_AT_ONCE = 200
"""Jobs looked at in one round."""
SCANNED = 16 << 20
"""Bytes of the largest artifact that is looked through for references. Where a larger one is referred to, all stay."""

_PASSING = re.compile(r"[^/]+/(?:task_[^/]+/(?:[0-9.]+|inputs)/|edges/)")
_PLAIN = re.compile(r"[A-Za-z0-9._/-]+\Z")
_summary = PayloadDecoder(JobSummary)


class Unreferenced:
    """Finds and deletes them, each job once unless more comes. Several Oracles may do so at once."""

    def __init__(self, artifacts: ArtifactStore, history: Journal, *, after: float) -> None:
        self._artifacts = artifacts
        self._history = history
        self._after = after
        self._seen: dict[str, frozenset[str]] = {}
        """Jobs that were looked at, and what was left of them."""
        self._turn: dict[str, int] = {}
        self._round = 0

    async def sweep(self, owned: Mapping[str, Iterable[str]]) -> int:
        """One round: `owned` has the keys by job. Returns how many were deleted. Raises `NexusError`."""
        self._round += 1
        passing = {
            job: keys
            for job, all_keys in owned.items()
            if (keys := frozenset(key for key in all_keys if _PASSING.match(key) and _PLAIN.match(key)))
        }
        self._seen = {job: keys for job, keys in self._seen.items() if job in passing}
        self._turn = {job: turn for job, turn in self._turn.items() if job in passing}
        open_ones = [job for job, keys in passing.items() if self._seen.get(job) != keys]
        open_ones.sort(key=lambda job: (self._turn.get(job, 0), job))
        deleted = 0
        for job in open_ones[:JOBS_AT_ONCE]:
            self._turn[job] = self._round
            referred = await self._referred(job, passing[job], owned[job])
            if referred is None:
                continue
            for key in sorted(passing[job] - referred):
                await self._artifacts.delete(key)
                deleted += 1
            self._seen[job] = passing[job] & referred
        if deleted:
            log.info("deleted %d artifacts that no history refers to", deleted)
        return deleted

    async def _referred(self, job: str, passing: frozenset[str], all_keys: Iterable[str]) -> frozenset[str] | None:
        """Those the history refers to, directly or from within what it refers to; None where it is too early."""
        entry = await self._history.last(subjects.history("*", job))
        if entry is None:
            return None
        try:
            summary = _summary.decode(entry.payload).data
        except (UndecodableMessage, UnknownVersion):
            return None
        if summary.ended_at + self._after * 1000 > now_ms():
            return None  # what was running may still be cleaning up
        names = frozenset(all_keys)
        pattern = re.compile(re.escape(job).encode() + rb"/[A-Za-z0-9._/-]+")
        found: set[str] = set()
        todo = _keys_in(pattern, bytes(entry.payload), names)
        while todo and not passing <= found:
            key = todo.pop()
            found.add(key)
            text = await self._text_of(key)
            if text is None:
                return passing
            todo |= _keys_in(pattern, text, names) - found
        return passing & (found | todo)

    async def _text_of(self, key: str) -> bytes | None:
        """What may refer to others; None where that can't be looked through."""
        info = await self._artifacts.info(key)
        if info is None or not (info.media_type == "application/json" or info.media_type.startswith("text/")):
            return b""
        try:
            return await self._artifacts.read(key, limit=SCANNED)
        except PayloadTooLarge:
            return None
        except (NotFound, IntegrityError):
            return b""


def _keys_in(pattern: re.Pattern[bytes], text: bytes, names: frozenset[str]) -> set[str]:
    found = {match.group().decode() for match in pattern.finditer(text)}
    # At the end of a sentence a reference has a full stop.
    return {key for name in found for key in (name, name.rstrip("./-")) if key in names}
