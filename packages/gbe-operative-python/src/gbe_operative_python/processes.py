"""The processes that functions run in: started when they are needed, used again, replaced when they die or grow old.

Each is a command of the adapter (`gbe_envoy.adapter`), which starts it, ends it with all it started, and has the
guardian do so when the worker itself is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gbe_envoy.adapter import Command, CommandError, CommandResult, CommandRunner, Limits
from gbe_envoy.adapter.model import OnLine
from gbe_operative_python.child import Setup, argv
from gbe_operative_python.messages import LENGTH, Broken, Done, Note, Ready, Run, decode_said, frame
from gbe_operative_python.printing import Printed, Streams

log = logging.getLogger(__name__)

STARTED_IN = 60.0
"""Seconds in which a process has to have imported the app."""

IDLE_FOR = 60.0
"""Seconds after which a process that nobody needs is ended."""

FRAME_LIMIT = 64 << 20
"""Bytes of the largest message of a process: results from 1 MiB on go through a file."""


class ProcessBroken(Exception):
    """A process could not be started, or can't import the app."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a run. `done`: what the function's process said; None: it died, and `death` says how."""

    done: Done | None
    printed: Printed
    death: CommandResult | None = None


OnNote = Callable[[Note], None]


class _Wire(asyncio.Protocol):
    """Cuts what comes from the socket into messages."""

    def __init__(self, on_body: Callable[[bytes], None], on_nonsense: Callable[[], None]) -> None:
        self._on_body = on_body
        self._on_nonsense = on_nonsense
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= LENGTH:
            end = LENGTH + int.from_bytes(buffer[:LENGTH], "big")
            if end > FRAME_LIMIT:
                buffer.clear()
                self._on_nonsense()
                return
            if len(buffer) < end:
                return
            body = bytes(buffer[LENGTH:end])
            del buffer[:end]
            self._on_body(body)


class Process:
    """One of them."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._kill = asyncio.Event()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._waiter: asyncio.Future[None] | None = None
        self._done: Done | None = None
        self._on_note: OnNote | None = None
        self._theirs: list[int] = []
        self._transport: asyncio.Transport | None = None
        self._streams: Streams | None = None
        self._life: asyncio.Task[None] | None = None
        self.death: CommandResult | CommandError | None = None
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether another function may be given to it."""
        return self.death is None and not self._kill.is_set() and not (self._done is not None and self._done.last)

    # --- start ---

    async def start(self) -> None:
        """Start it and wait until it has imported the app. Raises `ProcessBroken`."""
        pool = self._pool
        ours, theirs = socket.socketpair()
        self._theirs = [theirs.detach()]
        try:
            self._streams = Streams(self._loop, pool.directory, pool.executor, pool.limits)
            self._theirs += self._streams.ends
            ours.setblocking(False)
            transport, _ = await self._loop.create_unix_connection(
                lambda: _Wire(self._on_body, self._on_nonsense), sock=ours
            )
            self._transport = transport
        except BaseException:
            ours.close()
            self._release()
            raise
        self._life = self._loop.create_task(self._live())
        timer = self._loop.call_later(STARTED_IN, self._too_late)
        try:
            await asyncio.shield(self._ready)
        finally:
            timer.cancel()

    async def _live(self) -> None:
        """From the start of the command until nothing is left of it."""
        pool = self._pool
        try:
            self.death = await pool.runner.run(
                Command(pool.argv, pool.environment, pool.cwd, pass_fds=tuple(self._theirs)),
                limits=pool.limits,
                cancel=self._kill,
            )
        except CommandError as error:
            self.death = error
        except RuntimeError as error:  # the runner is closed
            self.death = CommandError(str(error))
        finally:
            pool.forget(self)
            self._close_theirs()
            if not self._ready.done():
                self._ready.set_exception(ProcessBroken(self._why()))
                self._ready.exception()  # seen, whoever else waits
            self._wake()
            if self._waiter is None:
                self._release()

    def _why(self) -> str:
        if not isinstance(self.death, CommandResult):
            return f"a process for {self._pool.setup.app} can't be started: {self.death}"
        said = self.death.stderr.decode("utf-8", "replace").strip()[-2000:]
        how = self.death.signal or f"exit code {self.death.exit_code}"
        return f"a process for {self._pool.setup.app} ended ({how}) before it could run anything: {said or 'no word'}"

    def _too_late(self) -> None:
        self._break(f"{self._pool.setup.app} was not imported within {STARTED_IN:g} s")

    def _break(self, why: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(ProcessBroken(why))
            self._ready.exception()
        self.kill()

    # --- what it says ---

    def _on_body(self, body: bytes) -> None:
        try:
            message = decode_said(body)
        except Exception:  # whatever the function's process may have written there
            self._on_nonsense()
            return
        if isinstance(message, Done):
            # One that is being killed is over when it is gone, not before.
            if self._waiter is not None and not self._kill.is_set():
                self._done = message
                self._wake()
        elif isinstance(message, Note):
            if self._on_note is not None:
                self._on_note(message)
        elif isinstance(message, Ready):
            self._close_theirs()
            if not self._ready.done():
                self._ready.set_result(None)
        elif isinstance(message, Broken):
            self._break(f"{self._pool.setup.app} can't be imported in a process of its own: {message.error}")

    def _on_nonsense(self) -> None:
        log.warning("a process for %s said something that is no message; it is ended", self._pool.setup.app)
        self.kill()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- a run ---

    async def run(self, order: Run, on_note: OnNote, lines: Callable[[], OnLine]) -> Ended:
        """Run a function in it. Cancelled, it kills the process and doesn't wait for that."""
        assert self._transport is not None
        assert self._streams is not None
        self._done = None
        self._on_note = on_note
        self._waiter = self._loop.create_future()
        streams = self._streams
        streams.begin(lines)
        try:
            if self.death is None:
                self._transport.write(frame(order))
                await self._waiter
            printed = streams.end() if not streams.busy else await streams.settled_end()
            death = self.death if isinstance(self.death, CommandResult) else None
            return Ended(self._done, printed, death)
        except BaseException:
            self.kill()
            streams.discard()
            raise
        finally:
            self._waiter = None
            self._on_note = None
            if self.death is not None:
                self._release()

    # --- end ---

    def kill(self) -> None:
        """End it with all it started: SIGTERM, grace, SIGKILL."""
        self._kill.set()

    def retire(self) -> None:
        """Have it end by itself; killed when that takes too long."""
        if self._transport is not None:
            self._transport.close()
        self._loop.call_later(self._pool.limits.grace, self.kill)

    async def gone(self) -> None:
        """Wait until nothing is left of it."""
        if self._life is not None:
            await asyncio.wait([self._life])

    def _close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())

    def _release(self) -> None:
        self._close_theirs()
        if self._transport is not None:
            self._transport.close()
        if self._streams is not None:
            self._streams.close()


class ProcessPool:
    """As many processes as functions run at once; each runs one at a time."""

    def __init__(
        self,
        runner: CommandRunner,
        setup: Setup,
        environment: dict[str, str],
        limits: Limits,
        *,
        path: Sequence[str] | None = None,
    ) -> None:
        self.runner = runner
        self.setup = setup
        self.environment = environment
        self.limits = limits
        self.cwd = os.getcwd()
        self.idle_for = IDLE_FOR
        self._loop = asyncio.get_running_loop()
        self.argv = argv(sys.executable, setup, list(sys.path if path is None else path))
        self.directory = runner.make_work_dir()
        self.executor = ThreadPoolExecutor(2, thread_name_prefix="gbe-printed")
        self._idle: list[Process] = []
        """The one that was used last is the next to be used."""
        self._reaper: asyncio.TimerHandle | None = None
        self._all: set[Process] = set()
        self._closing = False

    async def start(self) -> None:
        """Start a first one, which shows whether the app works there. Raises `ProcessBroken`."""
        self.release(await self._new())

    async def take(self) -> Process:
        """One that is free. Raises `ProcessBroken`."""
        while self._idle:
            process = self._idle.pop()
            if process.usable:
                return process
        return await self._new()

    def release(self, process: Process) -> None:
        """It is free again, or of no more use."""
        if self._closing or not process.usable:
            process.retire()
        else:
            process.idle_since = self._loop.time()
            self._idle.append(process)
            if self._reaper is None and len(self._idle) > 1:
                self._reaper = self._loop.call_later(self.idle_for, self._reap)

    def _reap(self) -> None:
        """End those that nobody has needed for long, all but one."""
        self._reaper = None
        before = self._loop.time() - self.idle_for
        while len(self._idle) > 1 and self._idle[0].idle_since <= before:
            self._idle.pop(0).retire()
        if len(self._idle) > 1:
            self._reaper = self._loop.call_later(self.idle_for, self._reap)

    def forget(self, process: Process) -> None:
        """It is gone."""
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)

    async def _new(self) -> Process:
        process = Process(self)
        self._all.add(process)
        try:
            await process.start()
        except asyncio.CancelledError:
            process.kill()
            raise
        except OSError as error:
            self._all.discard(process)
            raise ProcessBroken(f"a process for {self.setup.app} can't be started: {error.strerror}") from error
        return process

    async def close(self) -> None:
        """End all of them."""
        self._closing = True
        if self._reaper is not None:
            self._reaper.cancel()
        for process in self._idle:
            process.retire()
        idle, self._idle = self._idle, []
        for process in idle:
            await process.gone()
        for process in list(self._all):
            process.kill()
        for process in list(self._all):
            await process.gone()
        self.executor.shutdown()
