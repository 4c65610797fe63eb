"""What a history refers to stays, what it doesn't goes, and what is left elsewhere on purpose stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec import Raw

from gbe_jobs_domain import streams, subjects
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref, inline
from gbe_jobs_domain.outcomes import Completed
from gbe_jobs_domain.payloads import JobSummary, TaskSummary, encode
from gbe_nexus import ArtifactStore, Transport, encode_payload, now_ms
from gbe_oracle.testing import Script
from gbe_oracle.unreferenced import Unreferenced

JOB = "job_01M8E5MQ7A4G9AYJW2QNCM1221"
TASK = "task_01M8E5MQ7A4G9AYJW2QNCM1221_0"


class Bench:
    """A store with artifacts, and a history that refers to some."""

    def __init__(self, bus: Transport, store: ArtifactStore, sweeper: Unreferenced) -> None:
        self.bus = bus
        self.store = store
        self.sweeper = sweeper

    async def put(self, *keys: str, content: bytes = b"x", media_type: str = "text/plain") -> None:
        for key in keys:
            await self.store.put(f"{JOB}/{key}", content, media_type=media_type)

    async def remember(self, data: Any = None, *, ended_at: int | None = None, **fields: Any) -> None:
        outcome = None if data is None else Raw(encode(Completed(data=data)))
        tasks = [TaskSummary("t", "noop", "completed", 1, outcome=outcome)]
        ended = now_ms() - 1_000 if ended_at is None else ended_at
        summary = JobSummary(JOB, "org_default", "test", "t", "completed", 1, ended, "0" * 64, tasks=tasks, **fields)
        await self.bus.publish(subjects.history("test", JOB), encode_payload("history", summary))

    async def sweep(self) -> list[str]:
        """What is left after a round, without the job's id."""
        owned: defaultdict[str, list[str]] = defaultdict(list)
        for key in await self.store.keys():
            owned[key.split("/")[0]].append(key)
        await self.sweeper.sweep(owned)
        return [key.removeprefix(JOB + "/") for key in await self.store.keys()]

    def ref(self, key: str) -> Ref:
        return Ref(ARTIFACT_STORE, f"{JOB}/{key}", 1, "0" * 64)


@pytest.fixture
async def bench(bus: Transport, script: Script) -> Bench:
    store = await bus.artifact_store(ARTIFACT_STORE)
    return Bench(bus, store, Unreferenced(store, await bus.journal(streams.HISTORY), after=0.5))


async def test_what_the_history_refers_to_stays(bench: Bench) -> None:
    await bench.put(f"{TASK}/1/data.json", f"{TASK}/2/body.bin", f"{TASK}/2.3/lost.txt", f"{TASK}/1/stray.txt")
    await bench.put(f"{TASK}/inputs/x_ref", "edges/t")
    uri = f"store://{ARTIFACT_STORE}/{JOB}/{TASK}/2/body.bin"
    await bench.remember(inline({"text": f"all of it is in {uri}."}), error=f"see {JOB}/{TASK}/1/data.json")
    assert await bench.sweep() == [f"{TASK}/1/data.json", f"{TASK}/2/body.bin"]


async def test_what_it_refers_to_may_refer_to_more(bench: Bench) -> None:
    await bench.put(f"{TASK}/1/part-1.bin", f"{TASK}/1/part-2.bin", f"{TASK}/1/part-3.bin", content=b"\0")
    index = b'{"parts":["store://gbe-artifacts/%s/%s/1/part-1.bin"]}' % (JOB.encode(), TASK.encode())
    await bench.put(f"{TASK}/1/index.json", content=index, media_type="application/json")
    listing = f"{JOB}/{TASK}/1/index.json {JOB}/{TASK}/1/part-2.bin".encode()
    await bench.put("history/tasks.json", content=listing, media_type="application/json")
    await bench.remember(tasks_ref=bench.ref("history/tasks.json"))
    assert await bench.sweep() == [
        "history/tasks.json",
        f"{TASK}/1/index.json",
        f"{TASK}/1/part-1.bin",
        f"{TASK}/1/part-2.bin",
    ]


async def test_where_one_is_too_large_to_look_through_all_stay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gbe_oracle.unreferenced.SCANNED", 10)
    await bench.put(f"{TASK}/1/large.txt", content=b"y" * 11)
    await bench.put(f"{TASK}/1/perhaps.txt")
    await bench.remember(bench.ref(f"{TASK}/1/large.txt"))
    assert len(await bench.sweep()) == 2


async def test_what_is_left_on_purpose_stays(bench: Bench) -> None:
    kept = ["definition.json", f"{TASK}/log.jsonl.gz", "session.json", f"children/{TASK}/results.json", "1/x"]
    await bench.put(*kept)
    await bench.remember()
    assert await bench.sweep() == sorted(kept)


async def test_a_job_under_way_and_one_that_just_ended_are_left_alone(bench: Bench) -> None:
    await bench.put(f"{TASK}/1/a.txt")
    assert await bench.sweep() == [f"{TASK}/1/a.txt"], "it has no history yet"
    await bench.remember(ended_at=now_ms() + 60_000)
    assert await bench.sweep() == [f"{TASK}/1/a.txt"], "its attempts may still be cleaning up"
    await bench.remember()
    assert await bench.sweep() == []


async def test_a_job_is_looked_at_once_unless_more_comes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.put(f"{TASK}/1/a.txt")
    await bench.remember(bench.ref(f"{TASK}/1/a.txt"))
    looks: list[str] = []
    look = bench.sweeper._referred

    async def counted(job: str, passing: frozenset[str], all_keys: Iterable[str]) -> frozenset[str] | None:
        looks.append(job)
        return await look(job, passing, all_keys)

    monkeypatch.setattr(bench.sweeper, "_referred", counted)
    await bench.sweep()
    await bench.sweep()
    assert looks == [JOB]
    await bench.put(f"{TASK}/1/late.txt")
    assert await bench.sweep() == [f"{TASK}/1/a.txt"]
    await bench.sweep()
    assert looks == [JOB, JOB]


async def test_some_at_a_time_in_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gbe_oracle.unreferenced.JOBS_AT_ONCE", 1)
    await bench.store.put("job_live/task_live_0/1/a", b"x")  # never ends
    await bench.put(f"{TASK}/1/a.txt")
    await bench.remember()
    await bench.sweep()
    await bench.sweep()
    assert await bench.store.keys() == ["job_live/task_live_0/1/a"]
