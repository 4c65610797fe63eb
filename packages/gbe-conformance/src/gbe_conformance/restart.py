"""A bus that is killed: nothing acknowledged is lost, and what ran goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from gbe_conformance.capabilities import Faults
from gbe_conformance.contract import Bus, Contract
from gbe_conformance.inbox import Inbox, until
from gbe_nexus import Conflict, NexusError, Outgoing, PubAck, Unavailable

T = TypeVar("T")

RECOVERY = 20.0
"""Seconds in which a connection finds the bus again."""


class RestartContract(Contract):
    """N11. Subclass it as `Test…` with the fixture `connect`, the capability `restart` and the fixture `faults`."""

    async def test_nothing_acknowledged_is_lost(self, bus: Bus, request: pytest.FixtureRequest) -> None:
        """N11: killed between publish and consume → every message whose publish was acknowledged is there."""
        faults = self._faults(request)
        await bus.ensure(work_queue=True)
        acks = await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n) for n in range(500)])
        assert all(isinstance(ack, PubAck) for ack in acks)
        await faults.kill(bus.stream)
        await faults.restart()
        inbox = Inbox(ack=True)
        await self._persist(lambda: bus.join(inbox))
        await inbox.expect(500, RECOVERY)
        assert sorted(inbox.payloads) == sorted(b"%d" % n for n in range(500))

    async def test_subscriptions_go_on(self, bus: Bus, request: pytest.FixtureRequest) -> None:
        """N11: killed and restarted under a running subscription → it goes on by itself; reconnecting is announced."""
        faults = self._faults(request)
        await bus.ensure()
        inbox = Inbox(ack=True)
        await bus.join(inbox, ack_wait=2.0)
        await bus.publish(b"before")
        await inbox.expect_payloads(b"before", within=bus.patience)
        await bus.transport.flush()
        await faults.kill(bus.stream)
        await faults.restart()
        await self._persist(lambda: bus.transport.publish(bus.subject(), b"after", msg_id="after"))
        while (await inbox.expect(1, RECOVERY))[0].payload != b"after":
            pass  # the first one may come again

    async def test_credit_is_neither_lost_nor_doubled(self, bus: Bus, request: pytest.FixtureRequest) -> None:
        """N11: a credit of five, two of them used, a restart → three more come, the rest waits."""
        faults = self._faults(request)
        await bus.ensure(work_queue=True)
        inbox = Inbox(ack=True)
        subscription = await bus.join(inbox, credit=5)
        await bus.publish(b"1", b"2")
        await inbox.expect(2, bus.patience)
        await bus.transport.flush()
        await faults.kill(bus.stream)
        await faults.restart()
        await self._persist(lambda: bus.transport.publish(bus.subject(), b"3", msg_id="3"))
        await bus.transport.publish_many([Outgoing(bus.subject(), b"%d" % n, f"{n}") for n in range(4, 10)])
        await inbox.expect(3, RECOVERY)
        await inbox.expect_nothing(self.quiet * 3)
        subscription.grant(20)

        async def complete() -> bool:
            return set(inbox.payloads) == {b"%d" % n for n in range(1, 10)}

        # A crash may forget the last acks: what was acknowledged right before it may come again.
        await until(complete, RECOVERY)

    async def test_publishing_over_a_kill(self, bus: Bus, request: pytest.FixtureRequest) -> None:
        """N11: publishing with ids while the bus is killed → each is stored once, or said to be unknown."""
        faults = self._faults(request)
        await bus.ensure()
        messages = [Outgoing(bus.subject(), b"%d" % n, f"id-{n}") for n in range(300)]
        pending = bus.transport.publish_many(messages)
        await faults.kill(bus.stream)
        await faults.restart()
        results = await pending
        assert all(isinstance(result, PubAck | Unavailable) for result in results)
        again = await self._persist(lambda: self._all_stored(bus, messages))
        acknowledged = {n: result.seq for n, result in enumerate(results) if isinstance(result, PubAck)}
        assert {n: again[n].seq for n in acknowledged} == acknowledged
        assert (await bus.transport.stream_state(bus.stream)).messages == 300

    async def test_unacknowledged_messages_come_again(self, bus: Bus, request: pytest.FixtureRequest) -> None:
        """N11: in hand and not acknowledged when the bus was killed → delivered again."""
        faults = self._faults(request)
        await bus.ensure(work_queue=True)
        inbox = Inbox()
        await bus.join(inbox, ack_wait=1.0)
        await bus.publish(b"1", b"2")
        await inbox.expect_payloads(b"1", b"2", within=bus.patience)
        await faults.kill(bus.stream)
        await faults.restart()
        again = await inbox.expect(2, RECOVERY)
        assert {message.payload for message in again} == {b"1", b"2"}

    async def test_stores_keep_what_they_had(self, bus: Bus, request: pytest.FixtureRequest) -> None:
        """N11: journal and state are as they were, and compare-and-swap goes on from there."""
        faults = self._faults(request)
        await bus.ensure()
        journal = await bus.transport.journal(bus.stream)
        state = await bus.transport.state_store(bus.token)
        seq = await journal.append(bus.subject("j"), b"1", 0)
        revision = await state.put("key", b"value")
        await faults.kill(bus.stream)
        await faults.restart()
        record = await self._persist(lambda: journal.last(bus.subject("j")))
        assert record is not None
        assert (record.seq, record.payload) == (seq, b"1")
        entry = await self._persist(lambda: state.get("key"))
        assert entry is not None
        assert (entry.value, entry.revision) == (b"value", revision)
        assert await journal.append(bus.subject("j"), b"2", seq) > seq
        assert await state.swap("key", b"new", revision) > revision

    async def test_a_cluster_goes_on_without_one_member(self, bus: Bus, request: pytest.FixtureRequest) -> None:
        """N11: the stream's leader is killed → publishing, delivery and the journal go on before it is back."""
        self.need("cluster")
        faults = self._faults(request)
        await bus.ensure()
        inbox = Inbox(ack=True)
        await bus.join(inbox, ack_wait=2.0)
        journal = await bus.transport.journal(bus.stream)
        seq = await journal.append(bus.subject("j"), b"1", 0)
        await faults.kill(bus.stream)
        try:
            await self._persist(lambda: bus.transport.publish(bus.subject(), b"after", msg_id="after"))
            while (await inbox.expect(1, RECOVERY))[0].payload != b"after":
                pass
            record = await self._persist(lambda: journal.last(bus.subject("j")))
            assert record is not None
            assert record.seq == seq
            await self._persist(lambda: self._append(bus, seq))
        finally:
            await faults.restart()

    def _faults(self, request: pytest.FixtureRequest) -> Faults:
        self.need("restart")
        faults: Faults = request.getfixturevalue("faults")
        return faults

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's result, trying again as long as the bus is on its way back."""
        deadline = asyncio.get_running_loop().time() + RECOVERY
        while True:
            try:
                return await call()
            except NexusError as error:
                if not error.retryable or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def _all_stored(self, bus: Bus, messages: list[Outgoing]) -> list[PubAck]:
        """The acks of all messages, sent again with their ids; raises the first error."""
        acks: list[PubAck] = []
        for result in await bus.transport.publish_many(messages):
            if isinstance(result, NexusError):
                raise result
            acks.append(result)
        return acks

    async def _append(self, bus: Bus, seq: int) -> None:
        """One more record after `seq`; that it is there already counts, where an earlier try's outcome was unknown."""
        journal = await bus.transport.journal(bus.stream)
        try:
            await journal.append(bus.subject("j"), b"2", seq)
        except Conflict:
            record = await journal.last(bus.subject("j"))
            assert record is not None
            assert record.payload == b"2"
