"""The graph of a job's tasks: pure checks and orders. Nothing here recurses, everything is linear in tasks and edges
(the order of a definition that isn't in order already costs a heap)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, Protocol

import msgspec

from gbe_jobs_domain.data_schemas import MAX_SCHEMA_BYTES
from gbe_jobs_domain.definitions import (
    MAX_JOB_NAME,
    MAX_RETRIES,
    MAX_TASKS,
    JobOutline,
    Output,
    TaskOutline,
    output_references,
    upstream_of,
)
from gbe_jobs_domain.errors import PathPart, path_text, plain, quoted, with_hint
from gbe_jobs_domain.payloads import OnLost, Param, RetryPolicy, Seconds
from gbe_jobs_domain.suggestions import Suggester

_SHOWN_OF_A_CYCLE: Final = 12


class TaskLike(Protocol):
    """What a graph needs of a task: `TaskDefinition` and `TaskOutline` both have it."""

    @property
    def name(self) -> str: ...
    @property
    def depends_on(self) -> Sequence[str]: ...
    @property
    def input_from(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the graph, at `path` within the task of that index; index -1: the job itself."""

    index: int
    path: tuple[PathPart, ...]
    message: str
    hint: str = ""

    def __str__(self) -> str:
        path = path_text(("tasks", self.index, *self.path) if self.index >= 0 else ("tasks",))
        return f"{path}: {with_hint(self.message, self.hint)}"


class CyclicDependency(ValueError):
    """There is no order; the text spells the cycle out."""


def check(tasks: Sequence[TaskLike], suggester: Suggester | None = None) -> list[Problem]:
    """Everything that is wrong with the graph; nothing for a valid one."""
    if not tasks:
        return [Problem(-1, (), "a job needs at least one task")]
    if len(tasks) > MAX_TASKS:
        return [Problem(-1, (), f"{len(tasks)} tasks are more than the {MAX_TASKS} one job may have")]
    suggester = suggester or Suggester()
    index: dict[str, int] = {}
    problems: list[Problem] = []
    for i, task in enumerate(tasks):
        first = index.setdefault(task.name, i)
        if first != i:
            problems.append(
                Problem(i, ("name",), f"duplicate task name {quoted(task.name)}", f"tasks[{first}] has it already")
            )
    for i, task in enumerate(tasks):
        _check_dependencies(i, task, index, suggester, problems)
        _check_inputs(i, task, index, suggester, problems)
    problems += _cycles(tasks, index)
    return problems


def topological_order(tasks: Sequence[TaskLike]) -> list[int]:
    """Indices in an order that has every task after what it depends on; of several that could be next, the one
    that is defined first. Dependencies that don't exist are passed over.

    Raises `CyclicDependency`.
    """
    index = _index(tasks)
    if _in_order(tasks, index):
        return list(range(len(tasks)))
    missing, dependents = _edges(tasks, index)
    ready = [i for i, count in enumerate(missing) if not count]
    heapify(ready)
    order: list[int] = []
    while ready:
        order.append(at := heappop(ready))
        for dependent in dependents[at]:
            missing[dependent] -= 1
            if not missing[dependent]:
                heappush(ready, dependent)
    if len(order) < len(tasks):
        raise CyclicDependency(_cycles(tasks, index)[0].message)
    return order


def roots(tasks: Sequence[TaskLike]) -> list[int]:
    """Indices of the tasks that wait for nothing, in the order of the definition."""
    return [i for i, task in enumerate(tasks) if not task.depends_on]


def check_outline(outline: JobOutline) -> str | None:
    """The first error of a submitted definition; None where it is valid.

    Looks at what the decoder can't: the graph, and the values that stay bytes in an outline. Costs a few
    microseconds per task.
    """
    if outline.v != 1:
        return f"v: {outline.v} is not a version this release knows, only 1"
    if problem := job_name_problem(outline.name):
        return f"name: {problem}"
    if not is_valid(outline.tasks):
        return str(check(outline.tasks)[0])
    for i, task in enumerate(outline.tasks):
        if problem := _value_problem(task):
            return f"tasks[{i}].{problem}"
    if outline.output is not None:
        return next((f"output: {problem}" for _, problem, _ in output_problems(outline.output, outline.tasks)), None)
    return None


def output_problems(
    output: Output, tasks: Sequence[TaskLike], suggester: Suggester | None = None
) -> list[tuple[str, str, str]]:
    """What is wrong with a definition's `output`: `(name, message, hint)` of each reference that leads nowhere."""
    names = {task.name for task in tasks}
    problems: list[tuple[str, str, str]] = []
    for name, reference in output_references(output).items():
        if "" in reference.split("."):
            problems.append((name, f"{quoted(reference)} has an empty part", "write 'task' or 'task.field'"))
        elif (task := upstream_of(reference)) not in names:
            hint = suggester.hint(task, names) if suggester else ""
            problems.append((name, f"{quoted(task)} is none of the tasks", hint))
    return problems


def job_name_problem(name: str) -> str | None:
    """What is wrong with a job's name; None where nothing is."""
    if not name.strip():
        return "a job name can't be blank"
    if len(name) > MAX_JOB_NAME:
        return f"a job name has at most {MAX_JOB_NAME} characters, this one has {len(name)}"
    if not name.isprintable():
        return f"{quoted(name)}: a job name has printable characters only"
    return None


_decode_params = msgspec.json.Decoder(dict[str, Param]).decode
_decode_retry = msgspec.json.Decoder(RetryPolicy).decode
_TIMEOUT: Final = msgspec.json.Decoder(Seconds)
_ON_LOST: Final = frozenset(OnLost)


def _value_problem(task: TaskOutline) -> str | None:
    if task.timeout_secs is not None and not 0 < task.timeout_secs <= 31_536_000:
        return "timeout_secs: expected a number of seconds above 0, at most a year"
    if not 0 <= task.max_retries <= MAX_RETRIES:
        return f"max_retries: expected 0 to {MAX_RETRIES}"
    if task.on_lost not in _ON_LOST:
        return f"on_lost: expected 'rerun' or 'fail', found {quoted(task.on_lost)}"
    field = "params"
    try:
        if task.params is not None:
            _decode_params(task.params)
        field = "retry"
        if task.retry is not None:
            _decode_retry(task.retry)
    except msgspec.DecodeError as error:
        return f"{field}: {error}"
    # What is in a schema is the Operative's business; here it only has to be one, of a size that travels.
    for field, schema in (("input_schema", task.input_schema), ("output_schema", task.output_schema)):
        if schema is None:
            continue
        if not bytes(schema).startswith(b"{"):
            return f"{field}: expected a JSON Schema, which is an object"
        if len(bytes(schema)) > MAX_SCHEMA_BYTES:
            return f"{field}: a schema of {len(bytes(schema)):,} bytes, the limit is {MAX_SCHEMA_BYTES:,}"
    return None


def is_valid(tasks: Sequence[TaskLike]) -> bool:
    """`not check(tasks)`, fast."""
    if not 0 < len(tasks) <= MAX_TASKS:
        return False
    index = _index(tasks)
    if len(index) < len(tasks):
        return False
    in_order = True
    for i, task in enumerate(tasks):
        names = task.depends_on
        if names:
            known = set(names)
            if len(known) < len(names):
                return False
            for name in names:
                at = index.get(name)
                if at is None:
                    return False
                if at >= i:
                    in_order = False
            for reference in task.input_from.values():
                if upstream_of(reference) not in known:
                    return False
        elif task.input_from:
            return False
    return in_order or not _cycles(tasks, index)


def _check_dependencies(
    i: int, task: TaskLike, index: Mapping[str, int], suggester: Suggester, problems: list[Problem]
) -> None:
    seen: set[str] = set()
    for position, name in enumerate(task.depends_on):
        path = ("depends_on", position)
        if name in seen:
            problems.append(Problem(i, path, f"duplicate dependency {quoted(name)}"))
        elif name not in index:
            hint = suggester.hint(name, (other for other in index if other != task.name))
            problems.append(
                Problem(i, path, f"task {quoted(task.name)} depends on {quoted(name)}, which does not exist", hint)
            )
        seen.add(name)


def _check_inputs(
    i: int, task: TaskLike, index: Mapping[str, int], suggester: Suggester, problems: list[Problem]
) -> None:
    known = set(task.depends_on)
    for param, reference in task.input_from.items():
        name = upstream_of(reference)
        if name in known:
            continue
        if name in index:
            hint = "a task has no output of its own to take" if name == task.name else f"add {quoted(name)} to it"
        else:
            hint = suggester.hint(name, task.depends_on)
        problems.append(Problem(i, ("input_from", param), f"{quoted(name)} is not in depends_on", hint))


def _index(tasks: Sequence[TaskLike]) -> dict[str, int]:
    return {task.name: i for i, task in enumerate(tasks)}


def _in_order(tasks: Sequence[TaskLike], index: Mapping[str, int]) -> bool:
    """Whether every task comes after what it depends on as it stands."""
    return all(index.get(name, -1) < i for i, task in enumerate(tasks) if task.depends_on for name in task.depends_on)


def _edges(tasks: Sequence[TaskLike], index: Mapping[str, int]) -> tuple[list[int], list[list[int]]]:
    """How many tasks each one waits for, and which wait for it. An edge that is named twice counts twice."""
    missing = [0] * len(tasks)
    dependents: list[list[int]] = [[] for _ in tasks]
    for i, task in enumerate(tasks):
        for name in task.depends_on:
            at = index.get(name)
            if at is not None:
                missing[i] += 1
                dependents[at].append(i)
    return missing, dependents


def _cycles(tasks: Sequence[TaskLike], index: Mapping[str, int]) -> list[Problem]:
    """At least one cycle of each tangle, each spelled out from its first task in the order of the definition."""
    missing, dependents = _edges(tasks, index)
    ready = [i for i, count in enumerate(missing) if not count]
    while ready:
        for dependent in dependents[ready.pop()]:
            missing[dependent] -= 1
            if not missing[dependent]:
                ready.append(dependent)
    # Whatever is left waits for something that is left too, so following any such edge ends in a cycle.
    problems: list[Problem] = []
    walk_of = [-1] * len(tasks)
    for start, count in enumerate(missing):
        if not count or walk_of[start] >= 0:
            continue
        walk: list[int] = []
        at = start
        while walk_of[at] < 0:
            walk_of[at] = start
            walk.append(at)
            at = next(j for name in tasks[at].depends_on if (j := index.get(name, -1)) >= 0 and missing[j])
        if walk_of[at] == start:
            problems.append(_cycle(tasks, index, walk[walk.index(at) :]))
    return problems


def _cycle(tasks: Sequence[TaskLike], index: Mapping[str, int], members: list[int]) -> Problem:
    first = members.index(min(members))
    members = members[first:] + members[:first]
    names = [plain(tasks[i].name) for i in [*members, members[0]]]
    if len(names) > _SHOWN_OF_A_CYCLE:
        keep = _SHOWN_OF_A_CYCLE // 2
        names = [*names[:keep], f"… {len(names) - 2 * keep} more …", *names[-keep:]]
    follower = members[1 % len(members)]
    position = next(n for n, name in enumerate(tasks[members[0]].depends_on) if index.get(name) == follower)
    return Problem(members[0], ("depends_on", position), "cyclic dependency: " + " → ".join(names))
