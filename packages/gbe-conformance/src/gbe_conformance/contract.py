"""What all suites share: the fixtures, and `Bus`, a transport with names of its own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar

import pytest

from gbe_conformance.capabilities import Capabilities, Faults
from gbe_nexus import ConsumerSpec, Handler, Start, Stream, Subscription, Transport

Connect = Callable[[], Awaitable[Transport]]
"""One more connection to the bus under test."""


class Bus:
    """A transport, and a stream's and subjects' names that no other test uses."""

    def __init__(self, transport: Transport, patience: float) -> None:
        self.transport = transport
        self.patience = patience
        self.token = "ct" + secrets.token_hex(5)
        self.stream = self.token.upper()

    def subject(self, *tokens: str) -> str:
        """A subject of this test."""
        return ".".join((self.token, *(tokens or ("a",))))

    async def ensure(
        self,
        *subjects: str,
        work_queue: bool = False,
        discard_old: bool = False,
        max_age: float = 0,
        max_bytes: int = 0,
        max_messages: int = 0,
        max_per_subject: int = 0,
        max_message_size: int = 0,
        duplicate_window: float = 120,
    ) -> Stream:
        """This test's stream, for all of its subjects unless given."""
        spec = Stream(
            self.stream,
            subjects or (self.subject(">"),),
            work_queue,
            discard_old,
            max_age,
            max_bytes,
            max_messages,
            max_per_subject,
            max_message_size,
            duplicate_window,
        )
        await self.transport.ensure_stream(spec)
        return spec

    async def publish(self, *payloads: bytes, subject: str | None = None) -> list[int]:
        """Publish one after the other; returns the sequences."""
        return [(await self.transport.publish(subject or self.subject(), payload)).seq for payload in payloads]

    async def join(
        self,
        handler: Handler,
        name: str | None = "group",
        *,
        over: Transport | None = None,
        credit: int | None = None,
        subjects: tuple[str, ...] = (),
        start: Start = Start.EARLIEST,
        ack_wait: float = 30.0,
        max_deliver: int = 0,
        max_ack_pending: int = 1000,
        pinned: bool = False,
        pin_timeout: float = 2.0,
    ) -> Subscription:
        """Subscribe to this test's stream, over another connection where given."""
        spec = ConsumerSpec(
            self.stream,
            name,
            subjects,
            start,
            ack_wait,
            max_deliver,
            max_ack_pending,
            pinned,
            pin_timeout,
        )
        return await (over or self.transport).subscribe(spec, handler, credit=credit)


class Contract:
    """Root of the suites: a subclass gives the fixture `connect`, and says what else its implementation can do."""

    capabilities: ClassVar[Capabilities] = Capabilities()

    @pytest.fixture
    def connect(self) -> Connect:
        """One more connection to the bus under test; the suite closes them."""
        raise NotImplementedError(f"{type(self).__name__} has to give the fixture `connect`")

    @pytest.fixture
    def faults(self) -> Faults:
        """With the capability `restart`: how to break the bus."""
        raise NotImplementedError(f"{type(self).__name__} has to give the fixture `faults`")

    async def flip_byte(self, transport: Transport, bucket: str, key: str) -> None:
        """With the capability `flip_byte`: change one stored byte of the artifact behind the store's back."""
        raise NotImplementedError(f"{type(self).__name__} has to give `flip_byte`")

    @pytest.fixture
    async def another(self, connect: Connect) -> AsyncIterator[Connect]:
        """Makes connections that are closed when the test is over."""
        made: list[Transport] = []

        async def make() -> Transport:
            made.append(await connect())
            return made[-1]

        yield make
        for transport in made:
            await transport.close()

    @pytest.fixture
    async def transport(self, another: Connect) -> Transport:
        """The connection most scenarios need."""
        return await another()

    @pytest.fixture
    async def second(self, another: Connect) -> Transport:
        """Another connection to the same bus: another process, as far as the bus can tell."""
        return await another()

    @pytest.fixture
    def bus(self, transport: Transport) -> Bus:
        """The transport, with names of this test's own."""
        return Bus(transport, self.capabilities.patience)

    def need(self, capability: str) -> None:
        """Skip the scenario, by name, where the implementation does not offer what it needs."""
        if not getattr(self.capabilities, capability):
            pytest.skip(f"{type(self).__name__} does not offer the capability {capability!r}")

    @property
    def quiet(self) -> float:
        """Seconds without an event that count as "does not happen"."""
        return self.capabilities.quiet

    @property
    def tick(self) -> float:
        """Seconds; the unit of waits and delays in scenarios that measure them."""
        return self.capabilities.tick

    @property
    def patience(self) -> float:
        """Seconds after which what should happen counts as not happening."""
        return self.capabilities.patience
