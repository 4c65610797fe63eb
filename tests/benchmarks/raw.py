"""The limit of the plain client: the message pattern of a fan-out with nats-py alone, and nothing of ours.

Publish to a work queue; two worker processes pull with a loop of their own, publish a terminal, wait for its
acknowledgement (counted on an inbox), acknowledge; the publisher consumes the terminals. No DAG, no journal.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RetentionPolicy, StreamConfig

from gbe_nexus_nats.server import EmbeddedServer

BATCH = 256
PAYLOAD = b'{"v":1,"ts":1795257717916,"id":"task_01M7YV5N4BA70CD71241DN77JB_10:queue","data":{"task_id":"x"}}' * 2


class PullLoop:
    """Two overlapping requests for a batch, on an inbox of their own."""

    def __init__(self, client: Client, stream: str, consumer: str, take: Callable[[Msg], Awaitable[None]]) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._take = take
        self._room = 0
        self._inbox = ""

    async def start(self) -> None:
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(self._inbox, cb=self._got)
        await self._request()
        await self._request()

    async def _request(self) -> None:
        self._room += BATCH
        request = {"batch": BATCH, "expires": 20_000_000_000}
        await self._client.publish(self._subject, json.dumps(request).encode(), self._inbox)

    async def _got(self, message: Msg) -> None:
        if not message.subject.startswith("raw."):
            return
        self._room -= 1
        if self._room <= BATCH:
            await self._request()
        await self._take(message)


async def _connect(url: str, user: str, password: str) -> Client:
    return await nats.connect(url, user=user, password=password)


async def worker(url: str, user: str, password: str) -> None:
    """A worker process: runs until it is killed."""
    client = await _connect(url, user, password)
    waiting: dict[str, Msg] = {}
    inbox = client.new_inbox()

    async def stored(message: Msg) -> None:
        task = waiting.pop(message.subject, None)
        if task is not None:
            await client.publish(task.reply, b"+ACK")

    async def work(message: Msg) -> None:
        reply = f"{inbox}.{len(waiting)}.{message.reply.rsplit('.', 4)[1]}"
        waiting[reply] = message
        await client.publish("raw.terminal", message.data, reply)

    await client.subscribe(f"{inbox}.>", cb=stored)
    await PullLoop(client, "RAW_QUEUE", "workers", work).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def rate(count: int, rounds: int) -> list[float]:
    """Messages per second through the whole pattern, a figure per round."""
    async with EmbeddedServer() as server:
        options = server.options
        user, password = options.user or "", options.password or ""
        client = await _connect(server.url, user, password)
        js = client.jetstream()
        await js.add_stream(
            StreamConfig(name="RAW_QUEUE", subjects=["raw.queue"], retention=RetentionPolicy.WORK_QUEUE)
        )
        await js.add_stream(StreamConfig(name="RAW_INBOX", subjects=["raw.terminal"]))
        for stream, name in (("RAW_QUEUE", "workers"), ("RAW_INBOX", "publisher")):
            config = {
                "stream_name": stream,
                "config": {"durable_name": name, "ack_policy": "explicit", "max_ack_pending": 100_000},
            }
            subject = f"$JS.API.CONSUMER.CREATE.{stream}.{name}"
            await client.request(subject, json.dumps(config).encode())
        workers = []
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.benchmarks.raw", server.url, user, password, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            await process.stdout.readline()
            workers.append(process)
        seen = 0
        all_seen = asyncio.Event()

        async def consume(message: Msg) -> None:
            nonlocal seen
            await client.publish(message.reply, b"+ACK")
            seen += 1
            if seen == count:
                all_seen.set()

        async def ignore(_: Msg) -> None:
            """The queue's acknowledgements: received, not looked at."""

        acks = client.new_inbox()
        await client.subscribe(f"{acks}.*", cb=ignore)
        await PullLoop(client, "RAW_INBOX", "publisher", consume).start()
        rates = []
        for _ in range(rounds):
            seen = 0
            all_seen.clear()
            began = time.perf_counter()
            for number in range(count):
                await client.publish("raw.queue", PAYLOAD, f"{acks}.{number}")
                if number % 200 == 199:
                    await asyncio.sleep(0)  # nats-py's reader gets its turn
            async with asyncio.timeout(60):
                await all_seen.wait()
            rates.append(count / (time.perf_counter() - began))
        for process in workers:
            process.kill()
            await process.wait()
        await client.close()
        return rates


if __name__ == "__main__":
    asyncio.run(worker(*sys.argv[1:4]))
