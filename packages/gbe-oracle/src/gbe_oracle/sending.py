"""What is sent until it is stored, without a journal record behind it: refusals, cancels of children, dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from gbe_jobs_domain import subjects
from gbe_jobs_domain.payloads import JobCancelRequested, JobRefused
from gbe_nexus import Message, NexusError, Outgoing, Transport, encode_payload, now_ms
from gbe_oracle.complaints import Complaints
from gbe_oracle.core.events import ChildStarted, Submitted
from gbe_oracle.effects import Effects
from gbe_oracle.slots import Acknowledgeable

log = logging.getLogger("gbe.oracle")

VERSION_WAIT = 60.0
"""Seconds between looks at a message of a newer version, in case a newer Oracle starts."""
VERSION_TRIES = 10
RETRY_DELAY = 0.5
"""Seconds between tries at something that the bus does not take at the moment."""

T = TypeVar("T")
Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Sending:
    """Messages that answer events by themselves; who waits for one is acknowledged when it is stored.

    `sent` is called after each. `waiting`: who waits, to be renewed meanwhile.
    """

    def __init__(
        self, transport: Transport, effects: Effects, spawn: Spawn, counters: Counter[str], sent: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._effects = effects
        self._spawn = spawn
        self._counters = counters
        self._sent = sent
        self.complaints = Complaints()
        self.waiting: set[Acknowledgeable] = set()

    def refuse(self, event: Submitted, waiter: Acknowledgeable, reason: str) -> None:
        """Say that the job will not be run, and why: to whoever listens, and to its parent."""
        self._counters["refused"] += 1
        self._spawn(self._refused(event, waiter, reason))

    async def _refused(self, event: Submitted, waiter: Acknowledgeable, reason: str) -> None:
        submit = event.submit
        log.warning("job %s refused: %s", submit.job_id, reason)
        at = now_ms()
        event_id = f"{submit.job_id}:{at}:refused"
        body = JobRefused(submit.job_id, submit.job_type, at, reason)
        messages = [Outgoing(subjects.job_event(submit.job_type, "refused"), encode_payload(event_id, body), event_id)]
        if submit.parent is not None:
            messages.append(self._effects.refused_child(submit.parent, reason, at))
        await self._send(messages, waiter)

    def cancel_child(self, child: ChildStarted, waiter: Acknowledgeable) -> None:
        """Cancel a job whose parent is over."""
        event_id = f"{child.job_id}:cancel"
        body = JobCancelRequested(child.job_id, "the job it belongs to is over")
        message = Outgoing(subjects.cancel(child.job_type), encode_payload(event_id, body), event_id)
        self._spawn(self._send([message], waiter))

    def newer(self, message: Message, reason: str) -> None:
        """A message of a version that this Oracle does not know: another one may."""
        self._counters["newer"] += 1
        if message.deliveries > VERSION_TRIES:
            self.dead_letter(message, reason)
        else:
            message.nak(VERSION_WAIT)

    def dead_letter(self, message: Message, reason: str) -> None:
        """Put a message away that nobody can use."""

        async def send() -> None:
            self.waiting.add(message)
            await self.retrying(lambda: message.dead_letter(reason))
            self.waiting.discard(message)
            self._sent()

        self._spawn(send())

    async def _send(self, messages: list[Outgoing], waiter: Acknowledgeable) -> None:
        self.waiting.add(waiter)
        while messages:
            results = await self._transport.publish_many(messages)
            messages = [m for m, result in zip(messages, results, strict=True) if isinstance(result, NexusError)]
            if messages:
                await asyncio.sleep(RETRY_DELAY)
        self.waiting.discard(waiter)
        waiter.ack()
        self._sent()

    async def retrying(self, action: Callable[[], Awaitable[T]]) -> T:
        """Do it until the bus lets it; the events concerned stay unacknowledged meanwhile."""
        while True:
            try:
                return await action()
            except NexusError as error:
                self.complaints.say("trying again in %.1f s: %s", RETRY_DELAY, error)
                await asyncio.sleep(RETRY_DELAY)
