"""Supervision: a run is a job with one `aether-session` task, started, followed, steered, and its end recorded here.

What is believed of a run is what its job's journal and history say; progress is heard as hints. A run is in the index
before its job is submitted, so whenever this service is killed, it finds the run again and finds out what became of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from gbe_jobs_domain import subjects
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE
from gbe_jobs_domain.ids import new_ulid
from gbe_jobs_domain.payloads import ControlKind, OnLost, TaskProgress
from gbe_jobs_domain.states import JobState, TaskState
from gbe_jobs_domain.streams import PROGRESS
from gbe_nexus import NexusError, NotFound, UndecodableMessage, UnknownVersion, now_ms
from gbe_operative_aether import wire
from gbe_overseer import records
from gbe_overseer.client import JobClient
from gbe_overseer.errors import EcumeneFull, NoEcumene, OverseerError, UnknownJob
from gbe_overseer.view import JobView
from gbe_overseer.watching import JobWatch
from trinity_gate import engine
from trinity_gate.active import ActiveRun, cards, live_view, report_of, run_status
from trinity_gate.entries import FAULT_EVENT, STOPPED_EVENT, iso, last_words
from trinity_gate.errors import GateError, conflict, not_found, unavailable
from trinity_gate.exports import Export, bundle, inputs
from trinity_gate.hub import Hub
from trinity_gate.index import CANCELLED, COMPLETED, DISMISSED, FAULT, REBUILD, RUNNING, Index, RunRecord
from trinity_gate.models import Live, LogState, PillarStatus, RunStatus
from trinity_gate.outcomes import left_outcome
from trinity_gate.rebuilding import RUN_NAME, runs_on_the_bus
from trinity_gate.runlog import Line, LiveLog, LogDamaged, LogFiles, Page, Wanted

log = logging.getLogger(__name__)

JOB_TYPE: Final = "trinity-gate"
TASK_NAME: Final = "session"

LOOK_BACK: Final = 20_000
"""Progress messages (of all sessions) that are read back after a restart."""

ANSWER_TIMEOUT: Final = 5.0
"""Seconds a stop, pause, resume or step is waited for before the caller is told how far it came."""

SAY_AGAIN: Final = 0.5
"""Seconds after which a control message is sent again under its id, while its effect doesn't show."""

RETRY_PAUSE: Final = 1.0

UNHEARD: Final = 2.0
"""Seconds in which a run that was stopped before anything was heard of it may still turn out to have begun."""

AGAIN: Final = 5.0
"""Seconds after which the supervision of a run that failed is tried again."""

TICK: Final = 0.5

AWAY: Final = "the bus is not reachable now"

AT_ONCE: Final = 2
"""Runs of an earlier life whose results are collected at the same time."""


class Spawn(Protocol):
    """Runs something in the background until the service stops."""

    def __call__(self, coro: Coroutine[Any, Any, None], name: str, /) -> asyncio.Task[None]: ...


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Times in seconds.

    `queue_patience`: how long a run waits while there is nobody to execute it. `silence`: after this the operator is
    told that nothing is heard; `lost_after`: after this the run is given up. `collect_for`: how long the results of a
    run that was stopped are waited for. `log_bytes`, `log_runs`: how much is kept of logs.
    """

    queue_patience: float = 30.0
    silence: float = 5.0
    lost_after: float = 60.0
    collect_for: float = 40.0
    log_bytes: int = 2 << 30
    log_runs: int = 500


class Runs:
    """All runs of this service. `start` first."""

    def __init__(
        self, client: JobClient, index: Index, files: LogFiles, hub: Hub, spawn: Spawn, settings: RunSettings
    ) -> None:
        self._client = client
        self._index = index
        self._files = files
        self._hub = hub
        self._spawn = spawn
        self._settings = settings
        self._lock = asyncio.Lock()
        self._by_job: dict[str, ActiveRun] = {}
        self._by_id: dict[str, ActiveRun] = {}
        self._last: RunRecord | None = None
        self._ready = False
        self._uncollected: list[RunRecord] = []
        self._collecting = asyncio.Semaphore(AT_ONCE)
        self.rebuilt: int | None = None
        """How many runs were found on the bus for an index that had lost them; None where it had not."""

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and take up what the index says is not finished."""
        types = [subjects.progress(wire.TASK_TYPE), subjects.terminal(wire.TASK_TYPE)]
        await self._complete_index()
        self._subscription = await self._client.transport.listen(types, self._hear)
        dismissed = await self._index.choice(DISMISSED)
        last = await self._index.last_run()
        self._last = None if last is None or last.run_id == dismissed else last
        for record in [*await self._index.unfinished(), *self._uncollected]:
            run = self._take(ActiveRun(record))
            if self._last is not None and self._last.run_id == record.run_id:
                self._last = record  # the one that changes: the state shows what became of it
            if record.over:
                run.started = record.ticks_completed > 0
                self._spawn(self._guarded(run, self._collect_rest(run)), f"collect {record.run_id}")
            else:
                log.info("run %s was under way: finding out what became of it", record.run_id)
                self._spawn(self._guarded(run, self._recover(run)), f"recover {record.run_id}")
        self._ready = True

    async def _complete_index(self) -> None:
        """After the index was lost: take in the runs that the bus knows. What fails is tried at the next start."""
        if not await self._index.choice(REBUILD):
            return
        try:
            found = await runs_on_the_bus(self._client, JOB_TYPE, await self._index.job_ids())
        except NexusError as error:
            log.error("the runs that the index lacks can't be had from the bus (%s): at the next start again", error)
            return
        await self._index.take_in(found)
        self._uncollected = [record for record in found if record.over and record.log_state == "disabled"]
        self.rebuilt = len(found)

    async def stop_all(self, reason: str, patience: float) -> None:
        """Cancel what is under way, and wait a while for its end: the ecumene goes down with this service."""
        under_way = [run for run in self._by_id.values() if not run.record.over]
        for run in under_way:
            try:
                await self._request_stop(run, reason)
            except (NexusError, GateError) as error:
                log.warning("run %s can't be cancelled: %s", run.record.run_id, error)
        for run in list(self._by_id.values()):
            await run.changes.until(lambda run=run: run.replaced, patience)  # type: ignore[misc]

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def active(self) -> ActiveRun | None:
        """The run that is under way."""
        return next((run for run in reversed(self._by_id.values()) if not run.record.over), None)

    def current(self) -> tuple[RunStatus | None, list[PillarStatus] | None, Live | None]:
        """The run that is under way, or else the last one that was not dismissed."""
        run = self.active
        if run is not None:
            report = run.report
            return run.status(), cards(run.record, run.phase, report), live_view(run.record, report)
        record = self._last
        if record is None:
            return None, None, None
        report = report_of(record)
        return run_status(record), cards(record, "ended", report), live_view(record, report)

    async def record(self, run_id: str) -> RunRecord:
        """Raises 404."""
        run = self._by_id.get(run_id)
        found = run.record if run is not None else await self._index.run(run_id)
        if found is None:
            raise not_found(f"no run {run_id!r}")
        return found

    async def status(self, run_id: str) -> RunStatus:
        """Raises 404."""
        run = self._by_id.get(run_id)
        return run.status() if run is not None else run_status(await self.record(run_id))

    async def pillars(self, run_id: str) -> list[PillarStatus]:
        """Raises 404."""
        run = self._by_id.get(run_id)
        if run is not None and not run.record.over:
            return cards(run.record, run.phase, run.report)
        record = await self.record(run_id)
        return cards(record, "ended", report_of(record))

    async def live(self, run_id: str) -> Live | None:
        """Raises 404."""
        run = self._by_id.get(run_id)
        if run is not None and not run.record.over:
            return live_view(run.record, run.report)
        record = await self.record(run_id)
        return live_view(record, report_of(record))

    async def logs(self, run_id: str, wanted: Wanted, limit: int) -> tuple[Page, bool]:
        """Entries, and whether they are of the complete log. Raises 404, 503."""
        record = await self.record(run_id)
        run = self._by_id.get(run_id)
        if record.log_state in ("disabled", "expired"):
            return Page([], wanted.since, record.log_entries, at_end=True), record.log_state == "disabled"
        if record.log_state == "live":
            return (LiveLog() if run is None else run.live).page(wanted, limit), False
        try:
            return await self._files.page(run_id, wanted, limit), record.log_state == "complete"
        except (LogDamaged, FileNotFoundError) as error:
            self._fetch_again(record)
            raise unavailable("log_damaged", "its log was damaged; it is being fetched again") from error

    async def log_info(self, run_id: str) -> tuple[LogState, int]:
        """The state of its log, and how many entries it is known to have. Raises 404."""
        record = await self.record(run_id)
        run = self._by_id.get(run_id)
        if run is not None and not run.replaced and record.log_state in ("complete", "partial"):
            return "live", run.live.total  # it is being made
        entries = record.log_entries if run is None or run.replaced else run.live.total
        return record.log_state, entries  # type: ignore[return-value] # written here only

    def _fetch_again(self, record: RunRecord) -> None:
        if record.run_id not in self._by_id:
            run = self._take(ActiveRun(record, started=True))
            self._spawn(self._guarded(run, self._collect_rest(run)), f"collect {record.run_id}")

    def watched(self, run_id: str) -> ActiveRun | None:
        """The run, while something of it may still change."""
        return self._by_id.get(run_id)

    # --- starting -----------------------------------------------------------------------------------------------------

    async def begin(
        self,
        scenario_id: str,
        overrides: Mapping[str, Any],
        prepare: Callable[[str], tuple[engine.Documents, engine.Governance]],
        *,
        paused: bool,
    ) -> RunStatus:
        """Start a run. `prepare` makes its documents for the id it gets. Raises 409, 422, 503."""
        async with self._lock:
            active = self.active
            if active is not None:
                raise conflict("run_active", f"run {active.record.run_id} is under way: stop it or wait for its end")
            self._need_bus()
            ulid = new_ulid()
            run_id = f"run-{ulid}"
            documents, governance = await asyncio.to_thread(prepare, run_id)
            record = RunRecord(
                run_id=run_id,
                job_id=f"job_{ulid}",
                scenario_id=scenario_id,
                state=RUNNING,
                started_at=now_ms(),
                ticks_total=int(documents.run_config["ticks"]),
                overrides=dict(overrides),
                governance=governance.snapshot(),
                log_state="live" if documents.run_config["logging"]["enabled"] else "disabled",
            )
            await self._index.add(record)
            run = self._take(ActiveRun(record))
            self._last = record
            self._hub.changed("history")
        submitting = self._spawn(self._guarded(run, self._submit(run, documents, paused=paused)), f"run {run_id}")
        await run.changes.until(lambda: run.started or run.record.over or run.note is not None, 1.0)
        del submitting
        return run.status()

    async def _submit(self, run: ActiveRun, documents: engine.Documents, *, paused: bool) -> None:
        record = run.record
        try:
            params = await self._params(record.job_id, documents)
            if paused:
                params[wire.START_PAUSED] = "true"
            task = TaskDefinition(TASK_NAME, wire.TASK_TYPE, params=params, on_lost=OnLost.FAIL)  # type: ignore[arg-type]
            definition = JobDefinition(f"{RUN_NAME}{record.scenario_id}", JOB_TYPE, [task])
            await self._client.submit(definition, new_id=record.job_id)
        except (EcumeneFull, NexusError) as error:
            # Whether it was stored may be unknown: a cancel of the id ends it, whichever comes first.
            await self._give_up(run, f"it could not be submitted: {error}")
            return
        await self._attend(run)

    async def _params(self, job_id: str, documents: engine.Documents) -> dict[str, str]:
        parts = {name: _raw(getattr(documents, name)) for name in wire.DOCUMENT_NAMES}
        texts = wire.Documents(**parts)
        params = wire.inline_params(texts)
        if params is not None:
            return params
        store = await self._client.transport.artifact_store(ARTIFACT_STORE)
        key = wire.documents_key(job_id)
        await store.put(key, wire.encode_documents(texts), media_type="application/json")
        return {wire.SESSION_REF: f"store://{ARTIFACT_STORE}/{key}"}

    def _need_bus(self) -> None:
        if not self._client.transport.connected:
            raise unavailable("bus_unavailable", "the bus is not reachable now; nothing was changed")

    def _take(self, run: ActiveRun) -> ActiveRun:
        self._by_job[run.record.job_id] = run
        self._by_id[run.record.run_id] = run
        return run

    # --- steering -----------------------------------------------------------------------------------------------------

    async def stop(self, run_id: str, reason: str) -> RunStatus:
        """Have it cancelled; returns when it is, or after a while. Raises 404, 409, 503."""
        run = await self._steerable(run_id)
        try:
            await self._request_stop(run, reason)
        except NexusError as error:
            raise unavailable("bus_unavailable", f"the stop could not be sent: {error}") from error
        await run.changes.until(lambda: run.record.over, ANSWER_TIMEOUT)
        return run.status()

    async def _request_stop(self, run: ActiveRun, reason: str) -> None:
        self._need_bus()
        before = run.stopping
        run.stopping = True
        run.record.stop_reason = run.record.stop_reason or reason
        self._changed(run)
        try:
            await self._client.request_cancel(run.record.job_id, JOB_TYPE, reason)
        except NexusError:
            run.stopping = before
            self._changed(run)
            raise

    async def pause(self, run_id: str) -> RunStatus:
        """Raises 404, 409, 503."""
        run = await self._steerable(run_id)
        if run.phase == "paused":
            raise conflict("already_paused", f"run {run_id} is paused already")
        self._need_running(run, "pause")
        await self._control(run, ControlKind.PAUSE, lambda: run.phase != "running")
        return run.status()

    async def resume(self, run_id: str) -> RunStatus:
        """Raises 404, 409, 503."""
        run = await self._steerable(run_id)
        self._need_paused(run, "resumed")
        await self._control(run, ControlKind.RESUME, lambda: run.phase != "paused")
        return run.status()

    async def step(self, run_id: str) -> RunStatus:
        """One tick. Raises 404, 409, 503."""
        run = await self._steerable(run_id)
        self._need_paused(run, "stepped")
        before = run.record.ticks_completed
        await self._control(
            run, ControlKind.STEP, lambda: run.record.ticks_completed != before or run.phase != "paused"
        )
        return run.status()

    async def _steerable(self, run_id: str) -> ActiveRun:
        record = await self.record(run_id)
        run = self._by_id.get(run_id)
        if run is None or record.over:
            raise conflict("run_over", f"run {run_id} is over ({record.state})")
        return run

    @staticmethod
    def _need_running(run: ActiveRun, what: str) -> None:
        if run.phase != "running" or run.report is None:
            raise conflict("not_running", f"a run that is {run.phase} can't {what}")

    @staticmethod
    def _need_paused(run: ActiveRun, what: str) -> None:
        if run.phase != "paused":
            raise conflict("not_paused", f"only a paused run can be {what}; this one is {run.phase}")

    async def _control(self, run: ActiveRun, kind: ControlKind, shows: Callable[[], bool]) -> None:
        """Say it, under one id, until the run's reports show the effect."""
        self._need_bus()
        control_id: str | None = None
        until = asyncio.get_running_loop().time() + ANSWER_TIMEOUT
        try:
            while True:
                control_id = await self._client.control(
                    run.record.job_id, wire.TASK_TYPE, kind, task_ids=[run.task_id], control_id=control_id
                )
                if await run.changes.until(shows, SAY_AGAIN):
                    return
                if asyncio.get_running_loop().time() >= until:
                    raise unavailable(
                        "no_answer", f"the Operative did not confirm the {kind.value} within {ANSWER_TIMEOUT:g} s"
                    )
        except NexusError as error:
            raise unavailable("bus_unavailable", f"the {kind.value} could not be sent: {error}") from error

    async def dismiss(self) -> None:
        """The last run is no longer shown as the current one. Raises 409."""
        if self.active is not None:
            raise conflict("run_active", f"run {self.active.record.run_id} is under way: it can't be dismissed")
        if self._last is not None:
            await self._index.choose(DISMISSED, self._last.run_id)
            self._last = None
            self._hub.changed()

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _hear(self, subject: str, body: bytes) -> None:
        for job_id, run in tuple(self._by_job.items()):
            if job_id.encode() in body:
                if subject.endswith(".terminal"):
                    run.terminal.set()
                elif not run.record.over:
                    self._hear_progress(run, body)

    def _hear_progress(self, run: ActiveRun, body: bytes) -> None:
        try:
            progress: TaskProgress = records.PROGRESS.decode(body).data
            if progress.task_id != run.task_id:
                return
            run.hear(progress, asyncio.get_running_loop().time())
        except (UndecodableMessage, UnknownVersion, msgspec.DecodeError) as error:
            log.warning("progress of run %s can't be read: %s", run.record.run_id, error)
            return
        self._hub.changed()

    def _changed(self, run: ActiveRun) -> None:
        run.changes.notify()
        self._hub.changed()

    # --- following ----------------------------------------------------------------------------------------------------

    async def _guarded(self, run: ActiveRun, work: Coroutine[Any, Any, None]) -> None:
        """Whatever happens to one run (the disk is full, say), the service goes on, and takes it up again."""
        while True:
            try:
                await work
                return
            except Exception:
                log.exception("run %s: its supervision failed", run.record.run_id)
                run.note = "its supervision failed, see the service's log; it is tried again"
                self._changed(run)
            await asyncio.sleep(AGAIN)
            work = self._collect_rest(run) if run.record.over else self._recover(run)

    async def _recover(self, run: ActiveRun) -> None:
        """A run that was under way when this service ended."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            try:
                await self._client.find(run.record.job_id)
                await self._recall(run)
                break
            except UnknownJob:
                never = "the service ended before it was submitted, or the bus has forgotten it: nobody executes it"
                await self._end(run, FAULT, now_ms(), never)
                return
            except NoEcumene as error:
                if loop.time() - since > self._settings.queue_patience:
                    await self._end(run, FAULT, now_ms(), f"nobody executes it: {error}")
                    return
            except (NexusError, OverseerError) as error:
                log.warning("run %s: %s", run.record.run_id, error)
            run.note = "waiting for the bus"
            self._changed(run)
            await asyncio.sleep(RETRY_PAUSE)
        await self._attend(run)

    async def _recall(self, run: ActiveRun) -> None:
        """What its Operative has said before, as far as the bus still has it."""
        try:
            last = (await self._client.transport.stream_state(PROGRESS)).last_seq
            stream = await self._client.log(PROGRESS)
        except NotFound:
            return
        job = run.record.job_id.encode()
        async for entry in stream.replay(subjects.progress(wire.TASK_TYPE), max(0, last - LOOK_BACK)):
            if job in entry.payload:
                self._hear_progress(run, entry.payload)

    async def _attend(self, run: ActiveRun) -> None:
        """Follow the job to its end."""
        while not run.record.over:
            try:
                await self._follow(run)
            except (NexusError, OverseerError) as error:
                log.warning("run %s can't be followed now: %s", run.record.run_id, error)
                run.note = "the bus does not answer"
                self._changed(run)
                await asyncio.sleep(RETRY_PAUSE)

    async def _follow(self, run: ActiveRun) -> None:
        async with self._client.watch(run.record.job_id) as watch:
            watching = asyncio.ensure_future(self._watch(run, watch))
            doubting = asyncio.ensure_future(self._doubt(run, watch.view))
            try:
                await asyncio.wait({watching, doubting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (watching, doubting):
                    task.cancel()
                await asyncio.wait({watching, doubting})
            if not watching.cancelled():
                watching.result()
                await self._conclude(run, watch.view)
            else:
                await self._give_up(run, doubting.result())

    async def _watch(self, run: ActiveRun, watch: JobWatch) -> None:
        async for _ in watch:
            view = watch.view
            if any(task.state is TaskState.RUNNING for task in view.tasks) and not run.started:
                run.started = True
                run.heard_at = asyncio.get_running_loop().time()
            note = "; ".join(view.waiting.values()) or None
            if note != run.note:
                run.note = note
            self._changed(run)

    async def _doubt(self, run: ActiveRun, view: JobView) -> str:
        """Returns, with the reason, when nobody can be expected to execute the run any more."""
        loop = asyncio.get_running_loop()
        settings = self._settings
        waits_since: float | None = None
        blind_until = loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            if not self._client.transport.connected or "server" in view.waiting:
                # Nothing can be heard now, and that says nothing about the run.
                blind_until, waits_since = now, None
                if run.note is None:
                    run.note = AWAY
                    self._changed(run)
                continue
            if run.note == AWAY:
                run.note = None
                self._changed(run)
            missing = [text for what, text in view.waiting.items() if what != "server"]
            if missing and not run.started:
                waits_since = now if waits_since is None else waits_since
                if now - waits_since >= settings.queue_patience:
                    return f"nobody executes it: {'; '.join(missing)} (waited {settings.queue_patience:g} s)"
            else:
                waits_since = None
            if run.started and run.heard_at is not None:
                silent = now - max(run.heard_at, blind_until)
                if silent >= settings.lost_after:
                    return f"nobody executes it any more: its Operative has not been heard of for {silent:.0f} s"
                if silent >= settings.silence:
                    run.note = f"its Operative has not been heard of for {silent:.0f} s"
                    self._changed(run)
                elif run.note is not None and not missing:
                    run.note = None
                    self._changed(run)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _give_up(self, run: ActiveRun, reason: str) -> None:
        """Nobody executes it: so nobody shall later."""
        log.warning("run %s is given up: %s", run.record.run_id, reason)
        try:
            await self._client.request_cancel(run.record.job_id, JOB_TYPE, reason)
        except NexusError as error:
            log.warning("the job of run %s can't be cancelled: %s", run.record.run_id, error)
        await self._end(run, CANCELLED if run.stopping else FAULT, now_ms(), reason)

    async def _conclude(self, run: ActiveRun, view: JobView) -> None:
        at = view.ended_at or now_ms()
        match view.state:
            case JobState.COMPLETED:
                await self._end(run, COMPLETED, at, "")
            case JobState.CANCELLED:
                await self._end(run, CANCELLED, at, view.reason or "cancelled on the bus")
            case _:
                await self._end(run, FAULT, at, view.error or "the job failed without saying why")

    async def _end(self, run: ActiveRun, state: str, at: int, reason: str) -> None:
        """Record the end. A stop shows at once and its results follow; otherwise the results come first, since who sees
        the end asks for them next."""
        if state != CANCELLED:
            await self._collect(run, state, at, reason, wait=0.0)
            self._record_end(run, state, at, reason)
            await self._finish(run)
            return
        self._record_end(run, state, at, reason)
        await self._index.save(run.record)
        self._changed(run)
        self._hub.changed("history")
        await self._collect(run, state, at, reason, wait=self._settings.collect_for if run.started else UNHEARD)
        await self._finish(run)

    def _record_end(self, run: ActiveRun, state: str, at: int, reason: str) -> None:
        record = run.record
        record.state, record.ended_at, record.paused = state, max(at, record.started_at), False
        if state == FAULT:
            record.fault_reason, record.stop_reason = reason, None
        elif state == CANCELLED:
            record.stop_reason = record.stop_reason or reason
        if run.report is not None and not report_of(record):
            record.report = msgspec.Raw(msgspec.json.encode(run.report))

    async def _finish(self, run: ActiveRun) -> None:
        await self._index.save(run.record)
        run.replaced = True
        self._by_job.pop(run.record.job_id, None)
        self._by_id.pop(run.record.run_id, None)
        self._changed(run)
        self._hub.changed("history")
        self._hub.changed("logs")
        await self._make_room()

    async def _collect_rest(self, run: ActiveRun) -> None:
        """Of a run that is over, whose log was not fetched before the service ended, or was lost since."""
        record = run.record
        reason = record.fault_reason or record.stop_reason or ""
        async with self._collecting:
            await self._collect(run, record.state, record.ended_at, reason, wait=1.0)
            await self._finish(run)

    async def _collect(self, run: ActiveRun, state: str, at: int, reason: str, *, wait: float) -> None:
        """Fetch what the Operative left. Whatever can't be had is recorded as missing."""
        record = run.record
        outcome = None
        try:
            store = await self._client.transport.artifact_store(ARTIFACT_STORE)
            outcome = await left_outcome(store, wire.outcome_key(record.job_id, run.task_id), run.terminal, wait)
        except (NexusError, msgspec.DecodeError) as error:
            log.warning("the results of run %s can't be had: %s", record.run_id, error)
        if outcome is not None:
            run.report = outcome.session
            record.report = msgspec.Raw(msgspec.json.encode(outcome.session))
            record.ticks_completed = outcome.ticks_completed
            record.metrics = outcome.metrics
            record.bundle_size = outcome.bundle.size if outcome.bundle is not None else -1
        else:
            record.bundle_size = -1
        if record.log_state != "disabled":
            await self._keep_log(run, outcome, _last_words(state, at, reason))

    async def _keep_log(self, run: ActiveRun, outcome: wire.Outcome | None, last: list[bytes]) -> None:
        record = run.record
        kept = await self._files.kept(record.run_id)
        if kept is not None:  # the service ended, or lost its index, after it had built it
            logged = kept.read - len(last)
            record.log_entries, record.log_bytes = kept.entries, kept.size
            whole = outcome is not None and outcome.log is not None and logged >= outcome.log_entries
            record.log_state = "complete" if whole else "partial"
            return
        whole = False
        source: Path | list[Line] = run.live.lines()
        download = self._files.download(record.run_id)
        try:
            if outcome is not None and outcome.log is not None:
                try:
                    await self._download(outcome.log.key, download)
                    source, whole = download, True
                except (NexusError, OSError) as error:
                    log.warning("the log of run %s can't be fetched: %s", record.run_id, error)
            elif not run.started:
                whole = True  # nobody began with it: the last words are all there is to say
            built = await self._files.build(record.run_id, source, last, run.live.lines())
        finally:
            await asyncio.to_thread(download.unlink, missing_ok=True)
        record.log_entries, record.log_bytes = built.entries, built.size
        if outcome is not None and built.read < outcome.log_entries:
            whole = False  # there was no time for all of it: a long session that was stopped
        record.log_state = "complete" if whole and built.whole else "partial"

    async def _download(self, key: str, target: Path) -> None:
        store = await self._client.transport.artifact_store(ARTIFACT_STORE)
        with await asyncio.to_thread(target.open, "wb") as file:
            async for chunk in store.get(key):
                await asyncio.to_thread(file.write, chunk)

    async def _make_room(self) -> None:
        """The oldest logs go when there are too many, or they are too large together."""
        kept = total = 0
        for record in await self._index.with_stored_logs():
            kept, total = kept + 1, total + record.log_bytes
            if kept == 1 or (kept <= self._settings.log_runs and total <= self._settings.log_bytes):
                continue
            await self._files.remove(record.run_id)
            record.log_state, record.log_bytes = "expired", 0
            await self._index.save(record)
            log.info("the log of run %s was removed: the retention limit", record.run_id)

    # --- export -------------------------------------------------------------------------------------------------------

    async def exportable(self, run_id: str) -> RunRecord:
        """The run, when everything that there will be of it is there. Raises 404, 409."""
        record = await self.record(run_id)
        if not record.over:
            raise conflict("run_active", f"run {run_id} is still under way: it can be exported when it is over")
        if not self.collected(record):
            raise conflict("not_ready", f"the results of run {run_id} are still being collected")
        self._need_bus()
        return record

    def collected(self, record: RunRecord) -> bool:
        """Whether the run is over and nothing more will be known of it."""
        return record.over and record.run_id not in self._by_id

    async def bundle(self, run_id: str) -> Export | None:
        """The zip that the Operative left; None where it left none. Raises 404, 409, 503."""
        return await bundle(self._client, (await self.exportable(run_id)).job_id)

    async def inputs(self, run_id: str) -> bytes | None:
        """The documents of the session, as long as the bus has them. Raises 404."""
        return await inputs(self._client, (await self.record(run_id)).job_id)

    async def log_lines(self, run_id: str) -> Iterable[bytes]:
        """The whole log, read when it is iterated over (not on the event loop). Raises 404."""
        record = await self.record(run_id)
        return () if record.log_state in ("live", "disabled", "expired") else self._files.lines(run_id)


def _raw(document: Mapping[str, Any] | None) -> msgspec.Raw:
    # The standard library's encoder: msgspec's refuses integers beyond 64 bit.
    return msgspec.Raw(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _last_words(state: str, at: int, reason: str) -> list[bytes]:
    event = {FAULT: FAULT_EVENT, CANCELLED: STOPPED_EVENT}.get(state)
    return [] if event is None else [last_words(event, iso(at), reason)]
