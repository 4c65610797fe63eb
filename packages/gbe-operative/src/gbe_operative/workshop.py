"""What all attempts of a worker share, and what stands behind each `Execution`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Completed, TaskOutcome
from gbe_jobs_domain.payloads import ProgressKind, encode
from gbe_jobs_domain.subjects import artifact_key
from gbe_nexus import ArtifactStore, NexusError, Transport
from gbe_operative.contract import Execution, LineReporter, OperativeError
from gbe_operative.core.sizing import too_large
from gbe_operative.edge_checks import EdgeChecks
from gbe_operative.inputs import ref_of
from gbe_operative.leases import Leases
from gbe_operative.notes import Notes
from gbe_operative.outbox import Outbox
from gbe_operative.progress import AttemptProgress, OutputReporter
from gbe_operative.secrets import Secrets
from gbe_operative.settings import WorkerSettings
from gbe_operative.wishes import Wishes
from gbe_operative.workdirs import WorkDirs
from gbe_runtime.backoff import retry_delay
from gbe_runtime.metrics import Metrics

T = TypeVar("T")

log = logging.getLogger(__name__)

CHUNK = 1 << 20
POLL = 0.005
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


class Workshop:
    """The shared things. An `ExecutionHost`."""

    def __init__(
        self,
        *,
        transport: Transport,
        worker: str,
        settings: WorkerSettings,
        secrets: Secrets,
        artifacts: ArtifactStore,
        notes: Notes,
        wishes: Wishes,
        leases: Leases,
        work_dirs: WorkDirs,
        checks: EdgeChecks,
        metrics: Metrics,
    ) -> None:
        self.transport = transport
        self.worker = worker
        self.settings = settings
        self.secrets = secrets
        self.artifacts = artifacts
        self.notes = notes
        self.wishes = wishes
        self.leases = leases
        self.work_dirs = work_dirs
        self.checks = checks
        self.metrics = metrics
        self.random: Callable[[], float] = random.random
        self.batches = 0
        """Bulk reports that are not answered yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.outbox = Outbox(transport, lambda: len(self._tasks))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it beside everything else. It sees to its own errors."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part of the worker failed: %s", error, exc_info=error)

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self._tasks and not self.batches

    async def drain(self, timeout: float) -> bool:
        """Wait until nothing runs any more; False where that took too long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while not self.idle and (left := until - loop.time()) > 0:
            if self._tasks:
                await asyncio.wait(set(self._tasks), timeout=left)
            else:
                await asyncio.sleep(min(left, POLL))
        return self.idle

    async def abandon(self) -> None:
        """Cancel everything that still runs."""
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=1.0)

    async def insist(self, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Do something on the bus, again and again while it is away. Raises the errors that stay."""
        tries = 0
        while True:
            try:
                return await action()
            except NexusError as error:
                if not error.retryable:
                    raise
                tries += 1
                log.log(logging.WARNING if tries == 3 else logging.DEBUG, "can't %s yet: %s", what, error)
                await asyncio.sleep(FIRST_PAUSE + retry_delay(tries, FIRST_PAUSE, 2.0, LONGEST_PAUSE, self.random))

    # --- for executions ---

    def make_work_dir(self, execution: Execution) -> Path:
        """A private directory."""
        return self.work_dirs.make(execution.task.task_id, execution.attempt)

    def progress_of(self, execution: Execution) -> AttemptProgress:
        """The attempt's progress, made when it is needed."""
        state = execution.progress_state
        if not isinstance(state, AttemptProgress):
            state = AttemptProgress(self.transport, self.worker, execution.task, execution.attempt, execution.masker)
            execution.progress_state = state
        return state

    def report_progress(
        self, execution: Execution, kind: ProgressKind, message: str, lines: Sequence[str], stream: str, data: object
    ) -> None:
        """Publish it, within the limits."""
        self.progress_of(execution).say(kind, message, lines, stream, data)

    def line_reporter(self, execution: Execution) -> LineReporter:
        """Where output lines go."""
        return OutputReporter(self.progress_of(execution))

    async def spill(
        self, execution: Execution, source: bytes | Path | AsyncIterable[bytes], name: str, media_type: str
    ) -> Ref:
        """Store it under the attempt's key."""
        # Of two workers that both believe to have the task, neither writes over the other's, or deletes it.
        place = (
            str(execution.attempt) if execution.start == execution.attempt else f"{execution.attempt}.{execution.start}"
        )
        key = artifact_key(execution.task.job_id, execution.task.task_id, place, name)

        async def put() -> Ref:
            masker = execution.masker
            if isinstance(source, bytes):
                data = source if masker is None else masker.raw(source)
                self._check_size(execution, name, len(data))
                return ref_of(await self.artifacts.put(key, data, media_type=media_type))
            if isinstance(source, Path):
                self._check_size(execution, name, (await asyncio.to_thread(source.stat)).st_size)
            chunks = self._counted(execution, name, _read_file(source) if isinstance(source, Path) else source)
            if masker is not None:
                chunks = masker.stream(chunks)
            return ref_of(await self.artifacts.put(key, chunks, media_type=media_type))

        if execution.spilled is None:
            execution.spilled = []
        execution.spilled.append(key)
        if isinstance(source, bytes | Path):
            return await self.insist(f"store {name}", put)
        return await put()  # a stream is read once

    async def unspill(self, execution: Execution, outcome: TaskOutcome | None) -> None:
        """Delete what an attempt stored, and hands on to nobody: of a success everything is kept, of a failure what it
        speaks of. Best effort: the Oracle deletes what is left when the job is over."""
        keys, execution.spilled = execution.spilled, None
        if not keys or isinstance(outcome, Completed):
            return
        said = b"" if outcome is None else encode(outcome)
        for key in keys:
            if key.encode() not in said:
                try:
                    await self.artifacts.delete(key)
                except NexusError as error:
                    log.debug("%s is left for the Oracle to delete: %s", key, error)

    def _check_size(self, execution: Execution, name: str, size: int) -> None:
        limit = self.settings.artifact_limit
        if size > limit:
            text = too_large(execution.task.task_name, f"artifact {name!r}", size, limit)
            raise OperativeError(text, retryable=False)

    async def _counted(self, execution: Execution, name: str, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            self._check_size(execution, name, size)
            yield chunk


async def _read_file(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
