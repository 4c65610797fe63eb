"""A site for tests: a server or a cluster, roles as processes of their own, and a client that looks on.

async with Site(EmbeddedServer(), folder) as site:
    await site.start(site.oracle(), site.operative("shell:4"))
    job_id = await site.submit(shell("a", "echo 1"), shell("b", "echo 2", ["a"]))
    assert await site.end(job_id) == "completed"
    summary = await site.history(job_id)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec import json

import gbe_nexus
from gbe_jobs_domain import subjects
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.outcomes import Completed, Failed, Skipped, TaskOutcome
from gbe_jobs_domain.payloads import JobSummary, TaskSummary
from gbe_jobs_domain.records import JournalRecord
from gbe_jobs_domain.streams import EVENTS, HISTORY, INBOX, JOURNAL, PROGRESS, QUEUE, Retention, streams
from gbe_nexus import ConsumerSpec, Message, NotFound, PayloadDecoder, Transport
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer
from gbe_overseer.client import JobClient

PATIENCE = 60.0
"""Seconds; generous, since the machine may be busy with something else."""

QUICK = {"GBE_TICK_INTERVAL": "0.1", "GBE_PURGE_AFTER": "0.1"}
"""For an Oracle: what is over is cleaned up at once."""

_record = PayloadDecoder(JournalRecord)
_summary = PayloadDecoder(JobSummary)
_outcome: json.Decoder[TaskOutcome] = json.Decoder(TaskOutcome)


class RoleProcess:
    """A role as a process. It dies with us, whatever kills us."""

    def __init__(self, name: str, argv: Sequence[str | Path], environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.environment = environment
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    @property
    def pid(self) -> int:
        """Of the present or the last life."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it lives (it may be stopped)."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start it; returns when it says that it is ready."""
        ready, ready_end = os.pipe()
        parent, self._pipe = os.pipe()
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.argv,
                    env={**self.environment, "GBE_READY_FD": str(ready_end), "GBE_PARENT_FD": str(parent)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    pass_fds=(ready_end, parent),
                    start_new_session=True,
                )
        finally:
            os.close(ready_end)
            os.close(parent)
        try:
            async with asyncio.timeout(PATIENCE):
                said = await _first_bytes(ready)
        finally:
            os.close(ready)
        assert said, f"{self.name} did not get ready: {self.log.read_text()}"

    def send(self, number: signal.Signals) -> None:
        """A signal, where it lives."""
        if self._process is not None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.send(signal.SIGKILL)
        await self.wait()

    async def stop(self) -> int:
        """TERM; returns its exit code."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)
        return await self.wait()

    async def wait(self) -> int:
        """Its exit code, when it has ended."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE):
            while (code := self._process.poll()) is None:
                await asyncio.sleep(0.005)
        with contextlib.suppress(OSError):
            os.close(self._pipe)
        self._pipe = -1
        return code

    def end(self) -> None:
        """Be sure that it is gone."""
        if self.running:
            assert self._process is not None
            self._process.kill()
            self._process.wait()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


class Site:
    """See above. Everything is looked up on the bus: events and journals are read from their streams."""

    transport: Transport
    client: JobClient

    def __init__(
        self,
        server: EmbeddedServer | EmbeddedCluster,
        folder: Path,
        *,
        retention: Retention | None = None,
        make_streams: bool = True,
    ) -> None:
        self.server = server
        self.folder = folder
        self.roles: list[RoleProcess] = []
        self.bodies: dict[tuple[str, str], dict[str, Any]] = {}
        self.progress: list[dict[str, Any]] = []
        self._events: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._retention = retention
        self._make_streams = make_streams
        self._changed = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        await self._stack.enter_async_context(self.server)
        self.transport = await gbe_nexus.connect(self.server.url, self.server.options)
        self._stack.push_async_callback(self.transport.close)
        self._stack.push_async_callback(self._stop_roles)
        if self._make_streams:
            for spec in streams(self._retention):
                await self.transport.ensure_stream(spec)
        self.client = JobClient(self.transport, self._retention)
        if self._make_streams:
            await self.follow()

    async def follow(self) -> None:
        """Begin to read events and progress; where the site makes no streams, when an Oracle has made them."""
        jobs = tuple(f"gbe.jobs.*.{name}" for name in subjects.JOB_EVENTS)
        await self.transport.subscribe(ConsumerSpec(EVENTS, subjects=jobs), self._on_events)
        await self.transport.subscribe(ConsumerSpec(PROGRESS), self._on_progress)

    # --- roles ---------------------------------------------------------------------------------------

    def oracle(self, name: str = "oracle", **environment: str) -> RoleProcess:
        """An Oracle, not started."""
        return self.role(name, [sys.executable, "-m", "gbe_oracle"], environment)

    def operative(
        self, handles: str, name: str = "operative", *, lease: float = 2.0, **environment: str
    ) -> RoleProcess:
        """An Operative, not started."""
        argv = [sys.executable, "-m", "gbe_operative.command", "--handles", handles]
        return self.role(name, argv, {"GBE_ACK_WAIT": str(lease), "GBE_STOP_GRACE": "0.5", **environment})

    def role(self, name: str, argv: Sequence[str | Path], environment: dict[str, str]) -> RoleProcess:
        """Any role, not started. Of our own environment it gets what every process needs."""
        options = self.server.options
        taken = {role.name for role in self.roles}
        number = 1
        while (unique := name if number == 1 else f"{name}-{number}") in taken:
            number += 1
        base = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GBE_NATS_URL": self.server.url,
            "GBE_NATS_USER": options.user or "",
            "GBE_NATS_PASSWORD": options.password or "",
            "GBE_REPLICAS": str(options.replicas),
            "GBE_CONNECT_TIMEOUT": "30",
        }
        role = RoleProcess(unique, argv, {**base, **environment}, self.folder)
        self.roles.append(role)
        return role

    async def start(self, *roles: RoleProcess) -> None:
        """Start roles together; returns when all are ready."""
        await asyncio.gather(*(role.start() for role in roles))

    async def _stop_roles(self) -> None:
        for role in self.roles:
            role.end()

    def logs(self) -> str:
        """What all roles logged."""
        return "\n".join(f"=== {role.name}\n{role.log.read_text()}" for role in self.roles if role.log.exists())

    # --- jobs ----------------------------------------------------------------------------------------

    async def submit(self, *tasks: TaskDefinition, job_id: str | None = None, job_type: str = "test") -> str:
        """Submit a job of these tasks; its id."""
        submitted = await self.client.submit(JobDefinition("test", job_type, list(tasks)), job_id=job_id)
        return submitted.job_id

    def events(self, job_id: str) -> list[str]:
        """The job's events in order; one that was published again under its id counts once."""
        return [name for name, _ in dict.fromkeys(self._events[job_id])]

    def ended(self, job_id: str) -> str | None:
        """The event that ended the job, or that refused it."""
        return next((name for name in self.events(job_id) if name != "created"), None)

    async def end(self, job_id: str, patience: float = PATIENCE) -> str:
        """The event that ended the job, as soon as it is there."""
        await self.until(lambda: self.ended(job_id) is not None, patience, f"{job_id} to end")
        return self.ended(job_id) or ""

    async def completed(self, job_ids: Iterable[str], patience: float = PATIENCE) -> None:
        """All of them completed: `created` first, then exactly one end."""
        wanted = list(job_ids)
        await self.until(lambda: all(self.ended(job_id) for job_id in wanted), patience, "all jobs to end")
        ways = Counter(tuple(self.events(job_id)) for job_id in wanted)
        assert ways == {("created", "completed"): len(wanted)}, ways

    async def history(self, job_id: str) -> JobSummary:
        """The job's summary, as soon as it is written."""
        log = await self.transport.journal(HISTORY)
        async with asyncio.timeout(PATIENCE):
            while (entry := await log.last(subjects.history("*", job_id))) is None:
                await asyncio.sleep(0.01)
        return _summary.decode(entry.payload).data

    async def tasks(self, job_id: str) -> dict[str, TaskSummary]:
        """The tasks of a job that is over, by name, wherever its results are."""
        summary = await self.history(job_id)
        return {task.name: task for task in await self.client.results(summary)}

    async def records(self, job_id: str) -> list[JournalRecord]:
        """The job's journal."""
        log = await self.transport.journal(JOURNAL)
        return [_record.decode(entry.payload).data async for entry in log.replay(subjects.journal("*", job_id))]

    async def clean(self, patience: float = PATIENCE) -> None:
        """Wait until nothing is left of any job but its history and its events."""
        left: dict[str, object] = {}
        try:
            async with asyncio.timeout(patience):
                while left := await self._left():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"left behind: {left}") from None

    async def _left(self) -> dict[str, object]:
        left: dict[str, object] = {}
        for name in (QUEUE, INBOX, JOURNAL):
            with contextlib.suppress(NotFound):
                if count := (await self.transport.stream_state(name)).messages:
                    left[name] = count
        with contextlib.suppress(NotFound):
            state = await self.transport.consumer_state(INBOX, subjects.ORACLE_CONSUMER)
            if state.pending or state.ack_pending:
                left["inbox consumer"] = state
        notes = await self.transport.state_store(subjects.NOTES_BUCKET)
        if keys := await notes.keys():
            left["notes"] = keys
        return left

    # --- waiting -------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], patience: float = PATIENCE, what: str = "") -> None:
        """Wait until an event or progress makes the condition true."""
        try:
            async with asyncio.timeout(patience):
                while not condition():
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), 0.05)
        except TimeoutError:
            raise AssertionError(f"waited {patience:g} s for {what or condition}\n{self.logs()}") from None

    async def file(self, path: Path, lines: int = 1) -> list[str]:
        """The lines of a file that a command writes, as soon as there are so many."""
        found: list[str] = []

        def there() -> bool:
            found[:] = path.read_text().splitlines() if path.exists() else []
            return len(found) >= lines

        await self.until(there, what=str(path))
        return found

    def _on_events(self, messages: Sequence[Message]) -> None:
        for message in messages:
            payload = json.decode(message.payload)
            name = message.subject.rsplit(".", 1)[1]
            job_id = payload["data"]["job_id"]
            self._events[job_id].append((name, payload["id"]))
            self.bodies[job_id, name] = payload["data"]
            message.ack()
        self._changed.set()

    def _on_progress(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.progress.append(json.decode(message.payload)["data"])
            message.ack()
        self._changed.set()


def shell(name: str, command: str, needs: Sequence[str] = (), **fields: Any) -> TaskDefinition:
    """A task for `sh -c`; `params` are added to the command, everything else is the task's."""
    params = {"command": command, **fields.pop("params", {})}
    task_type = fields.pop("task_type", "shell")
    return TaskDefinition(name, task_type, depends_on=list(needs), params=params, **fields)


def outcome(task: TaskSummary) -> TaskOutcome:
    """How a task of the history ended."""
    assert task.outcome is not None, f"{task.name}: {task.state}, without an outcome"
    return _outcome.decode(task.outcome)


def output(task: TaskSummary) -> list[str]:
    """The lines that a completed task printed."""
    found = outcome(task)
    assert isinstance(found, Completed), found
    return found.output


def failure(task: TaskSummary) -> Failed:
    """How a task failed."""
    found = outcome(task)
    assert isinstance(found, Failed), found
    return found


def applied(records: Sequence[JournalRecord]) -> Counter[int]:
    """How often a journal applies an outcome to each task: once, whatever happens."""
    return Counter(result.index for record in records for result in record.outcomes)


def alive(pid: int) -> bool:
    """Whether the process does something (in a container, nobody may be there to reap a dead one)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int, within: float) -> None:
    """The process ends within so many seconds."""
    async with asyncio.timeout(within):
        while alive(pid):
            await asyncio.sleep(0.01)


async def _first_bytes(descriptor: int) -> bytes:
    """What is said through a pipe; nothing where it is closed."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
        return os.read(descriptor, 64)
    finally:
        loop.remove_reader(descriptor)


__all__ = [
    "PATIENCE",
    "QUICK",
    "Completed",
    "RoleProcess",
    "Site",
    "Skipped",
    "alive",
    "applied",
    "failure",
    "gone",
    "outcome",
    "output",
    "shell",
]
