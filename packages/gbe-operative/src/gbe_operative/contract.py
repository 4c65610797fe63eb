"""The contract of the Operative role: what executes tasks implements `Operative`, and gets an `Execution` per attempt.

The worker (`gbe_operative.worker`) does everything else: claiming, leases, retries, time limits, reports.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from gbe_jobs_domain.edges import EdgeData, Ref
from gbe_jobs_domain.outcomes import FailureKind, TaskOutcome
from gbe_jobs_domain.payloads import ControlKind, ProgressKind, TaskQueued
from gbe_nexus.artifacts import ArtifactStore
from gbe_operative.controls import Controls
from gbe_operative.core.masking import Masker

if TYPE_CHECKING:
    from gbe_nexus.transport import Transport
    from gbe_operative.edge_checks import EdgeChecks


class OperativeError(Exception):
    """An attempt that failed, raised instead of returned.

    `retryable`: whether another attempt is worth it. `kind` `REJECTED` is never retried, whatever `retryable` says.
    `retry_after`: seconds before which another attempt would be in vain (a service said so); the back-off comes on
    top. `data`, `output`: what the task reports all the same, if this was the last attempt.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        kind: FailureKind = FailureKind.ERROR,
        retry_after: float = 0.0,
        data: EdgeData | None = None,
        output: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.retryable = retryable and kind in (FailureKind.ERROR, FailureKind.TIMEOUT)
        self.kind = kind
        self.retry_after = retry_after
        self.data = data
        self.output = output


class Interrupt(Enum):
    """Why an attempt is ended from outside. What `STOP` ends is handed back, so nothing of it is to be kept."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Delegated:
    """Returned instead of an outcome: the attempt's work goes on as the job `job_id`, which was submitted with this
    task as its `parent`. The task is let go of without a report; the Oracle that ends that job reports the task's end.

    Whoever returns it has had the submit accepted: the attempt is never interrupted, reported or repeated any more.
    """

    job_id: str


@dataclass(frozen=True, slots=True)
class OperativeContext:
    """What an Operative gets when it starts. `work_root`: the private directory that has all work directories.
    `checks`: of what tasks declare of their data, for an Operative that runs tasks within tasks; None: nobody checks.
    """

    worker: str
    transport: Transport
    artifacts: ArtifactStore
    work_root: Path
    checks: EdgeChecks | None = None


Result: TypeAlias = TaskOutcome | Delegated
"""What an attempt comes to."""

LineReporter = Callable[[str, bytes], None]
"""Takes "stdout" or "stderr" and a line without its end."""


class ExecutionHost(Protocol):
    """What stands behind an `Execution`: the worker, or a test's stand-in."""

    @property
    def artifacts(self) -> ArtifactStore: ...

    def make_work_dir(self, execution: Execution) -> Path: ...

    def report_progress(
        self, execution: Execution, kind: ProgressKind, message: str, lines: Sequence[str], stream: str, data: object
    ) -> None: ...

    def line_reporter(self, execution: Execution) -> LineReporter: ...

    async def spill(
        self, execution: Execution, source: bytes | Path | AsyncIterable[bytes], name: str, media_type: str
    ) -> Ref: ...


class Execution:
    """One attempt of one task, as an Operative sees it."""

    __slots__ = (
        "_cancelled",
        "_controls",
        "_host",
        "_when_cancelled",
        "_work_dir",
        "attempt",
        "deadline",
        "interrupted",
        "masker",
        "params",
        "progress_state",
        "refs",
        "spilled",
        "start",
        "task",
    )

    def __init__(
        self,
        host: ExecutionHost,
        task: TaskQueued,
        attempt: int,
        params: Mapping[str, str],
        refs: Mapping[str, Ref],
        deadline: float | None = None,
    ) -> None:
        self._host = host
        self.task = task
        self.attempt = attempt
        """From 1; counts the failed attempts before it."""
        self.start = attempt
        """Which start of the task this is, from 1: more than `attempt` where earlier ones were lost or handed back."""
        self.params = params
        """Static params, secrets and what came along the edges, resolved, in this order of precedence."""
        self.refs = refs
        """The params ending in `_ref` whose value lies in the artifact store; `params` has them as `store://` URIs."""
        self.deadline = deadline
        """The loop time at which the attempt is interrupted."""
        self.interrupted: Interrupt | None = None
        """Why `cancelled` is set."""
        self.masker: Masker | None = None
        """Replaces this task's secrets, where it has any."""
        self.progress_state: object = None
        """The host's: what it remembers of this attempt's progress."""
        self.spilled: list[str] | None = None
        """The host's: keys of what was spilled."""
        self._cancelled: asyncio.Event | None = None
        self._when_cancelled: Callable[[], None] | None = None
        self._controls: Controls | None = None
        self._work_dir: Path | None = None

    @property
    def cancelled(self) -> asyncio.Event:
        """Set when the attempt is to end (cancel, time limit, worker stopping).

        Who asks for this event is given time to clean up; any other attempt is cancelled as an asyncio task is.
        """
        if self._cancelled is None:
            self._cancelled = asyncio.Event()
        return self._cancelled

    @property
    def watched(self) -> bool:
        """Whether somebody asked for the event above, or to be called."""
        return self._cancelled is not None or self._when_cancelled is not None

    def when_cancelled(self, callback: Callable[[], None] | None) -> None:
        """Call this, once, when `cancelled` is set: cheaper than a task that waits. None takes it back."""
        self._when_cancelled = callback
        if callback is not None and self._cancelled is not None and self._cancelled.is_set():
            callback()

    def cancel(self) -> None:
        """Set `cancelled`: for the host."""
        self.cancelled.set()
        if self._when_cancelled is not None:
            self._when_cancelled()

    @property
    def controls(self) -> Controls:
        """Control messages for this attempt (pause, resume, step), of the kinds that `Operative.controls` promises."""
        if self._controls is None:
            self._controls = Controls()
        return self._controls

    @controls.setter
    def controls(self, controls: Controls) -> None:
        """The host's: those that came before there was an execution."""
        self._controls = controls

    @property
    def made_controls(self) -> Controls | None:
        """The above where somebody asked for them, or one came."""
        return self._controls

    @property
    def work_dir(self) -> Path:
        """A private directory (`GBE_WORK_DIR`), made at first access and removed after the attempt."""
        if self._work_dir is None:
            self._work_dir = self._host.make_work_dir(self)
        return self._work_dir

    @property
    def made_work_dir(self) -> Path | None:
        """The directory above where it was made."""
        return self._work_dir

    @property
    def artifacts(self) -> ArtifactStore:
        """The artifact store. Keys to write start with the job id: `gbe_jobs_domain.subjects.artifact_key`."""
        return self._host.artifacts

    def progress(
        self,
        message: str = "",
        *,
        kind: ProgressKind = ProgressKind.NOTE,
        lines: Sequence[str] = (),
        stream: str = "stdout",
        data: object = None,
    ) -> None:
        """Say how it goes. Bounded per second (the rest is counted as omitted) and nothing to wait for.

        A task that ends within a moment publishes none of it.
        """
        self._host.report_progress(self, kind, message, lines, stream, data)

    @property
    def line_reporter(self) -> LineReporter:
        """For output as it comes: the same as `progress` with lines, at a fraction of the cost for millions of them."""
        return self._host.line_reporter(self)

    def mask(self, text: str) -> str:
        """`text` with the values of this task's secrets replaced by `***`."""
        return text if self.masker is None else self.masker.text(text)

    def conceal(self, *values: str) -> None:
        """Take these for secrets as well: what is made of one, say, and could be read back out of it.

        To be called before anything else is said.
        """
        self.masker = Masker((*(self.masker.secrets if self.masker is not None else ()), *values)) or None

    async def spill(
        self, source: bytes | Path | AsyncIterable[bytes], name: str, media_type: str = "application/octet-stream"
    ) -> Ref:
        """Store something large in the artifact store, secrets masked; returns the reference to it."""
        return await self._host.spill(self, source, name, media_type)


class Operative(ABC):
    """Executes tasks of the types it handles. One object serves many attempts at once."""

    @property
    @abstractmethod
    def handles(self) -> tuple[str, ...]:
        """Task types."""

    def controls(self, task_type: str) -> frozenset[ControlKind]:
        """The control messages that tasks of this type listen to in `Execution.controls`, besides `cancel`, which the
        worker sees to. Others are ignored. They are hints: the sender repeats one until progress shows its effect.
        """
        return frozenset()

    @property
    def slots(self) -> Mapping[str, int]:
        """How many tasks of a type to run at once, where whoever starts the worker doesn't say."""
        return {}

    async def start(self, context: OperativeContext) -> None:  # noqa: B027 - most have nothing to do
        """Called once, before the first task. An error stops the worker from starting; an `OperativeError` is said as
        wrong settings are, in one line.
        """

    async def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Called once, after the last task."""

    @abstractmethod
    def execute(self, execution: Execution) -> Awaitable[Result] | Result:
        """Run one attempt. `async def` in general; where there is nothing to await, a plain method that returns the
        outcome spares a task of the event loop. `Delegated`: another job does the work.

        Raise `OperativeError`, or anything else, for a failure; the worker survives it.
        """
