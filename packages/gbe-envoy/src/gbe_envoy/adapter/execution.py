"""The life of one command, from its start until nothing of it is left.

Most commands end within a millisecond or two, and then the event loop is the bottleneck; so at first only the end of
the process is watched, and its output, at most what its pipes hold, is read then. Only a command which is still there
after `growth.YOUNG` seconds gets readers on its pipes, its timer and a watch on its cancel event.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from gbe_envoy.adapter import guardian
from gbe_envoy.adapter.capture import CHUNK_BYTES, Lines, Output, Tail
from gbe_envoy.adapter.errors import CommandError, OutputError
from gbe_envoy.adapter.exits import ExitWatcher
from gbe_envoy.adapter.growth import YOUNG, Growth
from gbe_envoy.adapter.guard import Guard
from gbe_envoy.adapter.model import Command, CommandResult, Limits, OnLine
from gbe_envoy.adapter.spawn import spawn

TIMEOUT_EXIT_CODE = 124

_READ_BYTES = 64 * 1024
_REST_BYTES = 2 * CHUNK_BYTES  # more than a pipe holds
_POLL_FIRST, _POLL_LAST = 0.01, 0.1
_GONE_SECONDS = 2.0

_numbers = itertools.count(1)


class Stop(Enum):
    """Why a command is being ended before its time."""

    TIMEOUT = auto()
    CANCEL = auto()
    OUTPUT_LIMIT = auto()
    STORAGE = auto()


class _Pipe:
    """The reading end of one of the command's output pipes."""

    __slots__ = ("_feed", "_lines", "attached", "eof", "fd", "read_bytes")

    def __init__(self, fd: int, feed: Callable[[bytes], None], lines: Lines | None) -> None:
        self.fd = fd
        self._feed = feed
        self._lines = lines
        self.attached = False
        self.eof = False
        self.read_bytes = _READ_BYTES

    def read(self) -> int:
        """Takes in what one read gives: the number of bytes, 0 when there is nothing now, or (`eof`) ever again."""
        try:
            data = os.read(self.fd, self.read_bytes)
        except BlockingIOError:
            return 0
        if not data:
            self.eof = True
            return 0
        self._feed(data)
        if self._lines is not None:
            self._lines.feed(data)
        return len(data)

    def widen(self) -> None:
        """Make the pipe hold more: much is coming."""
        if self.read_bytes != _READ_BYTES or not hasattr(fcntl, "F_SETPIPE_SZ"):
            return
        self.read_bytes = 4 * _READ_BYTES
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, self.read_bytes)
        except OSError:  # the user has used up what the system grants for pipes
            return

    def end(self) -> None:
        if self._lines is not None:
            self._lines.end()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the commands of a runner share."""

    loop: asyncio.AbstractEventLoop
    guard: Guard | None
    directory: Path
    executor: Executor
    """Writes output to files: may be held up by a slow disk."""
    searcher: Executor
    """Looks for processes: must not be held up by anything."""
    exits: ExitWatcher
    growth: Growth
    null: int
    """A descriptor of /dev/null."""
    token: str
    """Marks, with a number behind it, the environment of each command."""


class Execution:
    """Runs one command once."""

    __slots__ = (
        "_cancel",
        "_cancel_task",
        "_command",
        "_environment",
        "_errors",
        "_grown",
        "_limits",
        "_loop",
        "_marker",
        "_output",
        "_pid",
        "_reaped",
        "_shared",
        "_started_at",
        "_status",
        "_stderr",
        "_stdout",
        "_stop",
        "_storage_error",
        "_storing",
        "_timeout",
        "_timer",
        "_waiter",
        "_watch",
        "done",
    )

    def __init__(
        self,
        command: Command,
        limits: Limits,
        timeout: float | None,
        cancel: asyncio.Event | None,
        on_line: OnLine | None,
        shared: Surroundings,
    ) -> None:
        self._shared = shared
        self._loop = shared.loop
        self._command = command
        self._limits = limits
        self._timeout = timeout
        self._cancel = cancel
        self._output = Output(shared.directory, limits.capture_bytes, limits.max_bytes)
        self._errors = Tail(limits.tail_bytes)
        self._stop: Stop | None = None
        self._storage_error: OSError | None = None
        self._storing: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancel_task: asyncio.Task[bool] | None = None
        self._grown = False
        self._reaped = False
        self._status = 0
        self._started_at = _now()
        self.done = False
        token = f"{shared.token}.{next(_numbers)}."
        self._marker = f"{guardian.MARKER}={token}".encode()
        self._environment = {**command.env, guardian.MARKER: token}
        self._start(on_line)

    # --- start --------------------------------------------------------------------------------------

    def _start(self, on_line: OnLine | None) -> None:
        shared = self._shared
        null, guard = shared.null, shared.guard
        fds: list[int] = []
        try:
            fds.append(_open_stdin(self._command, null))
            fds.extend(os.pipe())
            fds.extend(os.pipe())
            stdin, stdout, stdout_end, stderr, stderr_end = fds
            os.set_blocking(stdout, False)
            os.set_blocking(stderr, False)
            ends = (stdin, stdout_end, stderr_end, *self._command.pass_fds)
            self._pid = spawn(self._command.argv, self._environment, self._command.cwd, ends)
        except BaseException as error:
            for fd in fds:
                if fd != null:
                    os.close(fd)
            if isinstance(error, OSError):
                raise CommandError(f"cannot run {_name(self._command)}: {error.strerror}") from error
            raise
        if guard is not None:
            guard.note(self._pid)
        os.close(stdout_end)
        os.close(stderr_end)
        if stdin != null:
            os.close(stdin)
        self._stdout = _Pipe(stdout, self._output.feed, Lines("stdout", on_line) if on_line else None)
        self._stderr = _Pipe(stderr, self._errors.feed, Lines("stderr", on_line) if on_line else None)
        try:
            self._watch = shared.exits.watch(self._pid, self._notify)
        except CommandError:
            os.killpg(self._pid, signal.SIGKILL)
            if guard is not None:
                guard.forget(self._pid)
            os.waitpid(self._pid, 0)
            os.close(stdout)
            os.close(stderr)
            raise
        if self._timeout is not None and self._timeout < YOUNG:
            self._timer = self._loop.call_later(max(0.0, self._timeout), self.stop, Stop.TIMEOUT)
        shared.growth.add(self)

    def grow(self) -> None:
        """The command is not one of the short ones: read its output as it comes, and mind time and cancel."""
        if self._watch.ended or self._grown:
            return
        self._grown = True
        self._attach()
        if self._timeout is not None and self._timer is None:
            self._timer = self._loop.call_later(max(0.0, self._timeout - YOUNG), self.stop, Stop.TIMEOUT)
        if self._cancel is not None:
            if self._cancel.is_set():
                self.stop(Stop.CANCEL)
            else:
                self._cancel_task = self._loop.create_task(self._cancel.wait())
                self._cancel_task.add_done_callback(self._on_cancel)

    def _on_cancel(self, task: asyncio.Task[bool]) -> None:
        if not task.cancelled():
            self.stop(Stop.CANCEL)

    # --- the whole ----------------------------------------------------------------------------------

    async def run(self) -> CommandResult:
        """Wait for the end. Raises OutputError; when cancelled, first ends the command."""
        try:
            while not self._watch.ended and self._stop is None:
                await self._wait(None)
            if not self._watch.ended:
                await self._terminate()
            await self._drain()
            return self._result()
        except asyncio.CancelledError:
            self._stop = self._stop or Stop.CANCEL
            await _undisturbed(self._loop.create_task(self._abandon()))
            raise
        finally:
            self._release()

    def stop(self, reason: Stop) -> None:
        """End the command: the first reason counts, and none once it has ended by itself."""
        if self._stop is None and not self._watch.ended:
            self._stop = reason
            self._notify()

    async def _abandon(self) -> None:
        if not self._watch.ended:
            await self._terminate()
        if not self._reaped:
            await self._drain()

    async def _wait(self, timeout: float | None) -> None:
        """Until something happens or `timeout` seconds are over; what it was, the caller sees from the state."""
        self._waiter = self._loop.create_future()
        timer = None if timeout is None else self._loop.call_later(timeout, self._notify)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- output -------------------------------------------------------------------------------------

    def _attach(self) -> None:
        for pipe in (self._stdout, self._stderr):
            held_back = pipe is self._stdout and self._storing is not None
            if not pipe.attached and not pipe.eof and not held_back:
                pipe.attached = True
                self._loop.add_reader(pipe.fd, self._on_readable, pipe)

    def _detach(self, pipe: _Pipe) -> None:
        if pipe.attached:
            pipe.attached = False
            self._loop.remove_reader(pipe.fd)

    def _on_readable(self, pipe: _Pipe) -> None:
        pipe.read()
        if pipe.eof:
            self._detach(pipe)
            self._notify()
        elif pipe is self._stdout:
            self._mind_output()

    def _mind_output(self) -> None:
        """Have what is due stored by a thread, and read no more until it is."""
        output = self._output
        if output.exceeded:
            self.stop(Stop.OUTPUT_LIMIT)
        if output.due and self._storing is None and self._storage_error is None:
            self._stdout.widen()
            self._detach(self._stdout)
            self._storing = self._loop.run_in_executor(self._shared.executor, output.store, output.take())
            self._storing.add_done_callback(self._on_stored)
        elif self._storage_error is not None:
            output.take()

    def _on_stored(self, storing: asyncio.Future[None]) -> None:
        self._storing = None
        error = None if storing.cancelled() else storing.exception()
        if isinstance(error, OSError):
            self._storage_error = error
            self.stop(Stop.STORAGE)
        if self._grown and not self._reaped:
            self._attach()
        self._notify()

    async def _stored(self) -> None:
        while self._storing is not None:
            await self._wait(None)

    def _read_rest(self) -> None:
        """Read what the pipes hold now, without waiting; bounded, should somebody go on writing."""
        for pipe in (self._stdout, self._stderr):
            rest = _REST_BYTES
            while rest > 0 and not pipe.eof and (count := pipe.read()):
                rest -= count

    # --- end ----------------------------------------------------------------------------------------

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self._pid, number)
        except (ProcessLookupError, PermissionError):  # gone; or (macOS) only zombies are left
            return

    async def _find(self) -> list[int]:
        return await self._loop.run_in_executor(
            self._shared.searcher, guardian.find, frozenset({self._pid}), self._marker
        )

    async def _send_all(self, number: int) -> None:
        """Signal the group at once and, by a search, what has left it for another group or session."""
        self._signal_group(number)
        await self._loop.run_in_executor(
            self._shared.searcher, guardian.send_to_strays, frozenset({self._pid}), self._marker, number
        )

    async def _terminate(self) -> None:
        """SIGTERM to everything of the command, SIGKILL to what is left after the grace time.

        The leader is not reaped before the end, so that its number, which is the group's, cannot be another's.
        """
        if not self._grown:
            self._grown = True
            self._attach()  # whoever says goodbye at length must not hang on a full pipe
        deadline = self._loop.time() + self._limits.grace
        await self._send_all(signal.SIGTERM)
        await self._send_all(signal.SIGCONT)  # what is stopped would not see the other signal
        pause = _POLL_FIRST
        while (left := deadline - self._loop.time()) > 0:
            if not self._watch.ended:
                await self._wait(left)
            elif await self._find():
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, _POLL_LAST)
            else:
                break
        await self._send_all(signal.SIGKILL)
        while not self._watch.ended:
            await self._wait(None)

    async def _drain(self) -> None:
        """After the leader's end: take the rest of its output, end the rest of its group."""
        self._read_rest()
        if not (self._stdout.eof and self._stderr.eof):
            await self._linger()
        self._signal_group(signal.SIGKILL)
        if self._shared.guard is not None:
            self._shared.guard.forget(self._pid)
        self._reaped = True
        self._status = self._watch.reap()
        if _group_exists(self._pid):
            await self._until_gone()
        if not (self._stdout.eof and self._stderr.eof):
            self._read_rest()
        for pipe in (self._stdout, self._stderr):
            self._detach(pipe)
            pipe.end()
        if self._output.spilling:
            await self._store_rest()

    async def _linger(self) -> None:
        """Somebody still holds the pipes: a moment for what is about to end, such as a `tee` behind the command."""
        self._grown = True
        self._attach()
        deadline = self._loop.time() + (self._limits.linger if self._stop is None else 0)
        while not (self._stdout.eof and self._stderr.eof) and (left := deadline - self._loop.time()) > 0:
            await self._wait(left)

    async def _until_gone(self) -> None:
        """The rest of the group has been killed; wait until it is gone, so that nobody uses its directory any more."""
        deadline = self._loop.time() + _GONE_SECONDS
        pause = 0.001
        while _group_exists(self._pid) and self._loop.time() < deadline:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _POLL_LAST)
            # Zombies count as existing where init does not reap them, and they are nobody's trouble.
            if pause > 2 * _POLL_FIRST and not await self._find():
                return

    async def _store_rest(self) -> None:
        await self._stored()
        if self._storage_error is None:
            try:
                await self._loop.run_in_executor(self._shared.executor, self._output.store, self._output.take())
            except OSError as error:
                self._storage_error = error

    def _result(self) -> CommandResult:
        output = self._output
        try:
            if self._storage_error is not None:
                raise self._storage_error
            stdout = output.finish(self._limits.tail_bytes)
        except OSError as error:
            raise OutputError(
                f"cannot store the output of {_name(self._command)} after {output.size} bytes: {error.strerror}; "
                "the command was ended"
            ) from error
        code = os.waitstatus_to_exitcode(self._status)
        spill, output.path = output.path, None  # the caller's from here on
        return CommandResult(
            exit_code=TIMEOUT_EXIT_CODE if self._stop is Stop.TIMEOUT else code if code >= 0 else 128 - code,
            signal=signal_name(-code) if code < 0 else None,
            stdout=stdout,
            stdout_size=output.size,
            spill=spill,
            stderr=self._errors.value(),
            stderr_size=self._errors.size,
            timed_out=self._stop is Stop.TIMEOUT,
            cancelled=self._stop is Stop.CANCEL,
            output_limit=output.exceeded,
            started_at=self._started_at,
            ended_at=_now(),
        )

    def _release(self) -> None:
        """Give everything back, whatever has happened."""
        self.done = True
        if not self._reaped:  # only when ending it in peace was made impossible, as by a second cancellation
            self._signal_group(signal.SIGKILL)
            if self._shared.guard is not None:
                self._shared.guard.forget(self._pid)
            self._reaped = True
            self._watch.reap()
        self._watch.close()
        for pipe in (self._stdout, self._stderr):
            self._detach(pipe)
            os.close(pipe.fd)
        if self._timer is not None:
            self._timer.cancel()
        if self._cancel_task is not None:
            self._cancel_task.cancel()
        if self._storing is not None:
            self._storing.add_done_callback(lambda _: self._output.discard())
        else:
            self._output.discard()


async def _undisturbed(task: asyncio.Task[None]) -> None:
    """Wait for the task, through any number of cancellations of the one who waits."""
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()  # seen; the cancellation is what the caller is told


def signal_name(number: int) -> str:
    """ "SIGKILL" for 9; real-time signals, which have no names, as "SIG40"."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _open_stdin(command: Command, null: int) -> int:
    """A descriptor with the command's input. Bytes go into an anonymous file: nobody has to feed a pipe."""
    source = command.stdin
    if source is None:
        return null
    if isinstance(source, Path):
        try:
            return os.open(source, os.O_RDONLY | os.O_NOCTTY)
        except OSError as error:
            raise CommandError(f"cannot run {_name(command)}: its input {source}: {error.strerror}") from error
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("stdin")
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            fd = os.dup(file.fileno())
    try:
        with memoryview(source) as view:
            written = 0
            while written < len(view):
                written += os.write(fd, view[written:])
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a member which changed its user
        return True
    return True


def _name(command: Command) -> str:
    return repr(command.argv[0]) if command.argv else "an empty command"


def _now() -> int:
    return time.time_ns() // 1_000_000
