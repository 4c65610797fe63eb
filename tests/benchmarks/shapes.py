"""The jobs that are measured (architecture section 8)."""

from __future__ import annotations

from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition


def chain(length: int) -> JobDefinition:
    """Each task after the one before it."""
    return _job([TaskDefinition(f"t{i}", "noop", [f"t{i - 1}"] if i else []) for i in range(length)])


def fan(width: int, *, padding: int = 0) -> JobDefinition:
    """1 → width → 1. `padding`: bytes of params per task."""
    params = {"p": "x" * padding} if padding else {}
    names = [f"t{i}" for i in range(width)]
    middle = [TaskDefinition(name, "noop", ["first"], params=dict(params)) for name in names]
    return _job([TaskDefinition("first", "noop"), *middle, TaskDefinition("last", "noop", names)])


def diamond() -> JobDefinition:
    """a → b, c → d."""
    return _job(
        [
            TaskDefinition("a", "noop"),
            TaskDefinition("b", "noop", ["a"]),
            TaskDefinition("c", "noop", ["a"]),
            TaskDefinition("d", "noop", ["b", "c"]),
        ]
    )


def commands(count: int) -> JobDefinition:
    """`sh -c` tasks and a join."""
    names = [f"t{i}" for i in range(count)]
    tasks = [TaskDefinition(name, "shell", params={"command": "echo x"}) for name in names]
    return _job([*tasks, TaskDefinition("join", "noop", names)])


def passing(length: int) -> JobDefinition:
    """A chain in which each task hands 100 kB to the next."""
    return _job(
        [
            TaskDefinition(f"t{i}", "bulk", [f"t{i - 1}"] if i else [], input_from={"data": f"t{i - 1}"} if i else {})
            for i in range(length)
        ]
    )


def _job(tasks: list[TaskDefinition]) -> JobDefinition:
    return JobDefinition("bench", "bench", tasks)
