"""The process that runs functions: `gbe_operative_python.processes` starts it, one task at a time comes to it.

Descriptors it is given: 3 the socket, 4 and 5 what tasks print and complain to. They take the places of 1 and 2 when
the app is imported, so that everything written from then on, by a function, a C library or a program it starts,
belongs to the task that runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
import linecache
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import msgspec

from gbe_operative_python.arguments import ArgumentError
from gbe_operative_python.context import Context, set_current
from gbe_operative_python.declaring import App, PythonTask, app_of
from gbe_operative_python.errors import Cancelled, Reject, Retry, Skip
from gbe_operative_python.files import File
from gbe_operative_python.messages import (
    LARGE_RESULT,
    LENGTH,
    Broken,
    Done,
    End,
    Ready,
    Run,
    Said,
    decode_run,
    frame,
)

FIRST_FD = 3
FRAMES = 20
"""Of a traceback, that many frames are shown: the innermost."""
SAID = 1 << 16
"""Characters of an error or a reason."""
_RECEIVE = 1 << 16
_TERMINATED = 128 + signal.SIGTERM


class Setup(msgspec.Struct):
    """What the process is told on its command line."""

    app: str
    recycle_after: int
    max_memory: int | None = None


class _Channel:
    """The socket, blocking: there is nothing else to do while it waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._lock = threading.Lock()

    def say(self, message: Said) -> None:
        data = frame(message)
        with self._lock:
            self._socket.sendall(data)

    def hear(self) -> Run | None:
        """The next order; None when the Operative is gone."""
        buffer = self._buffer
        while True:
            if len(buffer) >= LENGTH:
                end = LENGTH + int.from_bytes(buffer[:LENGTH], "big")
                if len(buffer) >= end:
                    body = bytes(buffer[LENGTH:end])
                    del buffer[:end]
                    return decode_run(body)
            data = self._socket.recv(_RECEIVE)
            if not data:
                return None
            buffer += data


class _Process:
    """Runs one function after another."""

    def __init__(self, setup: Setup, app: App, channel: _Channel) -> None:
        self._setup = setup
        self._tasks: dict[str, PythonTask] = {task.task_type: task for task in app.tasks}
        self._channel = channel
        self._home = os.getcwd()
        self._pid = os.getpid()
        self._streams = (sys.stdout, sys.stderr)
        self._outputs = _files_of(1, 2)
        self._runner = asyncio.Runner()
        self._running: asyncio.Task[Any] | None = None
        self._busy = False
        self._synchronous = False
        self._terminated = False
        self._spoilt = False
        self._count = 0

    def serve(self) -> None:
        """Until the Operative is gone, or it is time to be replaced."""
        signal.signal(signal.SIGTERM, self._on_term)
        os.register_at_fork(after_in_child=_be_ordinary)
        self._channel.say(Ready())
        last = False
        while not last and (run := self._channel.hear()) is not None:
            self._count += 1
            done = self._run(run)
            intact = self._put_back()
            done.said = done.said[:SAID].encode("utf-8", "replace").decode()
            done.last = last = not intact or self._count >= self._setup.recycle_after or self._too_large()
            self._channel.say(done)

    def _run(self, run: Run) -> Done:
        context = Context(run, self._channel.say)
        set_current(context)
        self._busy = True
        try:
            done = self._call(run)
        except Cancelled:
            done = Done(End.FAILED, said="cancelled")
        except Skip as error:
            done = Done(End.SKIPPED, said=str(error) or "skipped by the function")
        except (Reject, ArgumentError) as error:
            done = Done(End.REJECTED, said=str(error) or "rejected by the function")
        except Retry as error:
            done = Done(End.FAILED, said=str(error) or "to be tried again", retry_after=error.after)
        except SystemExit as error:
            done = self._left(error)
        except BaseException as error:
            self._print_traceback(error, run.task_type)
            done = Done(End.FAILED, said=_said_by(error))
        finally:
            self._busy = False
            set_current(None)
        if os.getpid() != self._pid:  # the function forked and didn't end the other: there is one who serves, not two
            self._leave(0 if done.end is End.DONE else done.exit_code)
        if self._terminated:
            self._leave(_TERMINATED)
        done.dirty = context.made_work_dir or bool(done.file)
        self._go_home()
        return done

    def _call(self, run: Run) -> Done:
        task = self._tasks.get(run.task_type)
        if task is None:
            return Done(End.REJECTED, said=f"{self._setup.app} has no task type {run.task_type!r}")
        arguments = task.signature.arguments(run.params, run.secrets)
        self._synchronous = True
        try:
            value = task.function(**arguments)
        finally:
            self._synchronous = False
        if asyncio.iscoroutine(value):
            value = self._await(value)
        return _done(value, run)

    def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop = self._runner.get_loop()
        self._running = loop.create_task(coroutine)
        if self._terminated:
            self._running.cancel()
        try:
            return loop.run_until_complete(self._running)
        except asyncio.CancelledError:
            if self._terminated:
                raise Cancelled from None
            raise
        finally:
            self._running = None
            left = asyncio.all_tasks(loop)
            if left:  # started by the function and not waited for: nothing of one task goes on beside the next
                for one in left:
                    one.cancel()
                _, stubborn = loop.run_until_complete(asyncio.wait(left, timeout=1.0))
                self._spoilt = self._spoilt or bool(stubborn)

    def _on_term(self, number: int, stack: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._terminated = True
        if not self._busy:
            raise SystemExit(_TERMINATED)  # in order: what the app registered with atexit is done
        if self._running is not None:
            self._runner.get_loop().call_soon_threadsafe(self._running.cancel)
        elif self._synchronous:
            raise Cancelled

    def _leave(self, code: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)

    def _left(self, error: SystemExit) -> Done:
        """`sys.exit`, as a process would end: a text is an error, 0 is none."""
        if error.code is None or error.code == 0:
            return Done(End.DONE, b"null")
        if isinstance(error.code, int):
            return Done(End.FAILED, said=f"sys.exit({error.code})", exit_code=error.code & 0xFF or 1)
        return Done(End.FAILED, said=str(error.code))

    def _print_traceback(self, error: BaseException, task_type: str) -> None:
        with contextlib.suppress(Exception):
            linecache.checkcache()
            function = self._tasks[task_type].function if task_type in self._tasks else None
            trimmed = _own_frames(error.__traceback__, function)
            lines = traceback.format_exception(type(error), error, trimmed, limit=-FRAMES)
            sys.stderr.write("".join(lines))

    def _too_large(self) -> bool:
        limit = self._setup.max_memory
        return limit is not None and _memory() > limit

    def _put_back(self) -> bool:
        """Undo what a function may do to the process; False where that can't be: the next one must not find it so."""
        if self._spoilt:
            return False
        if signal.getsignal(signal.SIGTERM) != self._on_term:
            signal.signal(signal.SIGTERM, self._on_term)
        try:
            for stream in {sys.stdout, sys.stderr, *self._streams}:
                stream.flush()
        except Exception:  # one was closed
            return False
        sys.stdout, sys.stderr = self._streams
        return _files_of(1, 2) == self._outputs  # else what the next one prints would go elsewhere

    def _go_home(self) -> None:
        try:
            away = os.getcwd() != self._home
        except FileNotFoundError:
            away = True
        if away:
            os.chdir(self._home)


def _done(value: object, run: Run) -> Done:
    if isinstance(value, File):
        path = os.path.abspath(value.path)
        if not os.path.isfile(path):
            return Done(
                End.FAILED, said=f"the function returned File({path!r}), and there is no such file", retryable=False
            )
        return Done(End.DONE, file=path, media_type=value.kind)
    try:
        encoded = msgspec.json.encode(value, enc_hook=_encode_custom)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        return Done(
            End.FAILED,
            said=f"the function returned {type(value).__name__}, of which something is no JSON: {error}; "
            "return texts, numbers, lists, dicts, dataclasses, dates, paths, None, or a File",
            retryable=False,
        )
    items = len(value) if isinstance(value, list | tuple) else None
    if len(encoded) < LARGE_RESULT:
        return Done(End.DONE, encoded, items)
    directory = Path(run.work_dir)
    directory.mkdir(0o700, exist_ok=True)
    file = directory / ".result.json"
    file.write_bytes(encoded)
    return Done(End.DONE, items=items, file=str(file))


def _encode_custom(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, range):
        return list(value)
    # What the number types of other libraries (numpy's, say) have to be turned into Python's.
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return item()
    if callable(tolist := getattr(value, "tolist", None)):
        return tolist()
    raise TypeError(f"a {type(value).__name__}")


def _said_by(error: BaseException) -> str:
    """As `OperativeError` has it: the type, and the message where there is one."""
    try:
        text = str(error)
    except Exception:
        text = ""
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _own_frames(found: TracebackType | None, function: Any) -> TracebackType | None:
    """The traceback from the function's own frame on; as it is where that isn't in it."""
    while getattr(function, "__wrapped__", None) is not None:
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    step = found
    while step is not None:
        if step.tb_frame.f_code is code:
            return step
        step = step.tb_next
    return found


def _files_of(*descriptors: int) -> list[tuple[int, int] | None]:
    """What they refer to; None for one that is closed."""
    found: list[tuple[int, int] | None] = []
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def _be_ordinary() -> None:
    """In a process that a function forked (`multiprocessing`, say): SIGTERM ends it, as it ends any other."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _memory() -> int:
    """Bytes of this process in memory; 0 where the system doesn't tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def load(app: str) -> Any:
    """What `module` or `module:attribute` names. Raises whatever its import raises, or AttributeError."""
    module, _, attribute = app.partition(":")
    found: Any = importlib.import_module(module)
    for name in attribute.split(".") if attribute else ():
        found = getattr(found, name)
    return found


def main() -> None:
    """The process's life. `sys.argv[1]`: a `Setup` as JSON."""
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    sys.argv[1:] = []
    os.set_inheritable(FIRST_FD, False)
    channel = _Channel(socket.socket(fileno=FIRST_FD))
    try:
        app = app_of(load(setup.app))
    except BaseException as error:
        traceback.print_exception(error, limit=-FRAMES)
        channel.say(Broken(_said_by(error)[:SAID].encode("utf-8", "replace").decode()))
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for target, given in ((1, FIRST_FD + 1), (2, FIRST_FD + 2)):
        os.dup2(given, target)
        os.close(given)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    _Process(setup, app, channel).serve()


def argv(executable: str, setup: Setup, path: list[str]) -> list[str]:
    """The command line of a process with that setup and that `sys.path`."""
    boot = f"import sys; sys.path[:] = {json.dumps(path)}; from {__name__} import main; main()"
    # -P: the working directory comes first on the path only where the Operative has it there.
    return [executable, "-P", "-c", boot, msgspec.json.encode(setup).decode()]
