"""What a role says about itself on the bus."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from gbe_nexus import NotFound, Stream, Transport, Unavailable
from gbe_nexus_memory import connect
from gbe_runtime import BusRole, LifecyclePayload, bus_role
from gbe_runtime.bus_role import release
from gbe_runtime.lifecycle_payloads import ALL_LIFECYCLE, LIFECYCLE_DECODER

Heard = asyncio.Queue[tuple[str, LifecyclePayload]]


class Worker(BusRole):
    name: ClassVar[str] = "worker"
    broken: ClassVar[bool] = False

    async def _start(self) -> None:
        self.metrics.counter("done").add(3)

    def capabilities(self) -> dict[str, object]:
        return {"handles": ["shell"], **({"bad": object()} if self.broken else {})}

    def load(self) -> dict[str, float]:
        return {"slots": 4}


@pytest.fixture
async def bus() -> AsyncIterator[Transport]:
    transport = await connect("memory://")
    await transport.ensure_stream(Stream("GBE_EVENTS", (ALL_LIFECYCLE,)))
    yield transport
    await transport.close()


@pytest.fixture
async def heard(bus: Transport) -> Heard:
    said: Heard = asyncio.Queue()

    def note(subject: str, body: bytes) -> None:
        said.put_nowait((subject.removeprefix("gbe.lifecycle."), LIFECYCLE_DECODER.decode(body).data))

    await bus.listen([ALL_LIFECYCLE], note)
    return said


async def test_it_says_that_it_started_lives_and_stopped(bus: Transport, heard: Heard) -> None:
    role = Worker(bus, heartbeat_interval=0.01)
    async with asyncio.timeout(5):
        await role.start()
        subject, payload = await heard.get()
        assert subject == "worker.started"
        assert (payload.identity, payload.role, payload.pid) == (role.identity, "worker", os.getpid())
        assert payload.capabilities == {"handles": ["shell"]}
        assert payload.load == {"done": 3, "slots": 4}
        assert payload.version == release()
        assert payload.started_at == role.started_at > 0
        assert (await heard.get())[0] == "worker.heartbeat"
        await role.stop()
        last = ("", payload)
        while last[0] != "worker.stopped":
            last = await heard.get()
        assert last[1].reason is None


async def test_it_says_that_it_is_degraded_once_and_why_it_failed(bus: Transport, heard: Heard) -> None:
    role = Worker(bus)
    async with asyncio.timeout(5):
        await role.start()
        role.degrade("disk full")
        role.degrade("disk full")
        assert (await heard.get())[0] == "worker.started"
        subject, payload = await heard.get()
        assert (subject, payload.reason) == ("worker.degraded", "disk full")
        role.degrade(None)
        role.fail(RuntimeError("all is lost"))
        await role.stop()
        subject, payload = await heard.get()
        assert (subject, payload.reason) == ("worker.stopped", "all is lost")


async def test_without_a_stream_or_with_a_closed_bus_it_works_all_the_same() -> None:
    bus = await connect("memory://")
    role = Worker(bus, heartbeat_interval=0.001)
    await role.start()
    await bus.close()
    await asyncio.sleep(0.01)  # a few heartbeats into nowhere
    role.degrade("no bus")
    await role.stop()
    assert role.failure is None


async def test_capabilities_that_can_not_be_said_do_not_fail_the_role(
    bus: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Worker):
        broken: ClassVar[bool] = True

    role = Broken(bus)
    await role.start()
    await role.stop()
    assert role.failure is None
    assert "could not say that it is started" in caplog.text


async def test_a_bus_that_was_handed_over_is_closed_even_without_a_start() -> None:
    bus = await connect("memory://")
    await Worker(bus, close_transport=True).stop()
    assert not bus.connected


class Election:
    """Nobody answers the first times; then somebody does, or says what is wrong."""

    def __init__(self, silent: int, error: Exception | None = None) -> None:
        self.silent = silent
        self.error = error
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.silent:
            raise Unavailable("no answer")
        if self.error is not None:
            raise self.error
        return "leader"


async def test_a_start_is_patient_with_an_election(bus: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_role, "PATIENCE_PAUSE", 0.001)
    election = Election(3)
    assert await Worker(bus).patiently(election.ask) == "leader"
    assert election.asked == 4


async def test_patience_ends(bus: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_role, "PATIENCE_PAUSE", 0.001)
    with pytest.raises(Unavailable):
        await Worker(bus).patiently(Election(10**9).ask, patience=0.02)


async def test_patience_is_for_silence_only(bus: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_role, "PATIENCE_PAUSE", 0.001)
    election = Election(1, NotFound("no such stream"))
    with pytest.raises(NotFound):
        await Worker(bus).patiently(election.ask)
    assert election.asked == 2
