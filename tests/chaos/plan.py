"""What is to happen in a run: jobs and faults, all of it made from one seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.payloads import OnLost, RetryPolicy
from gbe_jobs_domain.streams import WORK_STREAMS

TASK_TYPE = "shell"
POISON_TYPE = "poison"
"""Served by a worker of its own, which every task of this type kills."""
POISON_BUDGET = 2
JOB_TYPES = ("chaos-a", "chaos-b")
LONG = 90.0
"""Seconds of a task that is to be cut short by a cancel or a failed sibling: longer than any recovery takes."""

# One line per start and end, appended by the shell itself (O_APPEND: whole lines, in the order in which things
# happened). /proc/uptime is a clock that costs no process.
_EVIDENCE = (
    'ev() { read -r up _ </proc/uptime; printf "%s %s %s %s %s %s %s %s\\n" "$1" "$GBE_JOB_ID" "$GBE_TASK_NAME"'
    ' "$GBE_ATTEMPT" $$ "$PPID" "$up" "$2" >>"$EVIDENCE"; }; '
)


@dataclass(frozen=True)
class TaskPlan:
    """One task. `fails`: so many attempts end with exit code 3 before one succeeds. `pad`: bytes of data it passes on
    beside its token. `poison`: it kills its worker."""

    name: str
    needs: tuple[str, ...] = ()
    seconds: float = 0.0
    fails: int = 0
    max_retries: int = 0
    on_lost: OnLost = OnLost.RERUN
    pad: int = 0
    poison: bool = False

    @property
    def succeeds(self) -> bool:
        """Whether it does in the end, where it is left alone."""
        return self.fails <= self.max_retries and not self.poison

    @property
    def token(self) -> str:
        """What it passes on to its dependents (with the job's number in front)."""
        return f"from-{self.name}"


@dataclass(frozen=True)
class JobPlan:
    """One job. `at`: seconds after the beginning. `cancel_after`: seconds after the submit; negative = before it."""

    number: int
    shape: str
    tasks: tuple[TaskPlan, ...]
    at: float
    expected: frozenset[str] = frozenset({"completed"})
    cancel_after: float | None = None
    again_after: float | None = None
    """The same submit once more."""

    def job_id(self, seed: int) -> str:
        """Stable, so that a seed names its jobs."""
        return f"job_chaos-{seed}-{self.number}"

    @property
    def job_type(self) -> str:
        """Some of one type, some of another."""
        return JOB_TYPES[self.number % len(JOB_TYPES)]

    def definition(self, evidence: str) -> JobDefinition:
        """As it is submitted."""
        tasks = [_definition(task, evidence) for task in self.tasks]
        return JobDefinition(f"{self.shape} {self.number}", self.job_type, tasks)


@dataclass(frozen=True)
class FaultPlan:
    """`target`: `oracle-0`, `operative-2`, `server` or `node` (of a cluster). `kind`: `kill` (restarted after
    `seconds`), `stop` (SIGSTOP, for `seconds`), `term` (an orderly restart), `leader` (kill of the node that leads
    `stream`)."""

    at: float
    target: str
    kind: str
    seconds: float
    stream: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides. `length`: seconds in which jobs are submitted and faults happen."""

    seed: int
    length: float
    jobs: tuple[JobPlan, ...]
    faults: tuple[FaultPlan, ...]
    oracles: int = 2
    operatives: int = 3
    cluster: bool = False
    windows: tuple[int, ...] = (2048, 2048)
    """Of each Oracle: how many tasks of a job it queues at once."""


def make_plan(seed: int, length: float, jobs: int, *, cluster: bool = False, quiet: bool = False) -> Plan:
    """The plan of a seed. `quiet`: without faults."""
    random = Random(seed)
    made = tuple(sorted((_job(random, number, length) for number in range(jobs)), key=lambda job: job.at))
    oracles, operatives = 2, random.choice((2, 3))
    targets = [f"oracle-{n}" for n in range(oracles)] + [f"operative-{n}" for n in range(operatives)]
    targets.append("node" if cluster else "server")
    faults = () if quiet else _faults(random, targets, length)
    windows = tuple(random.choice((2, 2048)) for _ in range(oracles))
    return Plan(seed, length, made, faults, oracles, operatives, cluster, windows)


def _definition(task: TaskPlan, evidence: str) -> TaskDefinition:
    inputs = ",".join(f"{name}=${{IN_{name}}}" for name in task.needs)
    failing = f'[ "$GBE_ATTEMPT" -gt {task.fails} ] || {{ ev fail -; exit 3; }}; ' if task.fails else ""
    sleep = f"sleep {task.seconds:.2f}; " if task.seconds else ""
    if task.poison:
        failing = 'kill -9 "$PPID"; sleep 30; '
    pad = f"head -c {task.pad} /dev/zero | tr '\\0' x; " if task.pad else ""
    result = f"""printf '{{"token":"{task.token}","pad":"'; {pad}printf '"}}'"""
    command = f'{_EVIDENCE}ev start "{inputs or "-"}"; {sleep}{failing}ev end -; {result}'
    return TaskDefinition(
        task.name,
        POISON_TYPE if task.poison else TASK_TYPE,
        depends_on=list(task.needs),
        input_from={f"IN_{name}": f"{name}.token" for name in task.needs},
        params={"command": command, "EVIDENCE": evidence},
        max_retries=task.max_retries,
        retry=RetryPolicy(delay=0.2, factor=2, max_delay=1) if task.max_retries else None,
        on_lost=task.on_lost,
    )


# --- jobs ---------------------------------------------------------------------------------------------------

_SHAPES = (
    ("single", 2),
    ("chain", 4),
    ("diamond", 4),
    ("fan", 3),
    ("random", 3),
    ("flaky", 3),
    ("must-not-run-twice", 2),
    ("fail-fast", 2),
    ("cancel", 2),
    ("cancel-short", 1),
    ("cancel-first", 1),
    ("heavy", 1),
)
_POISON_EVERY = 100


def _job(random: Random, number: int, length: float) -> JobPlan:
    (shape,) = random.choices([name for name, _ in _SHAPES], [weight for _, weight in _SHAPES])
    if number % _POISON_EVERY == _POISON_EVERY // 2:
        # Early: to lose a worker as often as the budget allows takes several leases.
        deadly = (_task(random, "a"), TaskPlan("poison", ("a",), poison=True), TaskPlan("never", ("poison",)))
        return JobPlan(number, "poison", deadly, random.uniform(0.0, length / 2), frozenset({"failed"}))
    at = random.uniform(0.0, length)
    again = random.uniform(0.0, 8.0) if random.random() < 0.1 else None
    if shape == "fail-fast":
        return JobPlan(number, shape, _fail_fast(random), at, frozenset({"failed"}), again_after=again)
    if shape == "cancel":
        tasks = (_task(random, "a"), TaskPlan("b", ("a",), LONG), TaskPlan("c", ("b",)), TaskPlan("d", seconds=LONG))
        after = random.uniform(0.0, 4.0)
        return JobPlan(number, shape, tasks, at, frozenset({"cancelled"}), after, again)
    if shape == "cancel-short":
        either = frozenset({"cancelled", "completed"})
        return JobPlan(number, shape, _chain(random), at, either, random.uniform(0.0, 1.5), again)
    if shape == "cancel-first":
        return JobPlan(number, shape, _chain(random), at, frozenset({"cancelled"}), -random.uniform(0.0, 0.5), again)
    if shape == "must-not-run-twice":
        once = _diamond(random) if random.random() < 0.5 else _chain(random)
        once = tuple(TaskPlan(task.name, task.needs, task.seconds, on_lost=OnLost.FAIL) for task in once)
        return JobPlan(number, shape, once, at, frozenset({"completed", "failed"}), again_after=again)
    make = {
        "single": _single,
        "chain": _chain,
        "diamond": _diamond,
        "fan": _fan,
        "random": _random,
        "flaky": _flaky,
        "heavy": _heavy,
    }
    return JobPlan(number, shape, make[shape](random), at, again_after=again)


def _seconds(random: Random) -> float:
    """Mostly nothing or a moment, now and then long enough to be caught in the middle."""
    return random.choice((0.0, 0.0, random.uniform(0.0, 0.3), random.uniform(0.3, 2.0)))


def _task(random: Random, name: str, needs: tuple[str, ...] = ()) -> TaskPlan:
    return TaskPlan(name, needs, round(_seconds(random), 2))


def _single(random: Random) -> tuple[TaskPlan, ...]:
    return (_task(random, "a"),)


def _chain(random: Random) -> tuple[TaskPlan, ...]:
    names = [f"t{n}" for n in range(random.randint(2, 6))]
    return tuple(_task(random, name, tuple(names[n - 1 : n])) for n, name in enumerate(names))


def _diamond(random: Random) -> tuple[TaskPlan, ...]:
    return (
        _task(random, "a"),
        _task(random, "b", ("a",)),
        _task(random, "c", ("a",)),
        _task(random, "d", ("b", "c")),
    )


def _fan(random: Random) -> tuple[TaskPlan, ...]:
    names = tuple(f"f{n}" for n in range(random.randint(3, 10)))
    return (_task(random, "a"), *(_task(random, name, ("a",)) for name in names), _task(random, "z", names))


def _heavy(random: Random) -> tuple[TaskPlan, ...]:
    """More than one message holds, in parts of which some go by reference by themselves."""
    parts = tuple(TaskPlan(f"h{n}", ("a",), pad=random.choice((100_000, 250_000, 400_000))) for n in range(5))
    return (_task(random, "a"), *parts, _task(random, "z", tuple(part.name for part in parts)))


def _random(random: Random) -> tuple[TaskPlan, ...]:
    tasks: list[TaskPlan] = []
    for n in range(random.randint(3, 9)):
        known = [task.name for task in tasks]
        needs = tuple(sorted(random.sample(known, random.randint(0, min(3, len(known))))))
        tasks.append(_task(random, f"r{n}", needs))
    return tuple(tasks)


def _flaky(random: Random) -> tuple[TaskPlan, ...]:
    tasks = _diamond(random) if random.random() < 0.5 else _chain(random)
    return tuple(TaskPlan(t.name, t.needs, min(t.seconds, 0.5), random.choice((0, 1, 2)), max_retries=2) for t in tasks)


def _fail_fast(random: Random) -> tuple[TaskPlan, ...]:
    retries = random.choice((0, 0, 1))
    return (
        _task(random, "a"),
        TaskPlan("bad", ("a",), round(random.uniform(0.0, 0.6), 2), fails=99, max_retries=retries),
        TaskPlan("sibling", ("a",), LONG),
        TaskPlan("other", (), LONG),
        TaskPlan("never", ("bad",)),
    )


# --- faults -------------------------------------------------------------------------------------------------


def _faults(random: Random, targets: Sequence[str], length: float) -> tuple[FaultPlan, ...]:
    made: list[FaultPlan] = []
    for target in targets:
        role = target.partition("-")[0]
        at = random.uniform(0.5, 4.0)
        while at < length:
            fault = _fault(random, role, target, round(at, 2))
            made.append(fault)
            # A quiet while after each: what is never left in peace never gets anything done.
            at += fault.seconds + _QUIET[role] + random.expovariate(1 / _GAP[role])
    return tuple(sorted(made, key=lambda fault: fault.at))


_QUIET = {"oracle": 1.0, "operative": 1.0, "server": 2.5, "node": 2.0}
_GAP = {"oracle": 3.0, "operative": 3.5, "server": 3.5, "node": 3.0}


def _fault(random: Random, role: str, target: str, at: float) -> FaultPlan:
    down = round(random.choice((0.0, random.uniform(0.0, 2.0))), 2)
    if role == "server":
        if random.random() < 0.7:
            return FaultPlan(at, target, "kill", down)
        return FaultPlan(at, target, "stop", round(random.uniform(0.3, 4.0), 2))
    if role == "node":
        roll = random.random()
        if roll < 0.6:
            return FaultPlan(at, target, "leader", down, random.choice(WORK_STREAMS))
        if roll < 0.8:
            return FaultPlan(at, f"node-{random.randrange(3)}", "kill", down)
        return FaultPlan(at, f"node-{random.randrange(3)}", "stop", round(random.uniform(0.3, 4.0), 2))
    roll = random.random()
    if roll < 0.6:
        return FaultPlan(at, target, "kill", down)
    if roll < 0.85:
        return FaultPlan(
            at, target, "stop", round(random.choice((random.uniform(0.2, 2.0), random.uniform(4.0, 9.0))), 2)
        )
    return FaultPlan(at, target, "term", down)
