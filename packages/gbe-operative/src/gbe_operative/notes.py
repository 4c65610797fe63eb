"""The note per task in the state store, written with compare-and-swap."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from gbe_jobs_domain.payloads import TaskNote, encode
from gbe_nexus import Conflict, NexusError, StateStore

log = logging.getLogger(__name__)

LIFE = 30 * 86_400.0
"""Seconds a note lives after it was last written. Longer than any back-off: only for those that nobody takes away. A
worker may die between its report and that; and nats-server (2.15), killed within minutes of a removal, comes back with
the note as it was one writing before."""

AFTERLIFE = 86_400.0
"""Seconds for which it is remembered of a task that must not run twice that it ran: until its end is recorded, a
delivery or a dispatch that comes once more would find neither a note nor an outcome."""

TRIES = 3
PAUSE = 0.2

_decode = msgspec.json.Decoder(TaskNote).decode


@dataclass(frozen=True, slots=True)
class Noted:
    """A note as it was read or written, and its revision (0: there is none)."""

    note: TaskNote | None = None
    revision: int = 0


class Notes:
    """Notes by task id."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def read(self, task_id: str) -> Noted:
        """The note as it is. One that can't be decoded counts as an empty one. Raises `NexusError`."""
        entry = await self._store.get(task_id)
        if entry is None:
            return Noted()
        try:
            return Noted(_decode(entry.value), entry.revision)
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.warning("the note of task %s can't be read; taken as empty", task_id)
            return Noted(TaskNote(), entry.revision)

    async def write(self, task_id: str, before: Noted, note: TaskNote) -> Noted:
        """Replace what was read. Raises `Conflict` where somebody else wrote meanwhile, or another `NexusError`."""
        value = encode(note)
        try:
            if before.revision:
                revision = await self._store.swap(task_id, value, before.revision, ttl=LIFE)
            else:
                revision = await self._store.create(task_id, value, ttl=LIFE)
        except Conflict:
            # A write whose answer got lost and that was repeated meets itself.
            entry = await self._store.get(task_id)
            if entry is None or entry.value != value or entry.revision <= before.revision:
                raise
            revision = entry.revision
        return Noted(note, revision)

    async def retire(self, task_id: str, noted: Noted) -> None:
        """The task is over and must not run again: keep a note of its start for a while. Best effort."""
        note = encode(noted.note or TaskNote(running=True))
        try:
            if noted.revision:
                await self._store.swap(task_id, note, noted.revision, ttl=AFTERLIFE)
            else:
                await self._store.create(task_id, note, ttl=AFTERLIFE)
        except NexusError as error:
            log.debug("the note of task %s stays for longer: %s", task_id, error)

    async def remove(self, task_id: str) -> None:
        """The task is over: forget it. What can't be removed is left, with a word in the log."""
        for number in range(TRIES):
            try:
                await self._store.delete(task_id)
                return
            except NexusError as error:
                if number == TRIES - 1 or not error.retryable:
                    log.warning("the note of task %s is left in the store: %s", task_id, error)
                    return
                await asyncio.sleep(PAUSE * (number + 1))
