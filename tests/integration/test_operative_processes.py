"""The Operative as a process, on a real server, with real commands and real signals (P5, P12-P14, P17, P18)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.edges import ARTIFACT_STORE, inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_jobs_domain.payloads import OnLost, RetryPolicy, SecretRef, TaskNote
from gbe_nexus import ConnectOptions, connect
from gbe_nexus_nats.server import EmbeddedServer
from gbe_operative.testing import Hall as RealHall

pytestmark = pytest.mark.server

Hall = Any  # what it returns is a union, which each test knows better

LEASE = 1.0
PATIENCE = 60.0


class Worker:
    """A `gbe-operative` process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def stop(self) -> int:
        """TERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


class Site:
    """A server, a hall on it, and worker processes."""

    def __init__(self, server: EmbeddedServer, hall: Hall, directory: Path) -> None:
        self.server = server
        self.hall = hall
        self.directory = directory
        self.workers: list[Worker] = []

    async def worker(self, handles: str = "shell:4", *arguments: str, **environment: str) -> Worker:
        """A process that is ready for tasks."""
        return await self._start("--handles", handles, *arguments, **environment)

    async def app(self, location: str, *arguments: str, **environment: str) -> Worker:
        """One that serves an app of the site's directory."""
        return await self._start("--app", location, *arguments, **environment)

    async def _start(self, *arguments: str, **environment: str) -> Worker:
        log = self.directory / f"worker-{len(self.workers)}.log"
        ready, ready_end = os.pipe()
        options = self.server.options
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "GBE_NATS_URL": self.server.url,
            "GBE_NATS_USER": options.user or "",
            "GBE_NATS_PASSWORD": options.password or "",
            "GBE_READY_FD": str(ready_end),
            "GBE_ACK_WAIT": str(LEASE),
            "GBE_STOP_GRACE": "0.2",
            "GBE_LOG_LEVEL": "debug",
            **environment,
        }
        command = [sys.executable, "-m", "gbe_operative.command", *arguments]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, env=env, stdout=output, stderr=output, pass_fds=[ready_end], cwd=self.directory
            )
        os.close(ready_end)
        worker = Worker(process, log)
        self.workers.append(worker)
        try:
            said = await asyncio.wait_for(asyncio.to_thread(os.read, ready, 16), PATIENCE)
        finally:
            os.close(ready)
        # A task may have killed it before it came to say that it is ready.
        assert said or await worker.process.wait() == -signal.SIGKILL, log.read_text()
        return worker

    async def close(self) -> None:
        """Kill what is left."""
        for worker in self.workers:
            if worker.process.returncode is None:
                worker.signal(signal.SIGKILL)
                await worker.process.wait()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with EmbeddedServer() as server:
        options: ConnectOptions = server.options
        bus = await connect(server.url, options)
        async with RealHall.on(bus) as hall:
            site = Site(server, hall, tmp_path)
            try:
                yield site
            finally:
                await site.close()
        await bus.close()


def runs(pid: int) -> bool:
    """Whether the process does something: nobody may be there to reap a dead one in a container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def pid_in(file: Path) -> int:
    """The number a command wrote there."""
    async with asyncio.timeout(PATIENCE):
        while not (file.exists() and file.read_text().strip()):
            await asyncio.sleep(0.01)
    return int(file.read_text())


async def gone(pid: int, within: float) -> None:
    async with asyncio.timeout(within):
        while runs(pid):
            await asyncio.sleep(0.01)


async def test_a_task_of_any_type_name(site: Site) -> None:
    """P17: the roles document's `data-fetch`, served by the shell Operative; P5: data along the edges."""
    await site.worker("data-fetch=shell:2,shell:1")
    hall = site.hall
    await hall.queue(
        hall.task("fetch", "data-fetch", params={"command": """echo '{"url": "http://x", "count": 42}'"""})
    )
    (fetched,) = await hall.ends(1)
    assert fetched.outcome.data.decoded() == {"url": "http://x", "count": 42}
    await hall.queue(
        hall.task(
            "use",
            "shell",
            params={"command": "echo $SOURCE_URL $N; cat"},
            input_from={"SOURCE_URL": "fetch.url", "N": "fetch.count", "stdin_ref": "fetch"},
            inputs={"fetch": fetched.outcome.data},
        )
    )
    used = (await hall.ends(2))[1]
    assert used.outcome.output == ["http://x 42", '{"url":"http://x","count":42}']


async def test_five_hundred_commands(site: Site) -> None:
    await site.worker("shell:4")
    hall = site.hall
    await hall.queue(*[hall.task(f"t{number}", "shell", params={"command": f"echo {number}"}) for number in range(500)])
    await hall.until(lambda: len(hall.ended) >= 500, PATIENCE * 3)
    assert {end.outcome.output[0] for end in hall.ended} == {str(number) for number in range(500)}


async def test_a_flaky_command(site: Site) -> None:
    """P12: succeeds at the third attempt."""
    await site.worker()
    hall = site.hall
    count = site.directory / "count"
    command = f"echo x >> {count}; [ $(wc -l < {count}) -ge 3 ]"
    await hall.queue(
        hall.task("flaky", "shell", params={"command": command}, max_retries=2, retry=RetryPolicy(delay=0.05))
    )
    (ended,) = await hall.ends()
    assert isinstance(ended.outcome, Completed)
    assert (ended.attempt, ended.starts) == (3, 3)
    assert [message.message.split(",")[0] for message in hall.progress if message.message] == [
        "attempt 1 failed",
        "attempt 2 failed",
    ]


async def test_a_time_limit_leaves_no_process(site: Site) -> None:
    """P12: the whole group is killed."""
    await site.worker()
    hall = site.hall
    file = site.directory / "pid"
    await hall.queue(
        hall.task("slow", "shell", params={"command": f"sleep 99 & echo $! > {file}; wait"}, timeout_secs=0.5)
    )
    (ended,) = await hall.ends()
    assert (ended.outcome.kind, ended.outcome.exit_code) == (FailureKind.TIMEOUT, 124)
    assert not runs(await pid_in(file))


async def test_a_cancel_ends_the_command(site: Site) -> None:
    """P13."""
    await site.worker()
    hall = site.hall
    file = site.directory / "pid"
    task = hall.task("slow", "shell", params={"command": f"sleep 99 & echo $! > {file}; wait"})
    await hall.queue(task)
    pid = await pid_in(file)
    await hall.cancel(task, "by hand")
    (ended,) = await hall.ends()
    assert (ended.outcome.kind, ended.outcome.error) == (FailureKind.CANCELLED, "cancelled: by hand")
    await gone(pid, 2)


async def test_a_killed_worker(site: Site) -> None:
    """P14: its commands are gone within a second, the task runs on another."""
    hall = site.hall
    first = await site.worker()
    file = site.directory / "pid"
    command = f"echo $$ > {file}; [ -e {site.directory}/again ] || sleep 99; echo $GBE_ATTEMPT"
    await hall.queue(hall.task("slow", "shell", params={"command": command}))
    pid = await pid_in(file)
    (site.directory / "again").touch()
    first.signal(signal.SIGKILL)
    await gone(pid, 1.5)
    await site.worker()
    await hall.until(lambda: hall.ended, PATIENCE)
    (ended,) = hall.ended
    assert ended.outcome.output == ["1"]
    assert ended.starts == 2


async def test_a_killed_worker_of_a_task_that_must_not_run_twice(site: Site) -> None:
    """P14: `on_lost: fail`."""
    hall = site.hall
    first = await site.worker()
    file = site.directory / "pid"
    await hall.queue(
        hall.task("once", "shell", params={"command": f"echo $$ >> {file}; sleep 99"}, on_lost=OnLost.FAIL)
    )
    await pid_in(file)
    first.signal(signal.SIGKILL)
    await site.worker()
    await hall.until(lambda: hall.ended, PATIENCE)
    (ended,) = hall.ended
    assert ended.outcome.kind is FailureKind.LOST
    assert len(file.read_text().split()) == 1


async def test_a_worker_that_stood_still(site: Site) -> None:
    """P14: SIGSTOPped for five leases: nothing is dead-lettered, nothing is lost."""
    hall = site.hall
    worker = await site.worker()
    file = site.directory / "pid"
    go = site.directory / "go"
    await hall.queue(
        hall.task(
            "slow", "shell", params={"command": f"echo $$ >> {file}; while ! [ -e {go} ]; do sleep 0.05; done; echo ok"}
        ),
        *[hall.task(f"t{number}", "shell", params={"command": "echo hi"}) for number in range(20)],
    )
    await pid_in(file)
    worker.signal(signal.SIGSTOP)
    await hall.queue(*[hall.task(f"l{number}", "shell", params={"command": "echo hi"}) for number in range(20)])
    await asyncio.sleep(5 * LEASE)
    worker.signal(signal.SIGCONT)
    # The others over, it has seen the first one's message again: before that, an end would let it be run again.
    await hall.until(lambda: len({end.task_id for end in hall.ended}) == 40, PATIENCE)
    go.touch()
    await hall.until(lambda: len({end.task_id for end in hall.ended}) == 41, PATIENCE)
    assert all(isinstance(end.outcome, Completed) for end in hall.ended)
    assert not hall.dead
    assert len(file.read_text().split()) == 1, "it went on with its own task"


async def test_asked_to_stop_five_times(site: Site) -> None:
    """P14: that uses up nothing."""
    hall = site.hall
    file = site.directory / "pid"
    finish = site.directory / "finish"
    task = hall.task(
        "slow",
        "shell",
        params={"command": f"echo $$ > {file}; [ -e {finish} ] || sleep 99; echo $GBE_ATTEMPT"},
        on_lost=OnLost.FAIL,
    )
    await hall.queue(task)
    for _ in range(5):
        worker = await site.worker("shell:2", "--crash-budget", "1")
        pid = await pid_in(file)
        assert await worker.stop() == 0, worker.log.read_text()
        assert not runs(pid)
        file.unlink()
    assert await hall.note(task) == TaskNote(handed_back=5, starts=5)
    finish.touch()
    await site.worker()
    (ended,) = await hall.ends()
    assert (ended.outcome.output, ended.starts) == (["1"], 6)


async def test_a_task_that_kills_its_worker(site: Site) -> None:
    """P14: dead-lettered after the budget, and reported."""
    hall = site.hall
    await hall.queue(hall.task("killer", "shell", params={"command": "kill -9 $PPID; sleep 5"}))
    starts = 0
    while not hall.ended and starts < 10:
        starts += 1
        worker = await site.worker()
        ended = asyncio.create_task(worker.process.wait())
        async with asyncio.timeout(PATIENCE):
            while not ended.done() and not hall.ended:
                await asyncio.sleep(0.02)
        if ended.done():
            assert ended.result() == -signal.SIGKILL
        else:
            ended.cancel()
    assert starts == 4
    assert hall.ended[0].outcome.kind is FailureKind.LOST
    await hall.until(lambda: hall.dead)
    await hall.emptied()


async def test_secrets_stay_secret(site: Site) -> None:
    """P18: not on the bus, not in logs, not in output."""
    secret = "hunter2-and-more"
    hall = site.hall
    spy: list[bytes] = []
    await hall.transport.listen(["gbe.>"], lambda subject, body: spy.append(body))
    worker = await site.worker("shell:1", GBE_SECRET_API_KEY=secret)
    command = "echo key=$KEY; echo $KEY >&2; printf %s $KEY | rev; env | grep -c GBE_SECRET; sleep 0.4; exit 3"
    await hall.queue(
        hall.task("s", "shell", params={"command": command, "KEY": SecretRef("api-key")}, max_retries=1),
        hall.task("large", "shell", params={"command": "yes $KEY | head -c 600000", "KEY": SecretRef("api-key")}),
    )
    await hall.until(lambda: len(hall.ended) == 2, PATIENCE)
    failed = next(end.outcome for end in hall.ended if end.task_name == "s")
    assert isinstance(failed, Failed)
    assert failed.output == ["key=***", secret[::-1] + "0"]
    assert failed.error == "***"
    assert any("key=***" in message.lines for message in hall.progress)
    large = next(end.outcome for end in hall.ended if end.task_name == "large")
    artifacts = await hall.transport.artifact_store(ARTIFACT_STORE)
    stored = await artifacts.read(large.data.key, limit=1_000_000)
    assert secret.encode() not in stored
    assert stored.startswith(b"***\n***\n")
    await worker.stop()
    assert not [body for body in spy if secret.encode() in body]
    assert secret not in worker.log.read_text()


async def test_fifty_megabytes_of_output(site: Site) -> None:
    """P15: by reference, in bounded memory."""
    hall = site.hall
    worker = await site.worker("shell:1")
    await hall.queue(hall.task("warm", "shell", params={"command": "seq 1 100000"}))
    await hall.ends()
    before = peak_memory(worker.process.pid)
    await hall.queue(hall.task("big", "shell", params={"command": "yes hello world | head -c 50000000"}))
    await hall.until(lambda: len(hall.ended) == 2, 60)
    outcome = hall.ended[1].outcome
    assert outcome.data.size == 50_000_000
    assert peak_memory(worker.process.pid) - before < 40_000_000


def peak_memory(pid: int) -> int:
    """Bytes of the largest resident set the process had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


async def test_the_server_goes_away_and_comes_back(site: Site) -> None:
    """The outcome is kept until it can be reported; nothing runs twice."""
    hall = site.hall
    await site.worker("shell:1", GBE_ACK_WAIT="10")
    file = site.directory / "pid"
    go = site.directory / "go"
    command = f"echo $$ >> {file}; while ! [ -e {go} ]; do sleep 0.05; done; echo done"
    await hall.queue(hall.task("slow", "shell", params={"command": command}))
    await pid_in(file)
    await site.server.kill()
    go.touch()
    await asyncio.sleep(0.5)
    await site.server.start()
    await hall.until(lambda: hall.ended, 60)
    assert hall.ended[0].outcome.output == ["done"]
    assert len(file.read_text().split()) == 1


async def test_inputs_from_inline_lines(site: Site) -> None:
    """`ls` into `sort`: lines along an edge are lines on standard input."""
    hall = site.hall
    await site.worker()
    await hall.queue(
        hall.task(
            "sort",
            "shell",
            params={"command": "sort"},
            input_from={"stdin_ref": "ls"},
            inputs={"ls": inline(["b", "a"])},
        )
    )
    (ended,) = await hall.ends()
    assert ended.outcome.output == ["a", "b"]
