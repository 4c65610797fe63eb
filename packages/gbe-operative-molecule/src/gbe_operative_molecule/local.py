"""`mode: local`: the steps of a molecule within this process, over the same contract and the same graph.

What the bus would hold, this process holds: should it die, the molecule begins anew. For that a step costs no message.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Raw, json
from msgspec.structs import replace

from gbe_jobs_domain.dag import topological_order
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition, upstream_of
from gbe_jobs_domain.edges import ARTIFACT_STORE, EdgeData, Inline, Ref, inline, nested_deeper
from gbe_jobs_domain.ids import task_id
from gbe_jobs_domain.outcomes import TIMEOUT_EXIT_CODE, Completed, Failed, FailureKind, Skipped, TaskOutcome
from gbe_jobs_domain.paths import PathError, opened
from gbe_jobs_domain.payloads import ProgressKind, TaskQueued
from gbe_jobs_domain.results import NoSuchOutput, ToBeRead, handed_on
from gbe_nexus import ArtifactStore, IntegrityError, NexusError, NotFound, PayloadTooLarge
from gbe_operative.contract import (
    Delegated,
    Execution,
    Interrupt,
    LineReporter,
    Operative,
    OperativeContext,
    OperativeError,
    Result,
)
from gbe_operative.core.backoff import retry_delay, seconds_text
from gbe_operative.core.inputs import InputError, plan_inputs
from gbe_operative.edge_checks import EdgeChecks
from gbe_operative.inputs import run_errands
from gbe_operative.plugin_settings import ConfigurationError
from gbe_operative.plugins import PluginError, load
from gbe_operative.settings import WorkerSettings
from gbe_operative_molecule.plan import rejected
from gbe_operative_molecule.submission import insist

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds a step that watches `cancelled` may take to clean up; less than the worker gives the whole."""

_LIMITS = WorkerSettings()

T = TypeVar("T")


class LocalOperatives:
    """What executes steps here: one Operative per task type, started when the first step of the type comes."""

    def __init__(self, make: Callable[[str], Operative] | None = None) -> None:
        self.context: OperativeContext | None = None
        self._make = make or (lambda task_type: load(task_type, [task_type]))
        self._found: dict[str, Operative] = {}
        self._lock = asyncio.Lock()

    async def of(self, task_type: str) -> Operative:
        """The Operative for steps of this type. Raises `OperativeError` where there is none."""
        async with self._lock:
            found = self._found.get(task_type)
            if found is None:
                assert self.context is not None
                try:
                    found = self._make(task_type)
                    await found.start(self.context)
                except (PluginError, ConfigurationError) as error:
                    raise rejected(f"mode: local: {error}") from error
                self._found[task_type] = found
            return found

    async def close(self) -> None:
        """Close those that were started."""
        while self._found:
            await self._found.popitem()[1].close()


async def run_locally(
    outer: Execution,
    definition: JobDefinition,
    inner_id: str,
    lineage: Sequence[str],
    *,
    operatives: LocalOperatives,
    checks: EdgeChecks | None,
    slots: int,
    molecule: Callable[[Execution], Awaitable[Result]],
    molecule_types: Sequence[str],
) -> TaskOutcome:
    """Run the inner job; returns the outer task's outcome, when nothing of it runs any more.

    `inner_id`: what the steps' task ids are made of; their artifacts belong to the outer job.
    """
    routes: dict[str, Callable[[Execution], Awaitable[Result] | Result]] = {}
    for task_type in sorted({step.task_type for step in definition.tasks}):
        routes[task_type] = molecule if task_type in molecule_types else (await operatives.of(task_type)).execute
    run = _Run(outer, definition, inner_id, lineage, routes, slots, checks)
    return await run.to_its_end()


class _Run:
    """One inner job."""

    def __init__(
        self,
        outer: Execution,
        definition: JobDefinition,
        inner_id: str,
        lineage: Sequence[str],
        routes: Mapping[str, Callable[[Execution], Awaitable[Result] | Result]],
        slots: int,
        checks: EdgeChecks | None,
    ) -> None:
        self._checks = checks
        self._outer = outer
        self._definition = definition
        self._inner_id = inner_id
        self._lineage = list(lineage)
        self._routes = routes
        self._slots = asyncio.Semaphore(slots)
        self._stop = asyncio.Event()
        """Set when nothing more is wanted: a step failed, or the outer attempt is to end."""
        self._missing: set[str] = set()
        """Steps that failed, or depend on such, of a molecule that goes on without them."""
        self._edges: dict[str, EdgeData] = {}
        self._failure: Failed | None = None

    async def to_its_end(self) -> TaskOutcome:
        """Run every step when those it needs are over; end all when one fails (but for `fail_fast: false`), or the
        outer attempt is to end."""
        tasks = self._definition.tasks
        over = {task.name: asyncio.Event() for task in tasks}
        listening = asyncio.ensure_future(self._listen())
        running = [asyncio.ensure_future(self._step(index, tasks[index], over)) for index in topological_order(tasks)]
        try:
            await asyncio.gather(*running)
        finally:
            listening.cancel()
            for step in running:
                step.cancel()
            await asyncio.gather(listening, *running, return_exceptions=True)
        if self._failure is not None and (self._definition.fail_fast or not self._outer.cancelled.is_set()):
            return self._failure
        if self._outer.cancelled.is_set():
            return Failed("cancelled", FailureKind.CANCELLED)
        return await self._completed()

    async def _listen(self) -> None:
        await self._outer.cancelled.wait()
        self._stop.set()

    async def _completed(self) -> TaskOutcome:
        names = [task.name for task in self._definition.tasks]
        read: dict[str, object] = {}
        while True:
            try:
                return Completed(data=handed_on(self._definition.output, names, self._edges, read))
            except ToBeRead as needed:
                read[needed.ref.key] = await self._open(needed.ref)
            except NoSuchOutput as error:
                return Failed(str(error), FailureKind.REJECTED)

    async def _open(self, ref: Ref) -> object:
        artifacts = self._outer.artifacts
        try:
            data = await insist("read an artifact", lambda: artifacts.read(ref.key, limit=_LIMITS.fetch_limit))
            return opened(data, ref.media_type)
        except (NotFound, IntegrityError, PayloadTooLarge) as error:
            return PathError(str(error))
        except PathError as error:
            return error

    # --- a step ------------------------------------------------------------------------------------

    async def _step(self, index: int, step: TaskDefinition, over: Mapping[str, asyncio.Event]) -> None:
        for name in step.depends_on:
            if not await self._unless_stopped(over[name].wait()):
                return
        if not self._missing.isdisjoint(step.depends_on):
            self._missing.add(step.name)
            over[step.name].set()
            return
        async with self._slots:
            if self._stop.is_set():
                return
            outcome = await self._attempts(index, step)
        if isinstance(outcome, Completed):
            if outcome.data is not None:
                self._edges[step.name] = outcome.data
        elif isinstance(outcome, Failed):
            if self._failure is None and not (self._stop.is_set() and outcome.kind is FailureKind.CANCELLED):
                self._failure = _blamed(outcome, step.name, self._outer.task.job_id)
            if self._definition.fail_fast:
                self._stop.set()
                return
            self._missing.add(step.name)
        over[step.name].set()

    async def _unless_stopped(self, waiting: Awaitable[object]) -> bool:
        """Wait for it; False where the stop comes first."""
        both = {asyncio.ensure_future(waiting), asyncio.ensure_future(self._stop.wait())}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in both:
                future.cancel()
        return not self._stop.is_set()

    async def _attempts(self, index: int, step: TaskDefinition) -> TaskOutcome:
        attempt = 0
        while True:
            attempt += 1
            retryable, retry_after = True, 0.0
            try:
                outcome = await self._attempt(index, step, attempt)
            except OperativeError as error:
                retryable = error.retryable
                code = TIMEOUT_EXIT_CODE if error.kind is FailureKind.TIMEOUT else 1
                outcome = Failed(str(error) or "failed", error.kind, code, output=list(error.output), data=error.data)
                retry_after = error.retry_after
            except (InputError, NexusError) as error:
                outcome = Failed(str(error), FailureKind.REJECTED)
            except (Exception, SystemExit) as error:
                log.debug("step %s raised", step.name, exc_info=error)
                name = type(error).__name__
                outcome = Failed(f"{name}: {error}" if str(error) else name)
            if not (
                isinstance(outcome, Failed)
                and retryable
                and outcome.kind in (FailureKind.ERROR, FailureKind.TIMEOUT)
                and attempt <= step.max_retries
                and not self._stop.is_set()
            ):
                return outcome
            delay = retry_delay(step.retry, attempt, random.random, retry_after)
            text = f"{step.name}: attempt {attempt} failed, next in {seconds_text(delay)}: {outcome.error[:1024]}"
            self._outer.progress(text)
            if not await self._unless_stopped(asyncio.sleep(delay)):
                return outcome

    async def _attempt(self, index: int, step: TaskDefinition, attempt: int) -> TaskOutcome:
        outer = self._outer
        task = self._task(index, step)
        inputs = plan_inputs(task, _no_secret)
        await insist("fetch inputs", lambda: run_errands(inputs, task, outer.artifacts, _LIMITS.fetch_limit))
        declares = step.input_schema is not None or step.output_schema is not None
        if declares and self._checks is None:
            raise rejected(f"mode: local: what step {step.name!r} declares of its data can't be checked here")
        if declares and self._checks is not None and (refusal := await self._checks.before(task, inputs)) is not None:
            return refusal
        deadline = None
        if step.timeout_secs is not None:
            deadline = asyncio.get_running_loop().time() + step.timeout_secs
        host = _Host(outer, step.name)
        execution = Execution(host, task, attempt, inputs.params, inputs.refs, deadline)
        result = self._routes[step.task_type](execution)
        outcome = await self._ended(step, execution, result) if isinstance(result, Awaitable) else result
        if isinstance(outcome, Delegated):
            raise rejected(f"mode: local: step {step.name!r} can't go on as a job of its own")
        if not isinstance(outcome, Completed | Skipped | Failed):
            raise OperativeError(f"the Operative returned {type(outcome).__name__}, not an outcome")
        if isinstance(outcome, Completed) and step.output_schema is not None and self._checks is not None:
            checked, again = await self._checks.after(task, outcome)
            if not again and isinstance(checked, Failed):
                raise OperativeError(checked.error, retryable=False)
            outcome = checked
        return await self._fitted(execution, outcome)

    def _task(self, index: int, step: TaskDefinition) -> TaskQueued:
        outer = self._outer.task
        needed = {upstream_of(reference) for reference in step.input_from.values()}
        return TaskQueued(
            task_id=task_id(self._inner_id, index),
            job_id=outer.job_id,
            org_id=outer.org_id,
            job_type=outer.job_type,
            task_name=step.name,
            task_type=step.task_type,
            params=step.params,
            input_from=step.input_from,
            inputs={name: self._edges[name] for name in needed if name in self._edges},
            timeout_secs=step.timeout_secs,
            max_retries=step.max_retries,
            retry=step.retry,
            on_lost=step.on_lost,
            journal_seq=outer.journal_seq,
            depth=outer.depth + 1,
            lineage=self._lineage,
            input_schema=None if step.input_schema is None else Raw(json.encode(step.input_schema)),
            output_schema=None if step.output_schema is None else Raw(json.encode(step.output_schema)),
        )

    async def _ended(self, step: TaskDefinition, execution: Execution, result: Awaitable[Result]) -> Result:
        """The step's own end, or that which a stop or its time limit makes of it."""
        work = asyncio.ensure_future(result)
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, timeout=step.timeout_secs, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            timed_out = not self._stop.is_set()
            ended_by = Interrupt.TIMEOUT if timed_out else self._outer.interrupted or Interrupt.CANCEL
            await _interrupted(execution, work, ended_by)
        finally:
            stop.cancel()
            if not work.done():  # the worker gives up on the whole
                work.cancel()
                await asyncio.wait({work})
        kind, code, error = FailureKind.CANCELLED, 1, "cancelled"
        if timed_out:
            kind, code, error = FailureKind.TIMEOUT, TIMEOUT_EXIT_CODE, f"timed out after {step.timeout_secs:g} s"
        said = work.result() if not work.cancelled() and work.exception() is None else None
        if isinstance(said, Completed | Failed):
            return Failed(error, kind, code, said.stderr, said.output)
        return Failed(error, kind, code)

    async def _fitted(self, execution: Execution, outcome: TaskOutcome) -> TaskOutcome:
        """Large and deeply nested data goes to the artifact store here, too."""
        data = outcome.data if isinstance(outcome, Completed) else None
        if not isinstance(data, Inline):
            return outcome
        if len(bytes(data.value)) <= _LIMITS.inline_limit and not nested_deeper(bytes(data.value)):
            return outcome
        assert isinstance(outcome, Completed)
        ref = await execution.spill(bytes(data.value), "data.json", "application/json")
        assert ref.store == ARTIFACT_STORE
        return replace(outcome, data=replace(ref, items=data.items))


class _StepReporter:
    """A step's output lines, under its name."""

    __slots__ = ("_prefix", "_report", "skip")

    def __init__(self, report: LineReporter, step: str) -> None:
        self._report = report
        self._prefix = f"{step}: ".encode()
        self.skip: Callable[[str, int], bool] = getattr(report, "skip", _shows_all)

    def __call__(self, stream: str, line: bytes) -> None:
        self._report(stream, self._prefix + line)


def _shows_all(stream: str, lines: int) -> bool:
    return False


async def _interrupted(execution: Execution, work: asyncio.Future[Result], why: Interrupt) -> None:
    execution.interrupted = why
    if execution.watched:
        execution.cancel()
        await asyncio.wait({work}, timeout=GRACE)
    if not work.done():
        work.cancel()
        await asyncio.wait({work})


def _blamed(outcome: Failed, step: str, job_id: str) -> Failed:
    """The failure of the whole: the step's own, and which it was. `job_id`: the outer job, the innermost there is."""
    where = {"failed_step": step, "job_id": job_id}
    inner = outcome.data.decoded() if isinstance(outcome.data, Inline) else None
    if isinstance(inner, dict) and isinstance(inner.get("failed_step"), str) and inner.keys() == where.keys():
        where["failed_step"] = f"{step}.{inner['failed_step']}"
    return replace(outcome, output=[], data=inline(where))


def _no_secret(name: str) -> str | None:
    raise InputError(f"mode: local: secret {name!r} is not given to a step within another task; use mode: bus")


class _Host:
    """Stands behind a step: what it says is said by the outer task, what it stores is stored below that."""

    def __init__(self, outer: Execution, step: str) -> None:
        self._outer = outer
        self._step = step

    @property
    def artifacts(self) -> ArtifactStore:
        return self._outer.artifacts

    def make_work_dir(self, execution: Execution) -> Path:
        made = self._outer.work_dir / f"{execution.task.task_id}-{execution.attempt}"
        made.mkdir(mode=0o700)
        return made

    def report_progress(
        self, execution: Execution, kind: ProgressKind, message: str, lines: Sequence[str], stream: str, data: object
    ) -> None:
        known = kind if kind in (ProgressKind.OUTPUT, ProgressKind.STEP) else ProgressKind.NOTE
        text = f"{self._step}: {message}" if message else ""
        said = [f"{self._step}: {line}" for line in lines]
        self._outer.progress(text, kind=known, lines=said, stream=stream, data=data)

    def line_reporter(self, execution: Execution) -> LineReporter:
        return _StepReporter(self._outer.line_reporter, self._step)

    async def spill(
        self, execution: Execution, source: bytes | Path | AsyncIterable[bytes], name: str, media_type: str
    ) -> Ref:
        return await self._outer.spill(source, f"{execution.task.task_id}/{execution.attempt}/{name}", media_type)
