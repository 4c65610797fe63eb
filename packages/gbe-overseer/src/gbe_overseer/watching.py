"""`JobWatch`: one job, followed to its end.

What is heard on the bus only says "look again" (messages may be lost while the connection is away); what is believed
is the journal and the history, read again after each such word, after each reconnect, and every few seconds anyway.
So a watcher never waits for a message that was lost. Progress messages are shown as they are heard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from gbe_jobs_domain import subjects
from gbe_jobs_domain.payloads import TaskProgress
from gbe_jobs_domain.states import JobState, TaskState
from gbe_jobs_domain.streams import JOURNAL, PROGRESS
from gbe_nexus import NexusError, NotFound, Subscription, Unavailable, UndecodableMessage, UnknownVersion
from gbe_overseer import records
from gbe_overseer.errors import NoEcumene
from gbe_overseer.view import Change, JobChanged, JobView, TaskChanged, TaskNoted, TaskView, TaskWrote

if TYPE_CHECKING:
    from gbe_overseer.client import JobClient

log = logging.getLogger(__name__)

RESYNC: Final = 3.0
"""Seconds after which the journal is read again, whatever was heard."""

PATIENCE: Final = 2.0
"""Seconds a task may wait before somebody asks whether anybody would take it."""

CHECK: Final = 1.0
"""Seconds between two such questions. Only what is found twice in a row is said."""

LOOK_BACK: Final = 20_000
"""Progress messages (of all jobs) that a late watcher reads back."""

UNFOLDED: Final = 100
"""Jobs within a job that are looked at; the tasks that the others do stay folded."""

_KEPT = 1000  # progress messages that came before the journal's first record
_BURST = 4  # a look takes at most a fifth of the time: the next comes no sooner than four times as long as it took


class JobWatch:
    """Made by `JobClient.watch`. An async context manager, and an async iterator over lists of changes.

    The iteration ends after the changes that made the job's end known. `view` is always what is known now.
    """

    def __init__(
        self,
        client: JobClient,
        job_id: str,
        *,
        look_back: bool = False,
        unfold: bool = False,
        within: tuple[JobWatch, str] | None = None,
    ) -> None:
        self.view = JobView(job_id, above=within[1] if within else "")
        self._client = client
        self._look_back = look_back
        self._looks_back = look_back
        self._unfold = unfold
        self._top: JobWatch = within[0] if within else self
        self._inner: dict[str, JobWatch] = {}
        """Of the jobs that its molecules are, those that are looked at, by id."""
        self._family = 0
        self._subscription: Subscription | None = None
        self._forget: Callable[[], None] = lambda: None
        self._wake = asyncio.Event()
        self._stale = True
        self._over_heard = True
        self._heard: list[TaskProgress] = []
        self._early: list[TaskProgress] = []
        self._refusal: bytes | None = None
        self._pending_since: dict[tuple[str, int], float] = {}
        self._suspects: set[str] = set()

    # --- life ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        job = self.view.job_id
        # First the ears, then the first look: nothing can fall in between. Progress is heard once for all.
        heard = [subjects.journal("*", job), subjects.history("*", job)]
        if self._top is self:
            heard += [subjects.job_event("*", "refused"), subjects.progress("*")]
        self._subscription = await self._client.transport.listen(heard, self._hear)
        self._forget = self._client.when_reconnected(self._look_again)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._forget()
        for inner in self._inner.values():
            await inner.__aexit__(kind, error, traceback)
        if self._subscription is not None:
            try:
                await self._subscription.stop()
            except NexusError as stop_error:
                log.debug("could not stop listening: %s", stop_error)

    # --- following ---------------------------------------------------------------------------------

    async def snapshot(self) -> JobView:
        """The job as it is now, without waiting for anything more."""
        await self._sync()
        return self.view

    async def end(self) -> JobState:
        """Wait for the job's end."""
        async for _ in self:
            pass
        return self.view.state

    async def __aiter__(self) -> AsyncIterator[list[Change]]:
        loop = asyncio.get_running_loop()
        next_look = next_check = earliest = 0.0
        while True:
            self._wake.clear()
            changes = self._drain()
            now = loop.time()
            if now >= next_look or (self._stale and now >= earliest):
                changes += await self._sync_or_wait()
                took = loop.time() - now
                next_look, earliest = loop.time() + RESYNC, loop.time() + min(_BURST * took, 0.25)
            if now >= next_check and not self.view.over:
                changes += await self._find_what_is_missing(now)
                next_check = loop.time() + CHECK
            if changes:
                yield changes
            if self.view.over:
                return
            if self._heard:
                continue
            until = min(next_look, next_check)
            if self._stale:
                until = min(until, earliest)
            await self._woken(until - loop.time(), ears=not self._stale)

    async def _woken(self, seconds: float, *, ears: bool) -> None:
        """Sleep; where `ears`, only until something is heard."""
        if seconds <= 0:
            return
        if not ears:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    # --- hearing -------------------------------------------------------------------------------------

    def _hear(self, subject: str, payload: bytes) -> None:
        if subject.endswith(".progress"):
            # Everybody's progress comes here: not decoded unless it is about this job.
            if (listener := self._about(payload)) is not None:
                listener._hear_progress(payload)
            return
        if subject.endswith(".refused"):
            if self.view.job_id.encode() in payload:
                self._refusal = payload
                self._look_again()
            return
        if subject.startswith("gbe.history."):
            self._over_heard = True
        self._look_again()

    def _hear_progress(self, payload: bytes) -> None:
        try:
            progress = records.PROGRESS.decode(payload).data
        except (UndecodableMessage, UnknownVersion) as error:
            log.debug("progress that can't be read: %s", error)
            return
        self._heard.append(progress)
        self._top._wake.set()

    def _about(self, payload: bytes) -> JobWatch | None:
        """Whose progress this is, of this job and those within it."""
        if self.view.job_id.encode() in payload:
            return self
        return next((found for inner in self._inner.values() if (found := inner._about(payload)) is not None), None)

    def _look_again(self) -> None:
        self._stale = True
        self._top._stale = True
        self._top._wake.set()

    def _drain(self) -> list[Change]:
        heard, self._heard = self._heard, []
        changes: list[Change] = []
        if self.view.tasks:
            changes = [change for progress in heard for change in self.view.apply_progress(progress)]
        else:
            self._early = (self._early + heard)[-_KEPT:]
        for inner in self._inner.values():
            changes += inner._drain()
        return changes

    # --- looking -------------------------------------------------------------------------------------

    async def _sync_or_wait(self) -> list[Change]:
        """Look; while the server is away, say so and go on waiting."""
        try:
            changes = await self._sync()
        except Unavailable as error:
            self._look_again()
            return self.view.apply_waiting("server", f"the server does not answer: {error}")
        return changes + self.view.apply_waiting("server", "")

    async def _sync(self) -> list[Change]:
        """Look at the job, and at those within it. What is within comes before what follows from it."""
        if not self._unfold:
            return await self._sync_own()
        before = await self._sync_inner(self._inner)
        own = await self._sync_own()
        ended = {change.task.child_job for change in own if isinstance(change, TaskChanged) and change.state.terminal}
        # Between the two looks a job within may have ended; and some are new.
        before += await self._sync_inner(ended & self._inner.keys())
        new: list[Change] = []
        for task in self.view.tasks:
            if task.child_job and task.child is None and self._top._family < UNFOLDED:
                new += await self._unfold_task(task)
        if not new:
            return before + own
        ends = [change for change in own if _is_an_end(change)]
        return before + [change for change in own if not _is_an_end(change)] + new + ends

    async def _sync_inner(self, jobs: Iterable[str]) -> list[Change]:
        changes: list[Change] = []
        for job in list(jobs):
            inner = self._inner[job]
            if not inner.view.over:
                changes += await self._look_within(inner)
        return changes

    async def _unfold_task(self, task: TaskView) -> list[Change]:
        self._top._family += 1
        inner = JobWatch(
            self._client,
            task.child_job,
            look_back=self._looks_back,
            unfold=True,
            within=(self._top, f"{task.title}/"),
        )
        task.child = inner.view
        await inner.__aenter__()
        self._inner[task.child_job] = inner
        return await self._look_within(inner)

    async def _look_within(self, inner: JobWatch) -> list[Change]:
        """What is new of a job within. Its own beginning and end are its task's."""
        try:
            return [change for change in await inner._sync() if not isinstance(change, JobChanged)]
        except records.Unreadable as error:
            log.debug("a job within can't be shown: %s", error)
            return []

    async def _sync_own(self) -> list[Change]:
        view = self.view
        self._stale = False
        changes = await self._read_journal()
        # The history is written last. It is read when it was heard, when it is due, and when nothing else was new.
        if not view.over and (self._over_heard or view.state is JobState.FINISHING or not changes):
            self._over_heard = False
            changes += await self._read_history()
        if not view.known and self._refusal is not None:
            changes += view.apply_refused(records.REFUSED.decode(self._refusal).data)
        return changes

    async def _read_journal(self) -> list[Change]:
        view = self.view
        changes: list[Change] = []
        journal = await self._client.log(JOURNAL)
        async for entry in journal.replay(subjects.journal("*", view.job_id), view.seq):
            record = records.journal_record(entry.payload, entry.subject)
            if record.created is not None and not view.tasks:
                changes += view.apply_created(record.created, await self._client.outline(record.created))
            changes += view.apply_record(record, entry.seq)
        if view.tasks:
            if self._look_back:
                self._look_back = False
                changes += await self._read_progress()
            early, self._early = self._early, []
            changes += [change for progress in early for change in view.apply_progress(progress)]
        return changes

    async def _read_history(self) -> list[Change]:
        summary = await self._client.summary(self.view.job_id)
        if summary is None:
            return []
        return self.view.apply_summary(summary, await self._client.results(summary))

    async def _read_progress(self) -> list[Change]:
        """What the tasks that run now have said so far. Their old lines are nothing new: they are not changes."""
        open_types = {task.task_type for task in self.view.tasks if task.state is TaskState.PENDING}
        if not open_types:
            return []
        try:
            last = (await self._client.transport.stream_state(PROGRESS)).last_seq
            stream = await self._client.log(PROGRESS)
        except (NotFound, NoEcumene):
            return []
        changes: list[Change] = []
        job = self.view.job_id.encode()
        async for entry in stream.replay(subjects.progress("*"), max(0, last - LOOK_BACK)):
            if job in entry.payload:
                try:
                    progress = records.PROGRESS.decode(entry.payload).data
                except (UndecodableMessage, UnknownVersion):
                    continue
                changes += self.view.apply_progress(progress)
        return [change for change in changes if not isinstance(change, TaskWrote | TaskNoted)]

    # --- what is missing -----------------------------------------------------------------------------

    async def _find_what_is_missing(self, now: float) -> list[Change]:
        """Whether the job waits for somebody who isn't there."""
        view = self.view
        try:
            missing = await self._missing(now)
        except (Unavailable, NoEcumene):  # said elsewhere
            return []
        changes: list[Change] = []
        certain = missing.keys() & self._suspects
        for what in sorted(certain):
            changes += view.apply_waiting(what, missing[what])
        for what in sorted(view.waiting.keys() - missing.keys() - {"server"}):
            changes += view.apply_waiting(what, "")
        self._suspects = set(missing)
        return changes

    async def _missing(self, now: float) -> dict[str, str]:
        view = self.view
        if not view.known or view.state is JobState.FINISHING:
            since = self._pending_since.setdefault(("", -1), now)
            if now - since >= PATIENCE and await self._client.no_oracle():
                return {"oracle": "no Oracle is alive"}
            return {}
        waiting: dict[str, TaskView] = {}
        for task in view.unfolded():
            key = (task.above, task.index)
            if task.state is not TaskState.PENDING:
                self._pending_since.pop(key, None)
            elif now - self._pending_since.setdefault(key, now) >= PATIENCE:
                waiting.setdefault(task.task_type, task)
        missing: dict[str, str] = {}
        for task_type in waiting:
            if await self._client.nobody_handles(task_type):
                missing[task_type] = f"no Operative handles '{task_type}'"
        return missing


def _is_an_end(change: Change) -> bool:
    return isinstance(change, TaskChanged | JobChanged) and (
        change.state.terminal or change.state is JobState.FINISHING
    )
