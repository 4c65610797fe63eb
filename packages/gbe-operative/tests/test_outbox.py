"""Reports leave together while other attempts run, and at once when nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gbe_nexus import Answers, ClosedError, NexusError, Outgoing, PubAck
from gbe_operative.outbox import TOGETHER, Outbox


class Bus:
    """Counts how many reports left in each publish, and answers when told."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.closed = False

    def publish_many(self, messages: Sequence[Outgoing]) -> Answers[PubAck | NexusError]:
        if self.closed:
            raise ClosedError("closed")
        self.sent.append(len(messages))
        answers: Answers[PubAck | NexusError] = Answers()
        answers.settle([PubAck("S", number) for number in range(len(messages))])
        return answers


def outbox(bus: Bus, running: int) -> Outbox:
    return Outbox(bus, lambda: running)  # type: ignore[arg-type]


REPORT = Outgoing("gbe.tasks.x.terminal", b"{}")


async def test_alone_it_leaves_at_once() -> None:
    bus = Bus()
    assert await outbox(bus, 1).publish(REPORT) == PubAck("S", 0)
    assert bus.sent == [1]


async def test_what_ends_together_leaves_together_and_each_gets_its_own_answer() -> None:
    bus = Bus()
    box = outbox(bus, 4)
    answers = await asyncio.gather(*(box.publish(REPORT) for _ in range(4)))
    assert bus.sent == [4]
    assert answers == [PubAck("S", number) for number in range(4)]


async def test_with_few_under_way_nobody_waits() -> None:
    bus = Bus()
    box = outbox(bus, 3)
    await asyncio.gather(*(box.publish(REPORT) for _ in range(3)))
    assert bus.sent == [1, 1, 1]


async def test_nobody_waits_for_attempts_that_go_on() -> None:
    bus = Bus()
    async with asyncio.timeout(5):
        await outbox(bus, 100).publish(REPORT)
    assert bus.sent == [1]


async def test_many_do_not_wait_for_more() -> None:
    bus = Bus()
    box = outbox(bus, 10_000)
    await asyncio.gather(*(box.publish(REPORT) for _ in range(TOGETHER)))
    assert bus.sent == [TOGETHER]


async def test_an_attempt_that_was_given_up_harms_no_other() -> None:
    bus = Bus()
    box = outbox(bus, 4)
    given_up = asyncio.ensure_future(box.publish(REPORT))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await box.publish(REPORT) == PubAck("S", 1)


async def test_a_closed_bus_is_an_answer_like_any_other() -> None:
    bus = Bus()
    bus.closed = True
    assert isinstance(await outbox(bus, 1).publish(REPORT), ClosedError)
