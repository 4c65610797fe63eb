"""The stress suite of the lifecycle. Every role runs it:

    class TestOracleLifecycle(LifecycleContract):
        @pytest.fixture
        async def make_role(self, bus: Transport) -> MakeRole:
            async def make() -> Role:
                return Oracle(bus)
            return make

`make_role` makes a role that was not started. Roles made by one test may share a transport that outlives them (then
leave it open) or each have their own (then hand it over with `close_transport`). The suite needs pytest with
pytest-asyncio in auto mode; it imports neither, so it can lie beside the code.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, cast

from gbe_nexus import Subscription, Transport, Unavailable
from gbe_runtime.bus_role import BusRole
from gbe_runtime.errors import LifecycleError, StoppedDuringStart
from gbe_runtime.lifecycle import Role, RoleState

MakeRole = Callable[[], Awaitable[Role]]


class LifecycleContract:
    """Subclass it in a test module under a name that begins with `Test`, and give it a fixture `make_role`."""

    cycles: ClassVar[int] = 100
    """Quick starts and stops in a row."""
    steps: ClassVar[int] = 60
    """At how many points of a start it is disturbed, counted in turns of the event loop."""
    deadline: ClassVar[float] = 10.0
    """Seconds that a start or stop may take at most."""

    async def test_starts_and_stops(self, make_role: MakeRole) -> None:
        role = await make_role()
        _expect(role, RoleState.NEW, "as make_role made it")
        async with asyncio.timeout(self.deadline):
            await role.start()
            _expect(role, RoleState.RUNNING, "after start()")
            waiting = asyncio.create_task(role.wait())
            await asyncio.sleep(0)
            assert not waiting.done(), "wait() returned although the role runs"
            await role.stop()
            _expect(role, RoleState.STOPPED, "after stop()")
            await waiting

    async def test_is_stopped_as_often_as_anybody_likes(self, make_role: MakeRole) -> None:
        role = await make_role()
        async with asyncio.timeout(self.deadline):
            await role.start()
            await asyncio.gather(*(role.stop() for _ in range(5)))
            _expect(role, RoleState.STOPPED, "after five stops at once")
            await role.stop()
            await role.wait()

    async def test_may_be_stopped_without_a_start(self, make_role: MakeRole) -> None:
        role = await make_role()
        async with asyncio.timeout(self.deadline):
            await role.stop()
            await role.wait()
            _expect(role, RoleState.STOPPED, "after a stop without a start")
            assert isinstance(await _outcome(role.start()), LifecycleError), "start() was possible after a stop"

    async def test_is_started_once(self, make_role: MakeRole) -> None:
        role = await make_role()
        async with asyncio.timeout(self.deadline):
            await role.start()
            assert isinstance(await _outcome(role.start()), LifecycleError), "start() was possible twice"
            _expect(role, RoleState.RUNNING, "after a second start()")
            await role.stop()
            assert isinstance(await _outcome(role.start()), LifecycleError), "start() was possible after a stop"

    async def test_a_stop_goes_on_when_its_caller_gives_up(self, make_role: MakeRole) -> None:
        role = await make_role()
        async with asyncio.timeout(self.deadline):
            await role.start()
            impatient = asyncio.create_task(role.stop())
            await asyncio.sleep(0)
            impatient.cancel()
            await role.wait()
            _expect(role, RoleState.STOPPED, "when the first caller of stop() gave up")

    async def test_may_be_stopped_at_any_point_of_its_start(self, make_role: MakeRole) -> None:
        await self._at_each_step(make_role, "stop")

    async def test_a_start_may_be_cancelled_at_any_point(self, make_role: MakeRole) -> None:
        await self._at_each_step(make_role, "cancel")

    async def test_a_start_that_fails_half_way_releases_everything(self, make_role: MakeRole) -> None:
        """Each call on the bus fails in turn, until there are no more calls to fail."""
        for number in range(1, 200):
            role = await make_role()
            if not isinstance(role, BusRole):
                await role.stop()
                return  # nothing general can be broken
            role.transport, bus = _break(role.transport, number)
            async with asyncio.timeout(self.deadline):
                before = asyncio.all_tasks()
                error = await _outcome(role.start())
                if error is not None:
                    assert _comes_from(error, bus.error), f"start() hid the error of the bus behind {error!r}"
                    _expect(role, RoleState.STOPPED, "after a failed start")
                await role.stop()
                _no_new_tasks(before, role)
            assert not bus.open, f"still subscribed after the stop: {bus.open}"
            if bus.calls < number:
                return

    async def test_quick_cycles_leave_nothing_behind(self, make_role: MakeRole) -> None:
        async def cycle(count: int) -> None:
            for number in range(count):
                role = await make_role()
                async with asyncio.timeout(self.deadline):
                    if number % 3 == 2:  # one in three in a hurry
                        starting = asyncio.create_task(role.start())
                        await asyncio.sleep(0)
                        await role.stop()
                        await asyncio.wait({starting})
                        if not starting.cancelled():
                            starting.exception()
                    else:
                        await role.start()
                        await role.stop()

        await cycle(6)  # what a first use makes (caches, connections) may stay
        tasks, files = len(asyncio.all_tasks()), _open_files()
        await cycle(self.cycles)
        gc.collect()
        assert len(asyncio.all_tasks()) <= tasks, f"tasks left: {[task.get_name() for task in asyncio.all_tasks()]}"
        assert _open_files() <= files, f"{_open_files() - files} file descriptors left after {self.cycles} cycles"

    async def _at_each_step(self, make_role: MakeRole, how: str) -> None:
        for step in range(self.steps):
            role = await make_role()
            before = asyncio.all_tasks()
            async with asyncio.timeout(self.deadline):
                starting = asyncio.create_task(role.start())
                for _ in range(step):
                    await asyncio.sleep(0)
                running = role.state is RoleState.RUNNING
                if how == "cancel":
                    starting.cancel()
                else:
                    await role.stop()
                    _expect(role, RoleState.STOPPED, f"stopped after {step} turns of its start")
                await asyncio.wait({starting})
                if not starting.cancelled():
                    error = starting.exception()
                    assert error is None or isinstance(error, StoppedDuringStart | LifecycleError), (
                        f"disturbed after {step} turns, start() raised {error!r}"
                    )
                    assert role.failure is None, f"disturbed after {step} turns, it says it failed: {role.failure!r}"
                elif not running:
                    states = (RoleState.STOPPED, RoleState.NEW)  # new: cancelled before its first turn
                    assert role.state in states, f"start() was cancelled after {step} turns, and left it {role.state}"
                await role.stop()
                await role.wait()
                _no_new_tasks(before | {starting}, role)
            if running:
                return


class _BrokenBus:
    """Passes calls on to a transport; the one with the given number fails. Knows which subscriptions are open."""

    _CALLS = frozenset(
        {
            "listen",
            "ensure_stream",
            "stream_state",
            "subscribe",
            "consumer_state",
            "trim",
            "journal",
            "state_store",
            "artifact_store",
        }
    )

    def __init__(self, transport: Transport, number: int) -> None:
        self._transport = transport
        self._number = number
        self.calls = 0
        self.open: list[str] = []
        self.error = Unavailable(f"call {number} on the bus fails, for the test")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._transport, name)
        return self._counted(name, found) if name in self._CALLS else found

    def _counted(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self._number:
                raise self.error
            result = await call(*args, **options)
            if isinstance(result, Subscription):
                self._watch(f"{name}{args!r}", result)
            return result

        return counted

    def _watch(self, what: str, subscription: Subscription) -> None:
        stop = subscription.stop
        self.open.append(what)

        async def stopped() -> None:
            if what in self.open:
                self.open.remove(what)
            await stop()

        # An implementation with slots can't be watched; the other checks remain.
        try:
            subscription.stop = stopped  # type: ignore[method-assign]
        except AttributeError:
            self.open.remove(what)


def _break(transport: Transport, number: int) -> tuple[Transport, _BrokenBus]:
    broken = _BrokenBus(transport, number)
    return cast(Transport, broken), broken


def _comes_from(error: BaseException | None, origin: BaseException) -> bool:
    while error is not None:
        if error is origin:
            return True
        if isinstance(error, BaseExceptionGroup):
            return any(_comes_from(part, origin) for part in error.exceptions)
        error = error.__cause__ or error.__context__
    return False


def _no_new_tasks(before: set[asyncio.Task[Any]], role: Role) -> None:
    """Only the role's own: a shared transport may have started some of its own meanwhile."""
    left = [task.get_name() for task in asyncio.all_tasks() - before if task.get_name().startswith(f"{role.name}: ")]
    assert not left, f"tasks of the stopped role: {left}"


def _open_files() -> int:
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))
    return 0


def _expect(role: Role, state: RoleState, when: str) -> None:
    assert role.state is state, f"{when}, {role.name} is {role.state.value} instead of {state.value}"


async def _outcome(call: Awaitable[object]) -> Exception | None:
    """The error that a call ends with, None where it succeeds."""
    try:
        await call
    except Exception as error:
        return error
    return None
