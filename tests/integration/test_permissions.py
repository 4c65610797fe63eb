"""The server configuration of `docs/deployment.md`: each role can do its work with it, and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gbe_jobs_domain import subjects
from gbe_jobs_domain.documents import load_document
from gbe_jobs_domain.states import JobState
from gbe_jobs_domain.streams import DEADLETTER, QUEUE, streams
from gbe_nexus import ConnectOptions, ConsumerSpec, NotFound, PermissionDenied, Transport, connect
from gbe_nexus_nats.binary import find_server
from gbe_nexus_nats.server import free_port
from gbe_operative.mock import Behaviour, MockOperative
from gbe_operative.worker import Worker
from gbe_oracle.oracle import BusOracle
from gbe_overseer.client import CancelAnswer, JobClient
from tests.docs.fences import fences
from tests.workspace import ROOT

pytestmark = pytest.mark.server

PASSWORDS = ("ADMIN", "ORACLE", "OPERATIVE", "CLIENT", "ROUTE")


def configuration(name: str) -> str:
    """A file that the deployment guide shows."""
    (found,) = [fence.text for fence in fences(ROOT / "docs" / "deployment.md") if fence.file_name == name]
    return found


class Site:
    """A server with that configuration."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open: list[Transport] = []

    async def connect(self, user: str) -> Transport:
        """A connection of one of its users, whose passwords are all the same here."""
        options = ConnectOptions(user=user, password="word", timeout=10)
        transport = await connect(self.url, options)
        self._open.append(transport)
        return transport

    async def close(self) -> None:
        """Close all connections."""
        for transport in self._open:
            await transport.close()


def environment() -> dict[str, str]:
    return {**os.environ, **{f"{name}_PASSWORD": "word" for name in PASSWORDS}}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    port = free_port()
    text = configuration("nats-server.conf").replace("0.0.0.0:4222", f"127.0.0.1:{port}")
    # A flush per message is what the guide is right to ask for, and no test needs.
    text = text.replace("/var/lib/nats", str(tmp_path / "data")).replace("sync_interval: always", "")
    file = tmp_path / "nats-server.conf"
    file.write_text(text)
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [str(find_server()), "--config", str(file)], env=environment(), stdout=log, stderr=log
        )
    site = Site(f"nats://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(10):
            while True:  # until it listens
                assert server.poll() is None, (tmp_path / "server.log").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield site
    finally:
        await site.close()
        server.kill()
        server.wait()


async def make_consumer(oracle: Transport, task_type: str) -> None:
    """What the guide has an administrator do."""
    spec = ConsumerSpec(QUEUE, subjects.operative_consumer(task_type), (subjects.queue(task_type),))
    await (await oracle.subscribe(spec, lambda _: None, credit=0)).stop()


async def test_each_role_can_do_its_work_and_nothing_else(site: Site) -> None:
    oracle_bus, worker_bus, client_bus = [await site.connect(user) for user in ("oracle", "operative-shell", "client")]
    oracle = BusOracle(oracle_bus)
    await oracle.start()
    await make_consumer(oracle_bus, "shell")
    behaviours = {
        "flaky": Behaviour(fail_times=1),  # writes and removes a note
        "large": Behaviour(data="x" * 400_000),  # goes to the artifact store
        "slow": Behaviour(hang=True),
    }
    worker = Worker(worker_bus, MockOperative(("shell",), behaviours), {"shell": 4})
    await worker.start()
    try:
        client = JobClient(client_bus)
        job = load_document(
            "name: permitted\n"
            "tasks:\n"
            "  - {name: flaky, task_type: shell, max_retries: 1, retry: {delay: 0}}\n"
            "  - {name: large, task_type: shell}\n"
            "  - {name: reads, task_type: shell, depends_on: [flaky, large], input_from: {whole_ref: large}}\n",
            source="permitted.yaml",
        ).definition
        accepted = await client.submit(job)
        async with asyncio.timeout(20), client.watch(accepted.job_id, look_back=True) as watch:
            assert await watch.end() is JobState.COMPLETED
        assert [line.job_id for line in await client.jobs()] == [accepted.job_id]

        # A definition too large for a message, and what is not a task at all.
        big = load_document(
            f"name: big\ntasks: [{{name: one, task_type: shell, params: {{text: {'x' * 700_000}}}}}]\n",
            source="big.yaml",
        ).definition
        accepted = await client.submit(big)
        async with asyncio.timeout(20), client.watch(accepted.job_id) as watch:
            assert await watch.end() is JobState.COMPLETED
        await oracle_bus.publish(subjects.queue("shell"), b"not a task")
        async with asyncio.timeout(20):
            while not (await oracle_bus.stream_state(DEADLETTER)).messages:
                await asyncio.sleep(0.01)

        # A cancel reaches what is running.
        waits = load_document("name: waits\ntasks: [{name: slow, task_type: shell}]\n", source="waits.yaml").definition
        accepted = await client.submit(waits)
        async with asyncio.timeout(20):
            await worker_started(worker)
            assert (await client.cancel(accepted.job_id)).answer is CancelAnswer.CANCELLED
            while any(worker.load().values()):
                await asyncio.sleep(0.01)
    finally:
        await worker.stop()
        await oracle.stop()


async def worker_started(worker: Worker) -> None:
    """It has a task in hand."""
    while not worker.load().get("in_hand.shell"):
        await asyncio.sleep(0.01)


FORBIDDEN = [
    ("operative-shell", "gbe.jobs.evil.submit"),
    ("operative-shell", "gbe.jobs.nightly.completed"),
    ("operative-shell", "gbe.tasks.http.terminal"),
    ("operative-shell", "gbe.tasks.shell.queue"),
    ("operative-shell", "gbe.journal.nightly.job_1"),
    ("client", "gbe.tasks.shell.queue"),
    ("client", "gbe.tasks.shell.terminal"),
    ("client", "gbe.journal.nightly.job_1"),
]


async def test_what_is_not_allowed_is_refused_by_name(site: Site) -> None:
    oracle_bus = await site.connect("oracle")
    for spec in streams():
        await oracle_bus.ensure_stream(spec)
    await make_consumer(oracle_bus, "http")
    buses = {user: await site.connect(user) for user in ("operative-shell", "client")}
    for user, subject in FORBIDDEN:
        with pytest.raises(PermissionDenied, match=subject):
            await buses[user].publish(subject, b"{}", msg_id=subject)
    with pytest.raises(PermissionDenied):
        await buses["operative-shell"].trim(QUEUE, 100)
    # Another type's tasks: neither by its consumer nor by one that it makes under its own name.
    for name in ("operative-http", "operative-shell"):
        with pytest.raises((PermissionDenied, NotFound)):
            async with asyncio.timeout(15):
                await buses["operative-shell"].subscribe(
                    ConsumerSpec(QUEUE, name, (subjects.queue("http"),)), lambda _: None, credit=1
                )


def test_the_cluster_part_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "nats-server.conf"
    file.write_text(configuration("nats-server.conf") + configuration("cluster.conf"))
    checked = subprocess.run(
        [str(find_server()), "-t", "--config", str(file)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
