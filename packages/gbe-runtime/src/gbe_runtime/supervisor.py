"""`ProcessSupervisor`: keeps the roles of one host running as child processes.

A child that dies is started again, after a pause that grows while it keeps dying. Children are told to stop when the
supervisor stops, and notice by themselves when it is killed (`GBE_PARENT_FD`, see `gbe_runtime.command.run_role`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar, Literal

from gbe_runtime.backoff import retry_delay
from gbe_runtime.errors import ChildFailed, describe
from gbe_runtime.lifecycle import Role, RoleState

log = logging.getLogger(__name__)

CANNOT_EXECUTE = 127
"""The exit code of a command that isn't there, as shells have it."""

Event = Literal["started", "ready", "died", "restarting", "degraded", "recovered", "ended", "stopped"]
OnEvent = Callable[[str, Event, str], None]
"""Called with the child's name, what happened, and a detail for people."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A command to keep running.

    `env` is added to the supervisor's environment. `restart`: start it again when it ends, whatever its exit code.
    `log_file`: its output is appended there, else it goes to the supervisor's stderr.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    restart: bool = True
    log_file: Path | None = None


class ProcessSupervisor(Role):
    """Starts the children together; running when all are ready. One that fails before is `ChildFailed`.

    Times in seconds. `grace`: from TERM to KILL at the stop. `ready_timeout`: a child that isn't ready by then counts
    as dead. `stable_after`: one that lived for so long starts with a clean record. After `degraded_after` deaths in
    a row it is reported degraded, and tried on, every `max_delay` seconds in the end.
    """

    name: ClassVar[str] = "supervisor"

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        on_event: OnEvent | None = None,
        grace: float = 10.0,
        ready_timeout: float = 30.0,
        stable_after: float = 10.0,
        base_delay: float = 0.1,
        max_delay: float = 15.0,
        degraded_after: int = 3,
    ) -> None:
        super().__init__()
        self.grace = grace
        self.ready_timeout = ready_timeout
        self.stable_after = stable_after
        self.base_delay = base_delay
        self.max_delay = max_delay
        self.degraded_after = degraded_after
        self._on_event = on_event
        self._children = [_Child(spec) for spec in specs]
        self._first_starts: asyncio.Queue[tuple[_Child, _Record | None]] = asyncio.Queue()
        self._parent_pipe = -1

    @property
    def pids(self) -> dict[str, int]:
        """The children that live, by name."""
        return {child.spec.name: child.process.pid for child in self._children if child.process is not None}

    def capabilities(self) -> dict[str, object]:
        """The names of the children."""
        return {"children": [child.spec.name for child in self._children]}

    async def _start(self) -> None:
        # Nothing is ever written: while we live, we hold the other end; when we die, the kernel closes it.
        self._parent_pipe, ours = os.pipe()
        self.on_stop(_closer(ours))
        self.on_stop(_closer(self._parent_pipe))
        for child in self._children:
            self.spawn(self._keep(child), f"keep {child.spec.name}")
        for _ in self._children:
            child, failed = await self._first_starts.get()
            if failed is not None:
                raise ChildFailed(child.spec.name, failed.code, failed.how)

    async def _stop(self) -> None:
        living = [child for child in self._children if child.process is not None]
        for child in living:
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)  # one that is suspended would sit on its TERM
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace):
                for child in living:
                    await child.gone.wait()
        for child in living:
            if child.process is not None:
                log.warning("%s did not stop within %g s: killed", child.spec.name, self.grace)
                child.signal(signal.SIGKILL)
        for child in living:
            await child.gone.wait()

    async def _keep(self, child: _Child) -> None:
        """Run a child again and again, until the stop."""
        deaths = 0
        while True:
            if self.state is RoleState.STOPPING:  # during a pause, or before this task ran at all
                return
            record = await self._run_once(child, degraded=deaths >= self.degraded_after)
            if self.ending:
                self._tell(child, "stopped", record.how)
                return
            if not child.was_ready:
                self._first_starts.put_nowait((child, record))
                return
            if not child.spec.restart:
                self._tell(child, "ended", record.how)
                return
            self._tell(child, "died", record.how)
            deaths = 1 if record.stable else deaths + 1
            if deaths == self.degraded_after:
                self._tell(child, "degraded", f"{deaths} deaths in a row, the last: {record.how}")
            # Without jitter: nobody else restarts these, and an even pause is easier to follow.
            delay = retry_delay(deaths, self.base_delay, 2.0, self.max_delay, lambda: 1.0)
            self._tell(child, "restarting", f"in {delay:.3g} s")
            await asyncio.sleep(delay)

    async def _run_once(self, child: _Child, *, degraded: bool) -> _Record:
        ready, ready_end = os.pipe()
        try:
            try:
                process = self._execute(child.spec, ready_end)
            except OSError as error:
                return _Record(CANNOT_EXECUTE, f"can't execute {child.spec.argv[0]!r}: {describe(error)}")
            finally:
                os.close(ready_end)
            child.process = process
            child.gone.clear()
            exited = asyncio.create_task(_exit(process))
            try:
                self._tell(child, "started", f"pid {process.pid}")
                return await self._watch(child, exited, ready, degraded=degraded)
            finally:
                if not exited.done():
                    process.kill()
                    await asyncio.wait({exited})
                child.process = None
                child.gone.set()
        finally:
            os.close(ready)

    async def _watch(self, child: _Child, exited: asyncio.Task[int], ready: int, *, degraded: bool) -> _Record:
        """From the start of a process to its end."""
        reading = asyncio.create_task(_first_line(ready))
        try:
            await asyncio.wait({reading, exited}, timeout=self.ready_timeout, return_when=asyncio.FIRST_COMPLETED)
            said_ready = reading.done() and reading.result()
            if not said_ready and not exited.done():
                # It closed its end, which an ending process does, or it is late.
                await asyncio.wait({exited}, timeout=1.0 if reading.done() else 0)
                if not exited.done():
                    late = "never said that it is ready" if reading.done() else f"not ready in {self.ready_timeout:g} s"
                    return _Record(-signal.SIGKILL, f"{late}: killed")
            if said_ready:
                if not child.was_ready:
                    child.was_ready = True
                    self._first_starts.put_nowait((child, None))
                self._tell(child, "ready", f"pid {self.pids.get(child.spec.name, 0)}")
            _, lives = await asyncio.wait({exited}, timeout=self.stable_after)
            if lives and degraded:
                self._tell(child, "recovered", f"up for {self.stable_after:g} s")
            code = await asyncio.shield(exited)
            return _Record(code, _how(code), stable=bool(lives))
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    def _execute(self, spec: ChildSpec, ready_end: int) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **spec.env,
            "GBE_READY_FD": str(ready_end),
            "GBE_PARENT_FD": str(self._parent_pipe),
        }
        with contextlib.ExitStack() as files:
            # Never our stdout: results are printed there.
            output: int | IO[bytes] = sys.stderr.fileno()
            if spec.log_file is not None:
                output = files.enter_context(spec.log_file.open("ab"))
            return subprocess.Popen(
                list(spec.argv),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(ready_end, self._parent_pipe),
                # A Ctrl-C on the terminal is for us; we then stop the children in order.
                start_new_session=True,
            )

    def _tell(self, child: _Child, event: Event, detail: str) -> None:
        serious = event in ("died", "degraded")
        log.log(logging.WARNING if serious else logging.INFO, "%s %s: %s", child.spec.name, event, detail)
        if self._on_event is not None:
            try:
                self._on_event(child.spec.name, event, detail)
            except Exception:  # whoever only listens must not end what is supervised
                log.exception("the listener to supervisor events raised")


class _Child:
    """A spec and the process that now serves it."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.gone = asyncio.Event()
        self.gone.set()
        self.was_ready = False  # at least once

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)


@dataclass(frozen=True, slots=True)
class _Record:
    """How one life of a child ended. `stable`: it was long enough to forget earlier deaths."""

    code: int
    how: str
    stable: bool = False


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


async def _exit(process: subprocess.Popen[bytes]) -> int:
    """Await its end without a thread, where the kernel has pidfds."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return await asyncio.to_thread(process.wait)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


async def _first_line(descriptor: int) -> bool:
    """Whether something was said through a pipe before it was closed."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
        return bool(os.read(descriptor, 64))
    finally:
        loop.remove_reader(descriptor)


def _closer(descriptor: int) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        os.close(descriptor)

    return close
