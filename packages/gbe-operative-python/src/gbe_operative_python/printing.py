"""What a function prints: as lines while it happens, bounded in memory, whole on disk where it is much.

The process says that a function has ended after it has flushed what was printed, so by then all of it is in the pipes:
reading them until they are empty gives each task its own, without a mark in between.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gbe_envoy.adapter import Limits
from gbe_envoy.adapter.capture import Lines, Output, Tail
from gbe_envoy.adapter.model import OnLine

_READ_BYTES = 64 * 1024
_REST_BYTES = 2 << 20  # more than a pipe holds: somebody else may go on writing


@dataclass(frozen=True, slots=True)
class Printed:
    """All of stdout, or (`file`) its tail and the file with the whole; the tail of stderr. The file is the caller's."""

    stdout: bytes = b""
    stdout_size: int = 0
    file: Path | None = None
    stderr: bytes = b""
    problem: str = ""
    """Why the whole could not be kept."""


NOTHING = Printed()


class _One:
    """One of the two streams."""

    __slots__ = ("attached", "fd", "lines", "name", "sink")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.attached = False
        self.sink: Output | Tail | None = None
        self.lines: Lines | None = None


class Streams:
    """The stdout and stderr of one process, of which each run gets its part."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path, executor: Executor, limits: Limits) -> None:
        self._loop = loop
        self._directory = directory
        self._executor = executor
        self._limits = limits
        self._make_lines: Callable[[], OnLine] | None = None
        self._storing: asyncio.Future[None] | None = None
        self._problem = ""
        self._closed = False
        out, out_end = os.pipe()
        try:
            err, err_end = os.pipe()
        except BaseException:
            os.close(out)
            os.close(out_end)
            raise
        self.ends = (out_end, err_end)
        """The process's; whoever passes them on closes them."""
        self._out, self._err = _One("stdout", out), _One("stderr", err)
        for one in (self._out, self._err):
            os.set_blocking(one.fd, False)
            self._attach(one)

    # --- a run ---

    def begin(self, lines: Callable[[], OnLine]) -> None:
        """What comes from now on is of another run; `lines` is asked for a line reporter when there is something."""
        self._make_lines = lines

    @property
    def busy(self) -> bool:
        """Whether the end has to wait for a file."""
        return self._storing is not None or (isinstance(self._out.sink, Output) and self._out.sink.spilling)

    def end(self) -> Printed:
        """What the run wrote. Only where `busy` is false."""
        self._read_rest(self._out)
        self._read_rest(self._err)
        if self._out.sink is None and self._err.sink is None:
            self._make_lines = None
            return NOTHING
        if self.busy:  # the rest made it large: it is still in memory, and little
            return self._take(self._stored_now())
        return self._take("")

    async def settled_end(self) -> Printed:
        """The same, where there is a file."""
        while self._storing is not None:
            await asyncio.wait([self._storing])
            await asyncio.sleep(0)  # its callback
        self._read_rest(self._out)
        self._read_rest(self._err)
        self._make_lines = None  # what comes from here on is nobody's
        problem = self._problem
        output = self._out.sink
        if isinstance(output, Output) and not problem:
            try:
                await self._loop.run_in_executor(self._executor, output.store, output.take())
            except OSError as error:
                problem = self._failed(error, output)
        return self._take(problem)

    def discard(self) -> None:
        """Nobody wants to know."""
        output, self._out.sink = self._out.sink, None
        self._forget()
        if isinstance(output, Output):
            if self._storing is not None:
                self._storing.add_done_callback(lambda _: output.discard())
            else:
                output.discard()

    def _stored_now(self) -> str:
        output = self._out.sink
        assert isinstance(output, Output)
        try:
            output.store(output.take())
        except OSError as error:
            return self._failed(error, output)
        return ""

    def _failed(self, error: OSError, output: Output) -> str:
        return f"cannot store what was printed after {output.size} bytes: {error.strerror}"

    def _take(self, problem: str) -> Printed:
        for one in (self._out, self._err):
            if one.lines is not None:
                one.lines.end()
        output, errors = self._out.sink, self._err.sink
        stdout, size, file = b"", 0, None
        if isinstance(output, Output):
            if not problem:
                try:
                    stdout = output.finish(self._limits.tail_bytes)
                except OSError as error:
                    problem = self._failed(error, output)
            if problem:
                output.discard()
            size, file = output.size, output.path
            if output.exceeded and not problem:
                problem = f"printed more than {size} bytes; what came then was dropped"
        stderr = errors.value() if isinstance(errors, Tail) else b""
        self._forget()
        return Printed(stdout, size, file, stderr, problem)

    def _forget(self) -> None:
        self._out.sink = self._err.sink = None
        self._out.lines = self._err.lines = None
        self._make_lines = None
        self._problem = ""

    # --- reading ---

    def _attach(self, one: _One) -> None:
        if not one.attached and not self._closed:
            one.attached = True
            self._loop.add_reader(one.fd, self._on_readable, one)

    def _detach(self, one: _One) -> None:
        if one.attached:
            one.attached = False
            self._loop.remove_reader(one.fd)

    def _read(self, one: _One) -> int:
        try:
            data = os.read(one.fd, _READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._detach(one)
            return 0
        if self._make_lines is None:
            return len(data)  # written between two runs, by a thread of the app, say: nobody's
        if one.sink is None:
            limits = self._limits
            if one is self._out:
                one.sink = Output(self._directory, limits.capture_bytes, limits.max_bytes)
            else:
                one.sink = Tail(limits.tail_bytes)
            one.lines = Lines(one.name, self._make_lines())
        one.sink.feed(data)
        if one.lines is not None:
            one.lines.feed(data)
        return len(data)

    def _read_rest(self, one: _One) -> int:
        """Read what is there now."""
        total = 0
        while total < _REST_BYTES and (count := self._read(one)):
            total += count
        return total

    def _on_readable(self, one: _One) -> None:
        self._read(one)
        output = one.sink
        if self._make_lines is None or not isinstance(output, Output):
            return
        if self._problem:
            output.take()
        elif output.due and self._storing is None:
            self._detach(one)
            self._storing = self._loop.run_in_executor(self._executor, output.store, output.take())
            self._storing.add_done_callback(lambda storing: self._on_stored(storing, output))

    def _on_stored(self, storing: asyncio.Future[None], output: Output) -> None:
        self._storing = None
        error = None if storing.cancelled() else storing.exception()
        if isinstance(error, OSError):
            self._problem = self._failed(error, output)
        self._attach(self._out)

    def close(self) -> None:
        """No more is read."""
        self._closed = True
        for one in (self._out, self._err):
            if one.fd >= 0:
                self._detach(one)
                os.close(one.fd)
                one.fd = -1
        self.discard()
