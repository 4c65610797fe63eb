"""`AetherOperative`: a task is a session of the Aether engine.

| param | is |
|---|---|
| `run_config`, `topology`, `profile`, `pfna` | the session's documents, JSON (`pfna` where the run config wants it) |
| `session_ref` | an artifact with one JSON object that has these documents, where they are large |
| `scenario` | instead of documents: a scenario of the host's registry (`GBE_AETHER_REGISTRY`, else the shipped one) |
| `overrides` | with `scenario`: a JSON object of run config keys that replace the scenario's own |
| `progress_interval_ms` | milliseconds between two reports, 100 to 60,000 (100) |
| `start_paused` | `true`: wait before the first tick |

Reports, results and what is left in the artifact store: `gbe_operative_aether.wire`. A session never writes anything
but that, whatever its documents say of log files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from gbe_jobs_domain.edges import Inline, Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, TaskOutcome
from gbe_jobs_domain.payloads import ControlKind, ProgressKind
from gbe_nexus import IntegrityError, NotFound
from gbe_operative.contract import Execution, Interrupt, Operative, OperativeContext, OperativeError
from gbe_operative_aether import wire
from gbe_operative_aether.frames import BUNDLE_FILE, LOG_FILE, Begin, Ended, Refused, Steer, Told
from gbe_operative_aether.process import EngineProcess, ProcessDied

log = logging.getLogger(__name__)

REGISTRY_VARIABLE: Final = "GBE_AETHER_REGISTRY"
"""The host's scenario registry: a file."""

MAX_DOCUMENTS: Final = 64 << 20
"""Bytes of the documents behind `session_ref`."""

CHUNK: Final = 1 << 20

INTERVALS: Final = (100, 60_000)

KNOWN: Final = frozenset(
    {*wire.DOCUMENT_NAMES, wire.SESSION_REF, wire.PROGRESS_INTERVAL, wire.START_PAUSED, "scenario", "overrides"}
)


class AetherOperative(Operative):
    """Serves any task types with the engine, each session in a process that is kept for the next one."""

    def __init__(self, task_types: Sequence[str] = (wire.TASK_TYPE,), *, registry: Path | None = None) -> None:
        self._types = tuple(task_types)
        named = os.environ.get(REGISTRY_VARIABLE)
        self._registry = registry or (Path(named) if named else None)
        self._idle: list[EngineProcess] = []
        self._busy: set[EngineProcess] = set()

    @property
    def handles(self) -> tuple[str, ...]:
        """As given."""
        return self._types

    def controls(self, task_type: str) -> frozenset[ControlKind]:
        """Sessions can be paused, resumed and stepped."""
        return frozenset({ControlKind.PAUSE, ControlKind.RESUME, ControlKind.STEP})

    @property
    def pids(self) -> list[int]:
        """The engine's processes that live."""
        return [process.pid for process in (*self._idle, *self._busy) if process.pid is not None]

    async def start(self, context: OperativeContext) -> None:
        """Start the first process, so that the first session need not wait for it, and an engine that can't be
        imported is noticed now."""
        if self._registry is not None and not self._registry.is_file():
            raise FileNotFoundError(f"{REGISTRY_VARIABLE}: {self._registry} is not a file")
        process = EngineProcess()
        await process.start()
        self._idle.append(process)

    async def close(self) -> None:
        """End the processes."""
        for process in [*self._idle, *self._busy]:
            await process.stop()
        self._idle.clear()

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Run the session to its end."""
        begin = await self._begin(execution)
        async with self._process() as process:
            ended = await _run(execution, process, begin)
        if isinstance(ended, Refused):
            raise OperativeError(ended.error, kind=FailureKind.REJECTED)
        if execution.interrupted is Interrupt.STOP:
            return Failed(error="the Operative stops")  # it is handed back: nothing came of this start
        return await _keep(execution, ended, Path(begin.directory))

    @contextlib.asynccontextmanager
    async def _process(self) -> AsyncIterator[EngineProcess]:
        """A process for one session: kept afterwards if all went well with it, else ended."""
        while self._idle:
            process = self._idle.pop()
            if process.pid is not None:
                break
        else:
            process = EngineProcess()
            try:
                await process.start()
            except OSError as error:
                raise OperativeError(f"the engine's process can't be started: {error}") from error
        self._busy.add(process)
        try:
            yield process
        except BaseException:
            await process.stop()
            raise
        else:
            self._idle.append(process)
        finally:
            self._busy.discard(process)

    async def _begin(self, execution: Execution) -> Begin:
        params = execution.params
        unknown = sorted(set(params) - KNOWN)
        if unknown:
            raise _rejected(f"unknown param: {', '.join(unknown)}; there are: {', '.join(sorted(KNOWN))}")
        directory = execution.work_dir
        begin = Begin(str(directory), _interval(params) / 1000, _paused(params))
        sources = [name for name in ("run_config", wire.SESSION_REF, "scenario") if name in params]
        if len(sources) != 1:
            found = " and ".join(sources) or "none"
            raise _rejected(f"a session has one of run_config, {wire.SESSION_REF} and scenario; found: {found}")
        if "overrides" in params and sources != ["scenario"]:
            raise _rejected("overrides go with scenario; documents are final")
        if sources == ["scenario"]:
            return replace(
                begin,
                scenario=params["scenario"],
                registry=None if self._registry is None else str(self._registry),
                overrides=params.get("overrides", "{}").encode(),
            )
        if sources == [wire.SESSION_REF]:
            return replace(begin, bundled=await _fetch(execution))
        try:
            documents = wire.documents_in(params)
            assert documents is not None
            texts = {name: bytes(getattr(documents, name)) for name in wire.DOCUMENT_NAMES}
            return replace(begin, documents=texts)
        except ValueError as error:
            raise _rejected(str(error)) from error


async def _run(execution: Execution, process: EngineProcess, begin: Begin) -> Ended | Refused:
    """From the first request to the last answer."""
    steering = asyncio.ensure_future(_steer(execution, process))
    ending = asyncio.ensure_future(_cancel(execution, process))
    try:
        await process.say(begin)
        async with contextlib.aclosing(process.answers()) as answers:
            async for answer in answers:
                if isinstance(answer, Told):
                    execution.progress(kind=ProgressKind.STEP, data=msgspec.Raw(answer.report))
                else:
                    return answer
        raise AssertionError("answers end only by an error")
    except ProcessDied as error:
        raise OperativeError(str(error)) from error
    finally:
        for task in (steering, ending):
            task.cancel()
        await asyncio.wait({steering, ending})


async def _steer(execution: Execution, process: EngineProcess) -> None:
    with contextlib.suppress(ProcessDied):
        async for control in execution.controls:
            await process.say(Steer(control.kind.value))


async def _cancel(execution: Execution, process: EngineProcess) -> None:
    await execution.cancelled.wait()
    with contextlib.suppress(ProcessDied):
        await process.say(Steer("cancel"))


# --- what is left ---------------------------------------------------------------------------------------------------


async def _keep(execution: Execution, ended: Ended, directory: Path) -> TaskOutcome:
    """Store log, bundle and outcome, in this order, and say how it ended."""
    job, task = execution.task.job_id, execution.task.task_id
    kept: dict[str, Ref] = {}
    if ended.log:
        kept["log"] = await _store(execution, wire.log_key(job, task), directory / LOG_FILE, wire.LOG_MEDIA_TYPE)
    if ended.bundle:
        file = directory / BUNDLE_FILE
        kept["bundle"] = await _store(execution, wire.bundle_key(job, task), file, wire.BUNDLE_MEDIA_TYPE)
    outcome = wire.Outcome(
        result=ended.result,
        ticks_completed=ended.ticks_completed,
        ticks_total=ended.ticks_total,
        session=ended.session,
        error=ended.error,
        metrics=ended.metrics,
        policy_set_hash=ended.policy_set_hash,
        last_hash=ended.last_hash,
        manifest_check=ended.manifest_check,
        log_entries=ended.log_entries,
        **kept,
    )
    body = wire.encode_outcome(outcome)
    await execution.artifacts.put(wire.outcome_key(job, task), body, media_type="application/json")
    data = Inline(msgspec.Raw(body))
    if ended.result is wire.SessionResult.COMPLETED:
        lines = [f"{ended.ticks_completed} ticks", *([f"ledger {ended.last_hash}"] if ended.last_hash else [])]
        bundle = kept.get("bundle")
        return Completed(output=lines, data=data, result_ref=None if bundle is None else bundle.uri)
    if ended.result is wire.SessionResult.CANCELLED:
        done = f"cancelled after {ended.ticks_completed} of {ended.ticks_total} ticks"
        return Failed(error=done, kind=FailureKind.CANCELLED, data=data)
    # The same documents fail in the same way: another attempt is not worth it, but it is no rejection either.
    return Failed(error=ended.error, data=data)


async def _store(execution: Execution, key: str, file: Path, media_type: str) -> Ref:
    stored = await execution.artifacts.put(key, _chunks(file), media_type=media_type)
    return Ref(stored.store, stored.key, stored.size, stored.sha256, stored.media_type)


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(file.open, "rb") as opened:
        while chunk := await asyncio.to_thread(opened.read, CHUNK):
            yield chunk


# --- params ---------------------------------------------------------------------------------------------------------


async def _fetch(execution: Execution) -> bytes:
    """The documents behind `session_ref`."""
    ref = execution.refs.get(wire.SESSION_REF)
    if ref is None:
        raise _rejected(f"{wire.SESSION_REF} is not a store:// reference: {execution.params[wire.SESSION_REF][:80]!r}")
    if ref.size > MAX_DOCUMENTS:
        raise _rejected(f"{wire.SESSION_REF}: the documents have {ref.size} bytes, more than {MAX_DOCUMENTS}")
    body = bytearray()
    try:
        async for chunk in execution.artifacts.get(ref.key):
            body += chunk
            if len(body) > MAX_DOCUMENTS:
                raise _rejected(f"{wire.SESSION_REF}: the documents have more than {MAX_DOCUMENTS} bytes")
    except (NotFound, IntegrityError) as error:
        raise _rejected(f"{wire.SESSION_REF}: {error}") from error
    return bytes(body)


def _interval(params: Mapping[str, str]) -> int:
    text = params.get(wire.PROGRESS_INTERVAL, str(wire.DEFAULT_PROGRESS_INTERVAL))
    low, high = INTERVALS
    if not (text.isascii() and text.isdigit() and len(text) < 7 and low <= int(text) <= high):
        raise _rejected(f"{wire.PROGRESS_INTERVAL} is a number of milliseconds from {low} to {high}, not {text[:40]!r}")
    return int(text)


def _paused(params: Mapping[str, str]) -> bool:
    text = params.get(wire.START_PAUSED, "false")
    if text not in ("true", "false"):
        raise _rejected(f"{wire.START_PAUSED} is true or false, not {text[:40]!r}")
    return text == "true"


def _rejected(text: str) -> OperativeError:
    return OperativeError(text, kind=FailureKind.REJECTED)
