"""The worker: the role that takes tasks from the bus, has an `Operative` execute them, and reports how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import ClassVar

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import ARTIFACT_STORE
from gbe_jobs_domain.payloads import ControlKind, TaskControl
from gbe_jobs_domain.streams import JOURNAL, QUEUE
from gbe_nexus import (
    ConsumerSpec,
    NexusError,
    NotFound,
    PayloadDecoder,
    Subscription,
    Transport,
    UndecodableMessage,
    UnknownVersion,
)
from gbe_operative.attempt import Attempt
from gbe_operative.contract import Interrupt, Operative, OperativeContext, OperativeError
from gbe_operative.edge_checks import EdgeChecks
from gbe_operative.lane import Lane
from gbe_operative.leases import Leases
from gbe_operative.notes import Notes
from gbe_operative.schema_checks import SchemaChecks
from gbe_operative.secrets import Secrets
from gbe_operative.settings import WorkerSettings
from gbe_operative.standing import Standing
from gbe_operative.wishes import Wishes
from gbe_operative.workdirs import WorkDirs
from gbe_operative.workshop import Workshop
from gbe_runtime.bus_role import HEARTBEAT_INTERVAL, BusRole
from gbe_runtime.errors import ConfigurationError

log = logging.getLogger(__name__)

DEFAULT_SLOTS = 4
POLL = 0.2
FLUSH_TIMEOUT = 2.0
AWAY_PATIENCE = 2.0
"""Seconds for which a stop waits to hand back what it interrupted, where the server is away."""
AWAY_POLL = 0.1

_decode_control = PayloadDecoder(TaskControl).decode


class Worker(BusRole):
    """Serves the task types of one `Operative` (several: `CompositeOperative`), each with so many slots."""

    name: ClassVar[str] = "operative"

    def __init__(
        self,
        transport: Transport,
        operative: Operative,
        slots: Mapping[str, int] | None = None,
        *,
        settings: WorkerSettings | None = None,
        secrets: Secrets | None = None,
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
        close_transport: bool = False,
    ) -> None:
        super().__init__(transport, heartbeat_interval=heartbeat_interval, close_transport=close_transport)
        self._operative = operative
        asked = {**operative.slots, **(slots or {})}
        self._slots = {task_type: asked.get(task_type, DEFAULT_SLOTS) for task_type in operative.handles}
        self._settings = settings or WorkerSettings()
        self._secrets = secrets or Secrets({})
        self._lanes: dict[str, Lane] = {}
        self._standing = Standing(self._refresh_mark)
        self._doubts = 0
        self._shop: Workshop | None = None
        self._listening: Subscription | None = None
        self._checking: asyncio.Task[None] | None = None

    def capabilities(self) -> dict[str, object]:
        """Task types and their slots."""
        return {"task_types": dict(self._slots)}

    def load(self) -> dict[str, float]:
        """Tasks in hand."""
        return {f"in_hand.{lane.task_type}": lane.slots.in_hand for lane in self._lanes.values()}

    # --- start ---

    async def _start(self) -> None:
        try:
            await self.patiently(self._open)
        except NotFound:
            # The Oracle makes the streams, with the site's settings; it may come later.
            self.degrade("the streams are not there yet: no Oracle has been here")
            self.spawn(self._open_when_there(), "wait for the streams")

    async def _open_when_there(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            try:
                await self._open()
            except NotFound:
                continue
            except NexusError as error:
                if not error.retryable:
                    raise
                continue
            self.degrade(None)
            return

    async def _open(self) -> None:
        transport, settings = self.transport, self._settings
        await transport.stream_state(QUEUE)
        journal = await transport.journal(JOURNAL)
        notes = await transport.state_store(subjects.NOTES_BUCKET)
        artifacts = await transport.artifact_store(ARTIFACT_STORE)
        if self._shop is None:
            work_dirs = WorkDirs(settings.work_root)
            schemas = SchemaChecks(settings.check_limit)
            self.on_stop(schemas.close)
            checks = EdgeChecks(schemas, artifacts, settings.fetch_limit)
            self._shop = Workshop(
                transport=transport,
                worker=self.identity,
                settings=settings,
                secrets=self._secrets,
                artifacts=artifacts,
                notes=Notes(notes),
                wishes=Wishes(journal),
                leases=Leases(settings.ack_wait, self._on_beat, self._standing.doubt),
                work_dirs=work_dirs,
                checks=checks,
                metrics=self.metrics,
            )
            self.on_stop(work_dirs.close)
            self.on_stop(self._operative.close)
            context = OperativeContext(self.identity, transport, artifacts, work_dirs.root, checks)
            try:
                await self._operative.start(context)
            except OperativeError as error:
                raise ConfigurationError(str(error)) from error
        if self._listening is None:
            controls = [subjects.control(task_type) for task_type in self._slots]
            self._listening = await transport.listen(controls, self._on_control)
            self.on_stop(self._listening.stop)
            transport.on_reconnect(self._standing.doubt)
        asked_at = asyncio.get_running_loop().time()
        self._standing.set_mark((await transport.stream_state(QUEUE)).last_seq, asked_at)
        for task_type, slots in self._slots.items():
            if task_type not in self._lanes:
                await self._open_lane(self._shop, task_type, slots)
        self.spawn(self._shop.leases.keep(), "renew leases")

    async def _open_lane(self, shop: Workshop, task_type: str, slots: int) -> None:
        lane = Lane(shop, task_type, slots, self._operative, self._standing)
        spec = ConsumerSpec(
            QUEUE,
            subjects.operative_consumer(task_type),
            (subjects.queue(task_type),),
            ack_wait=self._settings.ack_wait,
        )
        self._lanes[task_type] = lane  # before anything can be delivered
        try:
            lane.subscription = await self.transport.subscribe(spec, lane.on_messages, credit=slots)
        except BaseException:
            del self._lanes[task_type]
            raise
        lane.subscribed()
        ack_wait = lane.subscription.ack_wait
        if ack_wait != self._settings.ack_wait:
            log.info(
                "the consumer of %s exists with an ack wait of %g s (asked for: %g s); adopted",
                task_type,
                ack_wait,
                self._settings.ack_wait,
            )
        shop.leases.ack_wait = min(lane.subscription.ack_wait for lane in self._lanes.values() if lane.subscription)

    # --- while it runs ---

    def _refresh_mark(self) -> None:
        """The past is in doubt: find out where the queue ends now."""
        self._doubts += 1
        if self._shop is not None:
            self._shop.spawn(self._read_mark(self._doubts))

    async def _read_mark(self, doubt: int) -> None:
        assert self._shop is not None
        while self._doubts == doubt and self._standing.in_doubt:
            asked_at = asyncio.get_running_loop().time()
            state = await self._shop.insist("read the queue's state", lambda: self.transport.stream_state(QUEUE))
            if self._doubts == doubt:
                self._standing.set_mark(state.last_seq, asked_at)

    def _on_control(self, subject: str, body: bytes) -> None:
        try:
            message = _decode_control(body)
        except (UndecodableMessage, UnknownVersion) as error:
            log.info("control message on %s ignored: %s", subject, error)
            return
        control = message.data
        cancel = control.kind is ControlKind.CANCEL
        if cancel:
            self._standing.remember(control)
        for lane in self._lanes.values():
            if subject != subjects.control(lane.task_type):
                continue
            if cancel:
                lane.on_cancel(control)
            else:
                lane.on_control(message.id, control)

    def _on_beat(self) -> None:
        """With each renewal: is what has been running for longer than a lease still wanted?"""
        if self._shop is None or (self._checking is not None and not self._checking.done()):
            return
        before = asyncio.get_running_loop().time() - self._shop.leases.ack_wait
        old = [attempt for lane in self._lanes.values() for attempt in lane.attempts if attempt.since <= before]
        if old:
            self._checking = self._shop.spawn(self._check(self._shop, old))

    async def _check(self, shop: Workshop, attempts: list[Attempt]) -> None:
        as_of = asyncio.get_running_loop().time()
        for attempt in attempts:  # one reading per job, however many of its tasks run here
            try:
                wanted = await shop.wishes.wanted(attempt.task, as_of)
            except NexusError as error:
                log.debug("whether task %s is still wanted can't be found out: %s", attempt.task.task_id, error)
                return
            if not wanted:
                attempt.interrupt(Interrupt.CANCEL, "cancelled: no longer wanted")

    # --- stop ---

    async def _stop(self) -> None:
        shop = self._shop
        if shop is None:
            return
        for lane in self._lanes.values():
            await lane.stop_taking()
        if self._checking is not None:
            self._checking.cancel()
        try:
            if await shop.drain(self._settings.stop_grace):
                return
            log.info("handing back what still runs")
            for lane in self._lanes.values():
                lane.interrupt_all()
            if not await self._handed_back(shop):
                log.warning("some tasks could not be handed back; their leases will end")
        finally:
            await shop.abandon()
            await self._flush()

    async def _handed_back(self, shop: Workshop) -> bool:
        """Wait until what was interrupted has cleaned up and is handed back: not for long to a server that is away."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.interrupt_grace + 1
        away_since: float | None = None
        while (left := until - loop.time()) > 0:
            if await shop.drain(min(left, AWAY_POLL)):
                return True
            if self.transport.connected or any(a.executing for lane in self._lanes.values() for a in lane.attempts):
                away_since = None
            elif away_since is None:
                away_since = loop.time()
            elif loop.time() - away_since >= AWAY_PATIENCE:
                return False
        return False

    async def _flush(self) -> None:
        """What was said of messages must be out before the connection is closed."""
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self.transport.flush()
        except (NexusError, TimeoutError) as error:
            log.info("the last acknowledgements may be lost: %s", str(error) or "no answer in time")
