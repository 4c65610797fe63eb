"""What a run leaves behind, as the checker gets it. Times are seconds of `/proc/uptime`, the tasks' own clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from gbe_jobs_domain.payloads import JobSummary
from gbe_jobs_domain.records import JournalRecord
from tests.chaos.plan import JobPlan


@dataclass
class Execution:
    """One start of a task's command, as the command itself wrote it down.

    `start` and `end` are line numbers in the log: the order in which things really happened.
    `result`: `end` (success), `fail`, or None where the process never got so far.
    """

    job_id: str
    task: str
    attempt: int
    pid: int
    worker: int
    start: int
    started_at: float
    inputs: str = "-"
    result: str | None = None
    end: int = 0
    ended_at: float = 0.0


@dataclass(frozen=True)
class Incident:
    """A fault as it happened. `end`: when the process was back (`begin` where it was not gone)."""

    target: str
    kind: str
    begin: float
    end: float
    pid: int = 0
    detail: str = ""

    @property
    def role(self) -> str:
        """oracle, operative, server (nodes of a cluster too), or machine."""
        role = self.target.partition("-")[0]
        return "server" if role == "node" else role


@dataclass(frozen=True)
class Event:
    """A job event on the bus."""

    name: str
    id: str
    seq: int
    data: dict[str, object]


@dataclass(frozen=True)
class Wire:
    """A message as it passed by, stored or not: for stories, and to see a second queue message."""

    at: float
    kind: str
    task_id: str
    text: str = ""


@dataclass
class Submitted:
    """A job that the bus accepted."""

    plan: JobPlan
    submitted_at: float
    cancelled_at: float | None = None


@dataclass
class Run:
    """All evidence of one run."""

    jobs: dict[str, Submitted] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)
    strange_lines: list[str] = field(default_factory=list)
    records: dict[str, dict[int, JournalRecord]] = field(default_factory=lambda: defaultdict(dict))
    """By job and sequence."""
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    histories: dict[str, JobSummary] = field(default_factory=dict)
    wire: dict[str, list[Wire]] = field(default_factory=lambda: defaultdict(list))
    """By job."""
    dead_letters: list[tuple[str, str]] = field(default_factory=list)
    """Id of the message that nobody could deal with, and what was said of it."""
    incidents: list[Incident] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """Processes of tasks that still run at the end."""
    deaths: list[str] = field(default_factory=list)
    """Roles that ended by themselves, and what they logged as errors of their own."""
    backlog: dict[str, int] = field(default_factory=dict)
    """Messages that still wait, by stream."""
    notes: int = 0
    """Notes that were left in the state store."""
    wall: float = 0.0
    """Seconds to add to this clock to get the epoch's."""
    lease: float = 4.0

    def clock(self, millis: int) -> float:
        """This clock's time of a time on the bus."""
        return millis / 1000 - self.wall

    def ordered(self, job_id: str) -> list[tuple[int, JournalRecord]]:
        """The job's journal."""
        return sorted(self.records.get(job_id, {}).items())


def parse_log(lines: Iterable[str]) -> tuple[list[Execution], list[str]]:
    """The executions in a log of evidence, and the lines that make no sense."""
    running: dict[tuple[str, str, int, int], Execution] = {}
    executions: list[Execution] = []
    strange: list[str] = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if len(fields) != 8:
            strange.append(line)
            continue
        what, job_id, task, attempt, pid, worker, at, inputs = fields
        key = (job_id, task, int(attempt), int(pid))
        if what == "start":
            made = Execution(job_id, task, int(attempt), int(pid), int(worker), number, float(at), inputs)
            running[key] = made
            executions.append(made)
            continue
        found = running.pop(key, None)
        if found is None:
            strange.append(line)
            continue
        found.result, found.end, found.ended_at = what, number, float(at)
    return executions, strange
