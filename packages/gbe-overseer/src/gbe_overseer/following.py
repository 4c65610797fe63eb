"""Following a job with a display, and what an interrupt does to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.ids import check_job_id, new_job_id
from gbe_jobs_domain.states import JobState
from gbe_overseer.client import JobClient, Submitted
from gbe_overseer.display import Display
from gbe_overseer.errors import JobRefusedError, OtherDefinition
from gbe_overseer.view import Change, JobView
from gbe_overseer.watching import JobWatch
from gbe_runtime.exit_codes import FAILED, INTERRUPTED, OK

CANCEL_GRACE: Final = 20.0
"""Seconds to wait for a job that is being cancelled."""


class Interrupts:
    """Ctrl-C (and TERM, and HUP: the terminal is gone) while this is entered: the first sets `first`, the second leaves
    at once.

    `last_words` are called before leaving at once: there is no unwinding then.
    """

    def __init__(self, *last_words: Callable[[], None]) -> None:
        self.first = asyncio.Event()
        self.last_words = list(last_words)
        self._heeded: list[signal.Signals] = []

    def __enter__(self) -> Interrupts:
        loop = asyncio.get_running_loop()
        self._heeded = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else somebody said nohup
            self._heeded.append(signal.SIGHUP)
        for number in self._heeded:
            loop.add_signal_handler(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._heeded:
            loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        if not self.first.is_set():
            self.first.set()
            return
        for words in self.last_words:
            with contextlib.suppress(Exception):  # there is nothing after this that could be harmed
                words()
        print("gbe: interrupted again, leaving at once", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)


async def follow(watch: JobWatch, display: Display, *, definition_sha256: str | None = None) -> JobView:
    """Show the job until it is over.

    Raises `OtherDefinition` where it turns out to be of another definition than the one submitted under its id, and
    `JobRefusedError` where the Oracle would not have it.
    """
    view = watch.view
    try:
        async for changes in _with_pauses(watch, display.interval):
            if definition_sha256 and view.definition_sha256 and view.definition_sha256 != definition_sha256:
                raise OtherDefinition(view.job_id)
            display.show(view, changes)
    finally:
        display.close()
    if view.refused:
        raise JobRefusedError(f"{view.job_id} was refused: {view.error}")
    return view


async def _with_pauses(watch: JobWatch, interval: float | None) -> AsyncIterator[list[Change]]:
    """The watch's changes; an empty list where nothing changed for `interval` seconds."""
    if interval is None:
        async for changes in watch:
            yield changes
        return
    source = aiter(watch)
    pending: asyncio.Future[list[Change]] = asyncio.ensure_future(anext(source))
    try:
        while True:
            await asyncio.wait({pending}, timeout=interval)
            if not pending.done():
                yield []
                continue
            try:
                changes = pending.result()
            except StopAsyncIteration:
                return
            pending = asyncio.ensure_future(anext(source))
            yield changes
    finally:
        pending.cancel()
        await asyncio.wait({pending})


@dataclass(frozen=True, slots=True)
class Attended:
    """How it went: the job as it was last seen, and whether somebody interrupted."""

    view: JobView
    interrupted: bool = False


async def attend(
    client: JobClient,
    definition: JobDefinition,
    interrupts: Interrupts,
    display: Display,
    *,
    job_id: str | None = None,
    cancel: bool = False,
) -> Attended:
    """Submit a job and show it to its end, or to an interrupt: then it is cancelled where `cancel`, else it goes on."""
    wanted = check_job_id(job_id) if job_id is not None else new_job_id()
    interrupts.last_words.append(display.close)  # a live tree hides the cursor
    # The watch first: whatever happens to the job from its submit on is heard.
    async with client.watch(wanted, unfold=True) as watch:
        accepted = await client.submit(definition, job_id=job_id, new_id=wanted)
        if accepted.existed:
            display.say(it_existed(wanted))
        following = asyncio.ensure_future(follow(watch, display, definition_sha256=accepted.definition_sha256))
        try:
            if await until(interrupts.first, following):
                return Attended(following.result())
            if cancel:
                await _cancel(client, accepted, following, display)
            return Attended(watch.view, interrupted=True)
        finally:
            following.cancel()
            await asyncio.wait({following})


async def _cancel(client: JobClient, job: Submitted, following: asyncio.Task[JobView], display: Display) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        display.say(f"gbe: interrupted, cancelling {job.job_id} (again: leave at once)")
    await client.request_cancel(job.job_id, job.job_type, "interrupted")
    await asyncio.wait({following}, timeout=CANCEL_GRACE)
    if not following.done():
        display.say(f"gbe: no Oracle has cancelled it within {CANCEL_GRACE:g} s")


def it_existed(job_id: str) -> str:
    """For who might think that a second job runs now."""
    return f"gbe: {job_id} was submitted before, with this definition: the same job"


async def until(interrupted: asyncio.Event, task: asyncio.Future[Any]) -> bool:
    """Wait for the task; whether it ended before an interrupt came. It goes on where that came first."""
    waiter = asyncio.ensure_future(interrupted.wait())
    either: set[asyncio.Future[Any]] = {task, waiter}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
    return task.done()


def exit_code(state: JobState) -> int:
    """Section 6: 0 completed, 1 failed or cancelled."""
    return OK if state is JobState.COMPLETED else FAILED
