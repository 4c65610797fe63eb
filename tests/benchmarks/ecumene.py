"""What is measured: a real server, Oracles and Operatives in processes of their own, as `gbe up` starts them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Raw, json

import gbe_nexus
from gbe_jobs_domain import subjects
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.ids import new_job_id
from gbe_jobs_domain.payloads import JobSubmitted
from gbe_nexus import Outgoing, Transport, encode_payload
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer
from gbe_runtime.supervisor import ChildSpec, ProcessSupervisor

SLOTS = 256
HANDLES = f"noop=mock:{SLOTS},shell:16"


class Ecumene:
    """One server (or three), `oracles` Oracles and `operatives` Operatives, and a client connected to them."""

    transport: Transport
    supervisor: ProcessSupervisor

    def __init__(
        self, *, oracles: int = 1, operatives: int = 2, cluster: bool = False, sync_interval: str | None = None
    ) -> None:
        self._oracles = oracles
        self._operatives = operatives
        self._cluster = cluster
        self._sync_interval = sync_interval
        self._stack = AsyncExitStack()
        self._ended: dict[str, asyncio.Future[float]] = {}

    async def __aenter__(self) -> Self:
        server: EmbeddedServer | EmbeddedCluster
        if self._cluster:
            server = EmbeddedCluster(sync_interval=self._sync_interval)
        else:
            server = EmbeddedServer(sync_interval=self._sync_interval)
        await self._stack.enter_async_context(server)
        options = server.options
        env = {
            "GBE_NATS_URL": server.url,
            "GBE_NATS_USER": options.user or "",
            "GBE_NATS_PASSWORD": options.password or "",
            "GBE_REPLICAS": str(options.replicas),
            "GBE_LOG_LEVEL": "warning",
        }
        oracle = (sys.executable, "-m", "gbe_oracle")
        operative = (sys.executable, "-m", "gbe_operative.command", "--handles", HANDLES)
        bulk = (sys.executable, "-m", "tests.benchmarks.bulk")
        self.supervisor = ProcessSupervisor(
            [
                *(ChildSpec(f"oracle-{i}", oracle, env, restart=False) for i in range(self._oracles)),
                *(ChildSpec(f"operative-{i}", operative, env, restart=False) for i in range(self._operatives)),
                *(ChildSpec(f"bulk-{i}", bulk, env, restart=False) for i in range(self._operatives)),
            ]
        )
        await self.supervisor.start()
        self._stack.push_async_callback(self.supervisor.stop)
        self.transport = await gbe_nexus.connect(server.url, options)
        self._stack.push_async_callback(self.transport.close)
        await self.transport.listen([f"gbe.jobs.*.{end}" for end in ("completed", "failed", "refused")], self._seen)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _seen(self, subject: str, body: bytes) -> None:
        at = time.perf_counter()
        data = json.decode(body)["data"]
        waiter = self._ended.get(data["job_id"])
        if waiter is not None and not waiter.done():
            if subject.endswith(".completed"):
                waiter.set_result(at)
            else:
                waiter.set_exception(RuntimeError(f"{subject}: {data}"))

    async def run(self, jobs: Sequence[JobDefinition]) -> float:
        """Submit the jobs at once; seconds from then until the last is seen completed."""
        loop = asyncio.get_running_loop()
        outgoing = []
        waiting = []
        job_ids = []
        for job in jobs:
            job_id = new_job_id()
            job_ids.append(job_id)
            future: asyncio.Future[float] = loop.create_future()
            self._ended[job_id] = future
            waiting.append(future)
            event_id = f"{job_id}:submit"
            body = json.encode(job)
            submit = JobSubmitted(job_id, job.job_type, definition=Raw(body))
            if len(body) > self.transport.max_payload // 2:
                submit = await self._by_reference(job_id, job, body)
            outgoing.append(Outgoing(subjects.submit(job.job_type), encode_payload(event_id, submit), event_id))
        began = time.perf_counter()
        await self.transport.publish_many(outgoing)
        async with asyncio.timeout(60):
            ends = await asyncio.gather(*waiting)
        for job_id in job_ids:
            del self._ended[job_id]
        return max(ends) - began

    async def _by_reference(self, job_id: str, job: JobDefinition, body: bytes) -> JobSubmitted:
        from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref

        store = await self.transport.artifact_store(ARTIFACT_STORE)
        key = subjects.artifact_key(job_id, "definition.json")
        stored = await store.put(key, body, media_type="application/json")
        ref = Ref(ARTIFACT_STORE, key, stored.size, stored.sha256, stored.media_type)
        return JobSubmitted(job_id, job.job_type, definition_ref=ref)

    def rss(self, name: str) -> int:
        """Resident bytes of a child now."""
        status = Path(f"/proc/{self.supervisor.pids[name]}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
