"""`BusOracle`: the Oracle as a role on the bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, ClassVar

from msgspec import Raw, json

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.ids import new_job_id
from gbe_jobs_domain.payloads import JobSubmitted, TaskEnded, TaskEndedOpaque
from gbe_nexus import ConsumerSpec, NexusError, Subscription, Transport, encode_payload, now_ms
from gbe_oracle import inbox
from gbe_oracle.contract import Oracle, OracleError
from gbe_oracle.effects import Effects
from gbe_oracle.engine import TRUST, Engine
from gbe_oracle.housekeeping import LEFTOVERS_EVERY, SWEEP_EVERY, Housekeeping
from gbe_oracle.leftovers import Leftovers
from gbe_oracle.loading import Loader
from gbe_oracle.settings import OracleSettings
from gbe_oracle.summaries import Summaries
from gbe_oracle.topology import ensure_streams
from gbe_oracle.unserved import Unserved
from gbe_runtime.bus_role import BusRole

log = logging.getLogger("gbe.oracle")


class BusOracle(BusRole, Oracle):
    """Any number of these may run on one bus: one works, the others take over within seconds (section 4)."""

    name: ClassVar[str] = "oracle"

    def __init__(
        self, transport: Transport, settings: OracleSettings | None = None, *, close_transport: bool = False
    ) -> None:
        self._settings = settings or OracleSettings()
        super().__init__(
            transport, heartbeat_interval=self._settings.heartbeat_interval, close_transport=close_transport
        )
        self._engine: Engine | None = None
        self._housekeeping: Housekeeping | None = None
        self._subscription: Subscription | None = None
        self._handed_back = False

    # --- the contract --------------------------------------------------------------------------------

    async def submit(self, definition: JobDefinition) -> str:
        """Put the job onto the bus. Raises `OracleError`, and `NexusError` where the bus does not take it."""
        job_id = new_job_id()
        body = json.encode(definition)
        inline: Raw | None = Raw(body)
        reference: Ref | None = None
        if len(body) > self.transport.max_payload // 2:
            store = await self.transport.artifact_store(ARTIFACT_STORE)
            key = subjects.artifact_key(job_id, "definition.json")
            stored = await store.put(key, body, media_type="application/json")
            inline = None
            reference = Ref(ARTIFACT_STORE, key, stored.size, stored.sha256, stored.media_type)
        submit = JobSubmitted(
            job_id,
            definition.job_type,
            definition.org,
            inline,
            reference,
            now_ms(),
        )
        event_id = f"{job_id}:submit"
        await self.transport.publish(
            subjects.submit(definition.job_type), encode_payload(event_id, submit), msg_id=event_id
        )
        return job_id

    async def tick(self) -> None:
        """See the contract. What can't be done now is done at the next tick."""
        assert self._housekeeping is not None, "the Oracle is not started"
        try:
            await self._housekeeping.tick()
        except NexusError as error:
            log.info("clean-up goes on later: %s", error)

    async def task_reported(self, report: TaskEnded) -> None:
        """See the contract. Raises `OracleError` where the Oracle is not running, or stops before that."""
        if self._engine is None or self.ending:
            raise OracleError("the Oracle is not running")
        event = inbox.reported(json.decode(json.encode(report), type=TaskEndedOpaque))
        if event is not None:
            waiter = _Waiter()
            self._engine.add(report.job_type, report.job_id, event, waiter)
            await waiter.done.wait()
            if not waiter.acknowledged:
                raise OracleError("the report was not applied: the Oracle stops, or the job's journal can't be read")

    # --- the role ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        settings = self._settings
        retention = streams.Retention(
            work_bytes=settings.work_stream_mib << 20, history_age=settings.history_days * streams.DAY
        )
        await self.patiently(lambda: ensure_streams(self.transport, retention))
        journal = await self.transport.journal(streams.JOURNAL)
        history = await self.transport.journal(streams.HISTORY)
        artifacts = await self.patiently(lambda: self.transport.artifact_store(ARTIFACT_STORE))
        loader = Loader(journal, history, artifacts)
        max_payload = self.transport.max_payload
        self._engine = engine = Engine(
            self.transport,
            journal,
            loader,
            Effects(loader, artifacts, identity=self.identity, max_payload=max_payload),
            Summaries(loader, artifacts, max_payload=max_payload),
            identity=self.identity,
            spawn=self._spawn_quietly,
            window=settings.window,
            cache_bytes=settings.cache_mib << 20,
            trust=min(TRUST, max(settings.purge_after / 2, 0.05)),
        )
        leftovers = Leftovers(
            artifacts,
            journal,
            history,
            history_age=settings.history_days * streams.DAY,
            tidy_after=settings.tidy_after,
        )
        self._housekeeping = Housekeeping(
            self.transport,
            engine,
            journal,
            history,
            leftovers,
            Unserved(self.transport, await self.transport.journal(streams.QUEUE), journal),
            purge_after=settings.purge_after,
            leftovers_every=min(LEFTOVERS_EVERY, max(settings.tidy_after, settings.tick_interval)),
            unserved_every=min(SWEEP_EVERY, max(settings.tidy_after, settings.tick_interval)),
        )
        inbox_spec = ConsumerSpec(
            streams.INBOX,
            subjects.ORACLE_CONSUMER,
            ack_wait=settings.ack_wait,
            pinned=True,
            pin_timeout=settings.pin_timeout,
        )
        self._subscription = await self.patiently(lambda: self.transport.subscribe(inbox_spec, engine.on_messages))
        self.spawn(self._renew(self._subscription.ack_wait / 3), "renew what is held")
        self.spawn(self._tick_for_ever(), "tick")

    async def _stop(self) -> None:
        """Take nothing new, finish what is on its way, hand back the rest."""
        if self._subscription is not None:
            await self._subscription.stop()
        engine = self._engine
        if engine is None:
            return
        try:
            async with asyncio.timeout(self._settings.stop_grace):
                while not engine.idle():
                    await engine.progressed()
        except TimeoutError:
            log.info("stopping with work on its way: the next Oracle goes on with it")
        self._handed_back = True
        for message in engine.held():
            message.nak()
        try:
            async with asyncio.timeout(1):
                await self.transport.flush()
        except (NexusError, TimeoutError) as error:
            log.debug("last words not heard: %s", error)

    def capabilities(self) -> dict[str, object]:
        """See `Role`."""
        return {"window": self._settings.window}

    def load(self) -> dict[str, float]:
        """See `Role`."""
        if self._engine is None:
            return {}
        return {"live_jobs": self._engine.live_jobs, **self._engine.counters}

    def _spawn_quietly(self, coro: Coroutine[Any, Any, None]) -> object:
        if self._handed_back:
            coro.close()
            return None
        return self.spawn(coro, "a job's slow path")

    async def _renew(self, interval: float) -> None:
        assert self._engine is not None
        while True:
            await asyncio.sleep(interval)
            for message in self._engine.held():
                message.in_progress()

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick_interval)
            await self.tick()


class _Waiter:
    """Waits for an event that did not come over the bus."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.acknowledged = False

    def ack(self) -> None:
        self.acknowledged = not self.done.is_set()
        self.done.set()

    def nak(self, delay: float = 0.0) -> None:
        self.done.set()

    def in_progress(self) -> None:
        """Nothing to renew."""
