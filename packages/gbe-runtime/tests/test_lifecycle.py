"""The lifecycle, with roles made for the purpose. The stress suite runs on three of them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import ClassVar

import pytest

from gbe_nexus import ConsumerSpec, Message, Stream, Unavailable
from gbe_nexus_memory import connect
from gbe_runtime import BusRole, Role, RoleState
from gbe_runtime.errors import LifecycleError, StoppedDuringStart
from gbe_runtime.lifecycle_suite import LifecycleContract, MakeRole


class Plain(Role):
    """Opens a pipe, waits a few turns, and runs a loop."""

    name: ClassVar[str] = "plain"

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []

    async def _start(self) -> None:
        for descriptor in os.pipe():
            self._close_later(descriptor)
        await asyncio.sleep(0)
        self.spawn(asyncio.Event().wait(), "loop")
        await asyncio.sleep(0)
        self.steps.append("started")

    async def _stop(self) -> None:
        await asyncio.sleep(0)
        self.steps.append("stopped")

    def _close_later(self, descriptor: int) -> None:
        async def close() -> None:
            os.close(descriptor)

        self.on_stop(close)


class Subscriber(BusRole):
    """Acquires several things on the bus, one by one."""

    name: ClassVar[str] = "subscriber"

    async def _start(self) -> None:
        await self.transport.ensure_stream(Stream("WORK", ("work.>",)))
        for group in ("one", "two"):
            subscription = await self.transport.subscribe(ConsumerSpec("WORK", group), self._handle)
            self.on_stop(subscription.stop)
        await self.transport.state_store("notes")

    def _handle(self, messages: Sequence[Message]) -> None: ...


class Failing(Role):
    """Fails where it is told to."""

    name: ClassVar[str] = "failing"

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.released: list[str] = []

    async def _start(self) -> None:
        self.on_stop(self._release("first"))
        self.on_stop(self._release("second"))
        if self.where == "start":
            raise Unavailable("no server")
        if self.where == "background":
            self.spawn(self._raise(), "background")
            await asyncio.Event().wait()
        self.spawn(self._raise(), "later")

    async def _stop(self) -> None:
        if self.where == "stop":
            raise RuntimeError("can't finish")

    async def _raise(self) -> None:
        if self.where == "stop":
            await asyncio.Event().wait()
        raise ValueError("the background task died")

    def _release(self, name: str) -> Callable[[], asyncio.Future[None]]:
        async def release() -> None:
            self.released.append(name)
            if self.where == "stop":
                raise OSError(f"can't release {name}")

        return lambda: asyncio.ensure_future(release())


class TestPlainRole(LifecycleContract):
    @pytest.fixture
    def make_role(self) -> MakeRole:
        async def make() -> Role:
            return Plain()

        return make


class TestRoleOnASharedBus(LifecycleContract):
    @pytest.fixture
    async def make_role(self) -> AsyncIterator[MakeRole]:
        bus = await connect("memory://")

        async def make() -> Role:
            return Subscriber(bus)

        yield make
        await bus.close()


class TestRoleWithItsOwnBus(LifecycleContract):
    @pytest.fixture
    def make_role(self) -> MakeRole:
        async def make() -> Role:
            return Subscriber(await connect("memory://"), close_transport=True)

        return make


async def test_the_stop_ends_tasks_before_it_releases_the_last_first() -> None:
    order: list[str] = []

    class Ordered(Role):
        async def _start(self) -> None:
            self.on_stop(self._note("first"))
            self.on_stop(self._note("second"))
            self.spawn(self._loop(), "loop")

        async def _stop(self) -> None:
            order.append("_stop")

        async def _loop(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                order.append("task")

        def _note(self, what: str) -> Callable[[], asyncio.Future[None]]:
            async def note() -> None:
                order.append(what)

            return lambda: asyncio.ensure_future(note())

    role = Ordered()
    await role.start()
    await asyncio.sleep(0)
    await role.stop()
    assert order == ["_stop", "task", "second", "first"]


async def test_a_start_that_fails_raises_after_everything_is_released() -> None:
    role = Failing("start")
    with pytest.raises(Unavailable, match="no server"):
        await role.start()
    assert role.state is RoleState.STOPPED
    assert role.released == ["second", "first"]
    with pytest.raises(Unavailable):
        await role.wait()


async def test_a_background_task_that_dies_during_the_start_ends_it() -> None:
    role = Failing("background")
    with pytest.raises(ValueError, match="background task died"):
        await role.start()
    assert role.state is RoleState.STOPPED
    assert role.released == ["second", "first"]


async def test_a_background_task_that_dies_fails_the_role(caplog: pytest.LogCaptureFixture) -> None:
    role = Failing("later")
    await role.start()
    with pytest.raises(ValueError, match="background task died"):
        await role.wait()
    assert role.state is RoleState.RUNNING, "stopping is its owner's business"
    await role.stop()
    assert isinstance(role.failure, ValueError)
    assert "failing failed: the background task died" in caplog.text


async def test_what_goes_wrong_in_a_stop_hinders_nothing_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    role = Failing("stop")
    await role.start()
    await role.stop()
    assert role.state is RoleState.STOPPED
    assert role.released == ["second", "first"]
    with pytest.raises(RuntimeError, match="can't finish"):
        await role.wait()
    assert "can't release second" in caplog.text


async def test_a_role_that_is_stopped_while_it_starts_has_not_failed() -> None:
    class Slow(Role):
        async def _start(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConnectionError("some libraries do this") from None

    role = Slow()
    starting = asyncio.create_task(role.start())
    await asyncio.sleep(0)
    await role.stop()
    with pytest.raises(StoppedDuringStart):
        await starting
    await role.wait()


async def test_a_role_can_stop_itself() -> None:
    class Short(Role):
        async def _start(self) -> None:
            self.spawn(self._once(), "once")

        async def _once(self) -> None:
            await self.stop()

    role = Short()
    await role.start()
    await role.wait()
    assert role.failure is None


async def test_a_task_that_ignores_its_cancellation_is_named_and_cancelled_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gbe_runtime.lifecycle.CANCEL_AGAIN", 0.01)

    class Stubborn(Role):
        name: ClassVar[str] = "stubborn"

        async def _start(self) -> None:
            self.spawn(self._loop(), "loop")

        async def _loop(self) -> None:
            for _ in range(3):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue

    role = Stubborn()
    await role.start()
    await asyncio.sleep(0)
    await role.stop()
    assert "still waiting for 'stubborn: loop' to end" in caplog.text


async def test_nothing_runs_for_a_role_that_does_not() -> None:
    role = Plain()
    with pytest.raises(LifecycleError, match="new"):
        role.spawn(asyncio.sleep(0), "too early")
    await role.stop()
    with pytest.raises(LifecycleError, match="stopped"):
        role.spawn(asyncio.sleep(0), "too late")


async def test_the_whole_suite_notices_a_role_that_leaks() -> None:
    class Leaky(Role):
        async def _start(self) -> None:
            leaked.extend(os.pipe())

    leaked: list[int] = []

    async def make() -> Role:
        return Leaky()

    try:
        with pytest.raises(AssertionError, match="file descriptors left"):
            await LifecycleContract().test_quick_cycles_leave_nothing_behind(make)
    finally:
        for descriptor in leaked:
            os.close(descriptor)


async def test_the_suite_notices_a_subscription_that_stays() -> None:
    class Forgetful(BusRole):
        name: ClassVar[str] = "forgetful"

        async def _start(self) -> None:
            await self.transport.ensure_stream(Stream("WORK", ("work.>",)))
            await self.transport.subscribe(ConsumerSpec("WORK", "one"), lambda messages: None)
            await self.transport.state_store("notes")

    bus = await connect("memory://")

    async def make() -> Role:
        return Forgetful(bus)

    with pytest.raises(AssertionError, match="still subscribed"):
        await LifecycleContract().test_a_start_that_fails_half_way_releases_everything(make)
    await bus.close()
