"""From a command line to an exit code: what `main()` of every role's command does.

| exit code | means |
|---|---|
| 0 | stopped in order (TERM, INT, the supervisor is gone) |
| 1 | the role failed by itself; the log says why |
| 2 | configuration or environment wrong: one line on stderr, no traceback |
| 130 | interrupted a second time, while it stopped |
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from gbe_nexus import Refused, StreamFull, Unavailable, UnknownTransport
from gbe_runtime.errors import ChildFailed, ConfigurationError, StoppedDuringStart, describe
from gbe_runtime.exit_codes import FAILED, INTERRUPTED, OK, USAGE
from gbe_runtime.lifecycle import Role
from gbe_runtime.log import one_line, setup_logging
from gbe_runtime.pipes import ParentPipe, announce_ready, take_descriptor

if TYPE_CHECKING:
    from gbe_runtime.settings import BusSettings

S = TypeVar("S", bound="BusSettings")

log = logging.getLogger(__name__)

GC_THRESHOLD = 20_000
"""Objects made before the collector looks at the youngest: messages come by the thousand and leave no cycles, so at
Python's 700 it would mostly look in vain."""

ENVIRONMENT_ERRORS = (ConfigurationError, Unavailable, Refused, StreamFull, UnknownTransport)
"""Before the role runs, these say that it was started wrongly or in the wrong place."""

MakeRole = Callable[[], Awaitable[Role]]


def role_command(
    settings_type: type[S],
    make_role: Callable[[S], Awaitable[Role]],
    *,
    name: str,
    description: str,
    argv: Sequence[str] | None = None,
    use_uvloop: bool = False,
) -> int:
    """Read the settings, set up the log, run the role to its end. Returns the exit code; `name` as in `gbe-oracle`."""
    try:
        settings = settings_type.parse(argv, prog=name, description=description)
    except ConfigurationError as error:
        return complain(name, error)
    setup_logging(settings.log_format, settings.log_level, name.removeprefix("gbe-"))
    return run_role(lambda: make_role(settings), name=name, use_uvloop=use_uvloop)


def run_role(make_role: MakeRole, *, name: str = "gbe", use_uvloop: bool = False) -> int:
    """Make a role, start it, wait for a signal or its failure, stop it. Returns the exit code.

    TERM or INT stop it in order, also in the middle of its making or its start; a second INT ends the process at
    once. What `make_role` acquires it releases itself where it fails; the role it returns is always stopped.

    `GBE_READY_FD`: "ready" is written to that inherited descriptor when the role runs, and it is closed.
    `GBE_PARENT_FD`: the read end of a pipe; the role stops when nobody holds its other end any more.
    """
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    ready = take_descriptor("GBE_READY_FD")
    parent = take_descriptor("GBE_PARENT_FD")
    try:
        with asyncio.Runner(debug=False, loop_factory=_uvloop_factory() if use_uvloop else None) as runner:
            return runner.run(_run(make_role, name, ready, parent))
    except KeyboardInterrupt:  # after our handlers were taken down again
        return INTERRUPTED


def complain(name: str, error: BaseException) -> int:
    """Say on stderr what is wrong, a line each, and return the exit code for it."""
    lines = error.lines if isinstance(error, ConfigurationError) else (describe(error),)
    for line in lines:
        print(f"{name}: {one_line(line)}", file=sys.stderr, flush=True)
    return USAGE


async def _run(make_role: MakeRole, name: str, ready: int | None, parent: int | None) -> int:
    asked = asyncio.Event()
    with _Signals(name, asked), ParentPipe(parent, asked.set):
        making = asyncio.ensure_future(make_role())
        if not await _unless(asked, making):
            return OK
        try:
            role = making.result()
        except ENVIRONMENT_ERRORS as error:
            return complain(name, error)
        except ChildFailed as error:
            return _child_failed(name, error)
        except Exception:  # a role's own bug: said with its traceback, and the exit code says it, too
            log.exception("%s could not be made", name)
            return FAILED
        try:
            return await _live(role, name, asked, ready)
        finally:
            await role.stop()


async def _live(role: Role, name: str, asked: asyncio.Event, ready: int | None) -> int:
    starting = asyncio.create_task(role.start())
    stopper = asyncio.create_task(_stop_when(asked, role))
    try:
        await starting
    except StoppedDuringStart:
        return OK
    except ENVIRONMENT_ERRORS as error:
        return complain(name, error)
    except ChildFailed as error:
        return _child_failed(name, error)
    except Exception:  # the same
        log.exception("%s could not start", name)
        return FAILED
    else:
        announce_ready(ready)
        with contextlib.suppress(Exception):  # logged where it happened
            await role.wait()
        await role.stop()
        return OK if role.failure is None else FAILED
    finally:
        stopper.cancel()
        await asyncio.wait({stopper})


async def _stop_when(asked: asyncio.Event, role: Role) -> None:
    await asked.wait()
    await role.stop()


async def _unless(asked: asyncio.Event, task: asyncio.Future[Role]) -> bool:
    """Wait for the task; where we are asked to stop first, cancel it, and stop what it made all the same."""
    waiter = asyncio.ensure_future(asked.wait())
    either: set[asyncio.Future[Any]] = {task, waiter}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if task.done() and not task.cancelled():
        return True
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        await task.result().stop()
    return False


def _child_failed(name: str, error: ChildFailed) -> int:
    """A child that said what is wrong with its configuration has said it already; its code is ours."""
    if error.code == USAGE:
        return USAGE
    print(f"{name}: {one_line(str(error))}", file=sys.stderr, flush=True)
    return FAILED


class _Signals:
    """TERM and INT set `asked`; an INT after that ends the process at once."""

    def __init__(self, name: str, asked: asyncio.Event) -> None:
        self._name = name
        self._asked = asked
        self._interrupted = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._asked.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def __exit__(self, *exc: object) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)

    def _interrupt(self) -> None:
        if not self._interrupted:
            self._interrupted = True
            self._asked.set()
            return
        print(f"{self._name}: interrupted again, leaving at once", file=sys.stderr, flush=True)
        logging.shutdown()
        # No unwinding: whatever the stop hangs on would hang here too. A role that is killed loses nothing.
        os._exit(INTERRUPTED)


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
