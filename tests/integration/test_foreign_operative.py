"""An Operative that shares no code with ours: steps 1 to 6 of `docs/protocol.md`, by the client library and JSON."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from gbe_jobs_domain.documents import load_document
from gbe_jobs_domain.states import JobState
from gbe_nexus import connect
from gbe_nexus_nats.server import EmbeddedServer
from gbe_operative.mock import Behaviour, MockOperative
from gbe_operative.worker import Worker
from gbe_oracle.oracle import BusOracle
from gbe_overseer.client import JobClient

pytestmark = pytest.mark.server

TYPE = "foreign"
NANO = 1_000_000_000

JOB = """
name: two worlds
tasks:
  - {name: first, task_type: foreign, params: {word: hello}}
  - {name: second, task_type: foreign, depends_on: [first], input_from: {word: first.0.said}}
  - {name: last, task_type: ours, depends_on: [second], input_from: {WORD: second.0.said, ALL: second}}
  - {name: wrong, task_type: foreign, depends_on: [last], params: {fail: "yes"}}
"""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def have_the_consumer(client: Client) -> None:
    """Step 1."""
    config = {
        "name": f"operative-{TYPE}",
        "durable_name": f"operative-{TYPE}",
        "filter_subject": f"gbe.tasks.{TYPE}.queue",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": 30 * NANO,
        "max_deliver": -1,
        "max_ack_pending": 100_000,
        "max_waiting": 8192,
        "replay_policy": "instant",
    }
    request = {"stream_name": "GBE_QUEUE", "config": config, "action": "create"}
    subject = f"$JS.API.CONSUMER.CREATE.GBE_QUEUE.operative-{TYPE}"
    answer = json.loads((await client.request(subject, json.dumps(request).encode())).data)
    assert "error" not in answer, answer


def outcome_of(task: dict[str, Any]) -> dict[str, Any]:
    """Steps 4 and 5, for what this job needs of them."""
    params = dict(task.get("params", {}))
    for param, reference in task.get("input_from", {}).items():
        upstream, _, path = reference.partition(".")
        value = task["inputs"][upstream]["value"]
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        params[param] = value
    if "fail" in params:
        return {"state": "failed", "kind": "error", "exit_code": 7, "error": "as asked"}
    said = [{"said": params["word"] + "!"}]
    return {"state": "completed", "data": {"kind": "inline", "value": said, "items": 1}}


async def serve(client: Client) -> None:
    """Steps 2, 3 and 6, for ever."""
    stream = client.jetstream()
    pulling = await stream.pull_subscribe_bind(f"operative-{TYPE}", "GBE_QUEUE")
    while True:
        try:
            (message,) = await pulling.fetch(1, timeout=5)
        except TimeoutError:
            continue
        envelope = json.loads(message.data)
        assert envelope["v"] == 1
        await report(client, message, envelope["data"])


async def report(client: Client, message: Msg, task: dict[str, Any]) -> None:
    """Step 6: the terminal, its ack, and only then the ack of the queue message."""
    started_at = now_ms()
    event_id = f"{task['task_id']}:1:terminal"
    ended = {name: task[name] for name in ("task_id", "job_id", "job_type", "task_name", "task_type")} | {
        "attempt": 1,
        "worker": "a stranger",
        "started_at": started_at,
        "ended_at": now_ms(),
        "outcome": outcome_of(task),
    }
    body = json.dumps({"v": 1, "ts": now_ms(), "id": event_id, "data": ended}).encode()
    await client.jetstream().publish(f"gbe.tasks.{TYPE}.terminal", body, headers={"Nats-Msg-Id": event_id})
    await message.ack()


async def test_a_stranger_takes_part() -> None:
    async with EmbeddedServer() as server:
        bus = await connect(server.url, server.options)
        oracle = BusOracle(bus)
        await oracle.start()  # makes the streams
        ours = MockOperative(("ours",), {"last": Behaviour()})
        worker = Worker(bus, ours)
        await worker.start()
        client = await nats.connect(server.url, user=server.options.user, password=server.options.password)
        serving: asyncio.Task[None] | None = None
        try:
            await have_the_consumer(client)
            serving = asyncio.create_task(serve(client))
            jobs = JobClient(bus)
            accepted = await jobs.submit(load_document(JOB, source="job.yaml").definition)
            async with asyncio.timeout(20), jobs.watch(accepted.job_id, look_back=True) as watch:
                assert await watch.end() is JobState.FAILED
            assert ours.seen["last"] == {"WORD": "hello!!", "ALL": '[{"said":"hello!!"}]'}
            summary = await jobs.summary(accepted.job_id)
            assert summary is not None
            assert (summary.failed_task, summary.error) == ("wrong", "as asked")
            assert [task.worker for task in summary.tasks[:2]] == ["a stranger"] * 2
        finally:
            if serving is not None:
                serving.cancel()
                await asyncio.wait({serving})
            await client.close()
            await worker.stop()
            await oracle.stop()
            await bus.close()
