"""The one start/stop lifecycle that every role runs.

    new → starting → running → stopping → stopped

A role goes through it once. Whatever happens on the way (a start that fails half-way, a caller that gives up, a
stop in the middle of a start) ends in `stopped` with everything released; `gbe_runtime.lifecycle_suite` holds
every role to that.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, ClassVar, TypeVar

from gbe_runtime.errors import LifecycleError, StoppedDuringStart, describe
from gbe_runtime.metrics import Metrics

T = TypeVar("T")

log = logging.getLogger(__name__)

CANCEL_AGAIN = 1.0
"""Seconds after which a task that ignored its cancellation gets another, and is named in the log."""


class RoleState(Enum):
    """Where a role is in its one life."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Role(ABC):
    """One role of the ecumene, or anything else that is started and stopped.

    A subclass writes `_start` and `_stop`; what it acquires it can also hand over at once, with `on_stop` (a release)
    and `spawn` (a background task), and then `_stop` has little to do.
    """

    name: ClassVar[str] = "role"

    def __init__(self) -> None:
        self.metrics = Metrics()
        # Two underscores, so that a subclass may have a `_tasks` of its own.
        self.__state = RoleState.NEW
        self.__failure: BaseException | None = None
        self.__starting: asyncio.Task[None] | None = None
        self.__ending: asyncio.Task[None] | None = None
        self.__ran = False
        self.__over = asyncio.Event()  # stopped, or failed
        self.__tasks: set[asyncio.Task[Any]] = set()
        self.__releases: list[Callable[[], Awaitable[object]]] = []

    # --- for subclasses -------------------------------------------------------------------------

    @abstractmethod
    async def _start(self) -> None:
        """Acquire everything. May be cancelled at any await; what it got until then `_stop` and `on_stop` release."""

    async def _stop(self) -> None:  # noqa: B027 (many roles need nothing but their releases)
        """Finish or hand back what is held. Background tasks still run.

        Called once, also after a `_start` that failed, was cancelled, or (cancelled at once) never came to its
        first line: so everything it looks at is made in `__init__`.
        """

    def on_stop(self, release: Callable[[], Awaitable[object]]) -> None:
        """Call and await `release` at the stop, after the background tasks ended; the last one registered first."""
        if self.__state is RoleState.STOPPED:
            raise LifecycleError(f"{self.name} is stopped: nobody would release this")
        self.__releases.append(release)

    def spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `coro` in the background, at the latest until the stop.

        When it raises, the role has failed. It may return, and its task may be cancelled.
        """
        if self.__state in (RoleState.NEW, RoleState.STOPPED):
            coro.close()
            raise LifecycleError(f"{self.name} is {self.__state.value}: it can't run {name!r}")
        task = asyncio.create_task(coro, name=f"{self.name}: {name}")
        self.__tasks.add(task)
        task.add_done_callback(self.__task_ended)
        return task

    def fail(self, error: BaseException) -> None:
        """The role can't go on. `wait` raises `error` from now on; the owner then stops the role."""
        if self.__failure is None:
            self.__failure = error
        log.error("%s failed: %s", self.name, describe(error), exc_info=error)
        if self.__state is RoleState.STARTING:
            self.__begin_end()  # start() raises it, when everything is released
        else:
            self.__over.set()

    def capabilities(self) -> dict[str, object]:
        """What this role can do, for its lifecycle messages. JSON-able."""
        return {}

    def load(self) -> dict[str, float]:
        """How busy it is, for its lifecycle messages; the metrics are added."""
        return {}

    async def _announce_start(self) -> None:  # noqa: B027 (for a family of roles, see BusRole)
        """Runs after `_start`, as a part of the start."""

    async def _announce_stop(self) -> None:  # noqa: B027
        """Runs after `_stop`, while background tasks and releases are still to end."""

    # --- for owners -----------------------------------------------------------------------------

    @property
    def state(self) -> RoleState:
        """Where it is now."""
        return self.__state

    @property
    def ending(self) -> bool:
        """Whether a stop has begun (or is over): nothing new is to be taken on."""
        return self.__ending is not None

    @property
    def failure(self) -> BaseException | None:
        """Why it failed, if it did."""
        return self.__failure

    async def start(self) -> None:
        """Acquire everything; running when this returns.

        Where that fails, or the caller is cancelled, everything is released before the error is raised.
        Raises `StoppedDuringStart` where somebody else called `stop`, and `LifecycleError` at the second call.
        """
        if self.__state is not RoleState.NEW:
            raise LifecycleError(f"{self.name} is {self.__state.value}: a role is started once")
        self.__state = RoleState.STARTING
        # A task of its own, so that a stop can cancel it, whoever awaits this.
        self.__starting = starting = asyncio.create_task(self.__begin(), name=f"{self.name}: start")
        try:
            await asyncio.wait({starting})
        except asyncio.CancelledError:
            await _ended(self.__begin_end())
            raise
        if self.__ran:
            return  # and perhaps stopped again, before its caller had a turn
        error = None if starting.cancelled() else starting.exception()
        if self.__failure is None and self.__ending is None:
            self.__failure = error or LifecycleError(f"{self.name}: the start cancelled itself")
        await _ended(self.__begin_end())
        if self.__failure is not None:
            raise self.__failure
        raise StoppedDuringStart(f"{self.name} was stopped while it started") from error

    async def stop(self) -> None:
        """Finish or hand back what is held, and release everything. Stopped when this returns.

        Safe at any moment and any number of times; all calls share one stop, which goes on when a caller is
        cancelled. What goes wrong in it is logged and raised by `wait`.
        """
        if self.__state is not RoleState.STOPPED:
            await _ended(self.__begin_end())

    async def wait(self) -> None:
        """Return when the role is stopped; raise its error as soon as it has failed by itself."""
        await self.__over.wait()
        if self.__failure is not None:
            raise self.__failure

    # --- machinery ------------------------------------------------------------------------------

    async def __begin(self) -> None:
        await self._start()
        await self._announce_start()
        if self.__ending is None:
            self.__ran = True
            self.__state = RoleState.RUNNING

    def __begin_end(self) -> asyncio.Task[None]:
        if self.__ending is None:
            self.__state = RoleState.STOPPING
            self.__ending = asyncio.create_task(self.__end(), name=f"{self.name}: stop")
        return self.__ending

    async def __end(self) -> None:
        try:
            if self.__starting is not None:
                await self.__cancel({self.__starting})
                if not self.__starting.cancelled():
                    self.__starting.exception()  # looked at, even where start() was given up
                await self.__attempt("stop", self._stop)
                await self.__attempt("say goodbye", self._announce_stop)
                while self.__tasks:
                    await self.__cancel(self.__tasks)
            while self.__releases:
                await self.__attempt("release", self.__releases.pop())
        finally:
            self.__state = RoleState.STOPPED
            self.__over.set()

    async def __cancel(self, tasks: set[asyncio.Task[Any]]) -> None:
        left = {task for task in tasks if not task.done()}
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN)
            for task in left:
                log.warning("%s: still waiting for %r to end", self.name, task.get_name())
        # A done task leaves the set in a callback, which may not have run yet.
        tasks -= {task for task in tasks if task.done()}

    async def __attempt(self, what: str, action: Callable[[], Awaitable[object]]) -> None:
        """One step of the stop. Whatever happens in it, the other steps follow."""
        try:
            await action()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the whole stop is cancelled: the loop is closing
            self.__note(what, error)
        except Exception as error:  # the stop goes on with what is left to stop
            self.__note(what, error)

    def __note(self, what: str, error: BaseException) -> None:
        log.error("%s could not %s in order: %s", self.name, what, describe(error), exc_info=error)
        if self.__failure is None:
            self.__failure = error if isinstance(error, Exception) else LifecycleError(f"{what} was cancelled")

    def __task_ended(self, task: asyncio.Task[Any]) -> None:
        self.__tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for a shared task: cancelling the waiter does not cancel it."""
    await asyncio.wait({task})
