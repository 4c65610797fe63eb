"""What is the memory transport's own: names, limits in the URL, and its ways with the event loop."""

import asyncio
import secrets
import time

import pytest

from gbe_nexus import ConsumerSpec, Message, NotFound, Outgoing, PayloadTooLarge, Refused, Stream, connect
from gbe_nexus_memory import MemoryTransport
from gbe_nexus_memory.subjects import is_literal, is_pattern, matcher, overlap
from gbe_nexus_memory.timers import Timers


async def test_a_name_is_shared_and_no_name_is_private() -> None:
    url = f"memory://{secrets.token_hex(4)}"
    one, two, alone, other = [await connect(url) for url in (url, url, "memory://", "memory://")]
    await one.ensure_stream(Stream("S", ("s",)))
    await alone.ensure_stream(Stream("S", ("s",)))
    assert (await two.publish("s", b"")).seq == 1
    assert (await alone.publish("s", b"")).seq == 1
    with pytest.raises(NotFound):
        await other.stream_state("S")


async def test_a_name_keeps_its_data_after_close() -> None:
    url = f"memory://{secrets.token_hex(4)}"
    first = await connect(url)
    await first.ensure_stream(Stream("S", ("s",)))
    await first.publish("s", b"")
    await first.close()
    assert (await (await connect(url)).stream_state("S")).messages == 1


def test_every_loop_has_its_own() -> None:
    async def make() -> None:
        transport = await connect("memory://same")
        with pytest.raises(NotFound):
            await transport.stream_state("S")
        await transport.ensure_stream(Stream("S", ("s",)))

    asyncio.run(make())
    asyncio.run(make())


async def test_max_payload_in_the_url() -> None:
    name = secrets.token_hex(4)
    transport = await connect(f"memory://{name}?max_payload=100")
    await transport.ensure_stream(Stream("S", ("s",)))
    assert transport.max_payload == 100
    with pytest.raises(PayloadTooLarge):
        await transport.publish("s", b"x" * 101)
    assert (await connect(f"memory://{name}")).max_payload == 100
    with pytest.raises(Refused, match="max_payload 100, wanted 200"):
        await connect(f"memory://{name}?max_payload=200")


@pytest.mark.parametrize(
    "url", ["memory://a/b", "memory://a?max_payload=big", "memory://a?max_payload=-1", "memory://?x=1"]
)
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(Refused, match="not a memory URL"):
        await connect(url)


async def test_a_second_transport_on_a_private_broker() -> None:
    first = await connect("memory://")
    assert isinstance(first, MemoryTransport)
    await first.ensure_stream(Stream("S", ("s",)))
    assert (await MemoryTransport(first.broker).publish("s", b"")).seq == 1


async def test_a_handler_that_raises_harms_nobody_else() -> None:
    transport = await connect("memory://")
    await transport.ensure_stream(Stream("S", ("s",)))
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    got: list[Message] = []

    def broken(messages: object) -> None:
        raise RuntimeError("a bug")

    await transport.subscribe(ConsumerSpec("S", "broken"), broken)
    await transport.subscribe(ConsumerSpec("S", "fine"), got.extend)
    await transport.publish("s", b"1")
    await asyncio.sleep(0)
    assert [message.payload for message in got] == [b"1"]
    assert reported == ["the handler of broken on S raised"]


async def test_a_deserted_group_ends_after_its_threshold() -> None:
    transport = await connect("memory://")
    await transport.ensure_stream(Stream("S", ("s",)))
    subscription = await transport.subscribe(ConsumerSpec("S", "g", inactive_threshold=0.02), lambda _: None)
    await asyncio.sleep(0.03)
    assert (await transport.consumer_state("S", "g")).waiting == 1
    await subscription.stop()
    await asyncio.sleep(0.03)
    with pytest.raises(NotFound):
        await transport.consumer_state("S", "g")


async def test_the_loop_has_its_turn_during_a_flood() -> None:
    """Batches are bounded: a timer fires in between, however much there is to deliver."""
    transport = await connect("memory://")
    await transport.ensure_stream(Stream("S", ("s",)))
    sizes: list[int] = []
    turns = 0

    def count_turns() -> None:
        nonlocal turns
        turns += 1
        if sum(sizes) < 10_000:
            asyncio.get_running_loop().call_soon(count_turns)

    await transport.publish_many([Outgoing("s", b"") for _ in range(10_000)])
    await transport.subscribe(ConsumerSpec("S", "g"), lambda messages: sizes.append(len(messages)))
    count_turns()
    while sum(sizes) < 10_000:
        await asyncio.sleep(0)
    assert max(sizes) <= 256
    assert turns >= 10_000 // 256


async def test_timers_fire_in_order_and_on_one_timer_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    timers = Timers(loop)
    fired: list[str] = []
    now = loop.time()
    timers.at(now + 0.03, fired.append, "late")
    timers.at(now + 0.01, fired.append, "early")
    timers.at(now + 0.02, lambda: timers.at(now + 0.025, fired.append, "nested"))
    started = time.monotonic()
    while len(fired) < 3:
        await asyncio.sleep(0.001)
    assert fired == ["early", "nested", "late"]
    assert time.monotonic() - started >= 0.025


@pytest.mark.parametrize(
    ("left", "right", "meets"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "*.b", True),
        ("a.*.c", "a.b.*", True),
        ("a.*.c", "a.b.d", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "*.b", True),
        ("a.>", "b.>", False),
        (">", "a", True),
        ("a.b", "a.b.c", False),
    ],
)
def test_overlap(left: str, right: str, meets: bool) -> None:
    assert overlap(left, right) is meets
    assert overlap(right, left) is meets


def test_matching() -> None:
    assert not matcher(["a.*"])("a")
    assert not matcher(["a.>"])("a")
    assert not matcher(["a.*"])("a.b.c")
    assert matcher(["x", "a.*.c"])("a.b.c")
    assert matcher(["a+b"])("a+b")
    assert matcher([">"])("a.b")
    assert not matcher(["a.*", "b"])("c")


@pytest.mark.parametrize(
    ("subject", "literal", "pattern"),
    [
        ("a.b", True, True),
        ("a.*", False, True),
        (">", False, True),
        ("a.>", False, True),
        (">.a", False, False),
        ("a..b", False, False),
        ("", False, False),
        ("a b", False, False),
        ("a.b*", False, False),
    ],
)
def test_sound_subjects(subject: str, literal: bool, pattern: bool) -> None:
    assert is_literal(subject) is literal
    assert is_pattern(subject) is pattern
