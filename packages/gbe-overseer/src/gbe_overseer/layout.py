"""Where each task of a job stands in the tree that is drawn of it. Pure.

A task with several dependencies stands below the last of them in the definition's order, where its start is seen to
follow; the other dependencies are named beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gbe_jobs_domain.states import TaskState
from gbe_overseer.view import TaskView

WITHIN = "▸ "
"""What stands before the tasks that a molecule consists of."""

MAX_INDENT = 12
"""Levels that are indented; what is deeper stays in line with them, so that a long chain fits on a screen."""

# Which tasks are worth a row when there isn't one for each.
_WORTH = {
    TaskState.FAILED: 0,
    TaskState.RUNNING: 1,
    TaskState.CLAIMED: 1,
    TaskState.PENDING: 2,
    TaskState.CANCELLED: 3,
    TaskState.COMPLETED: 4,
    TaskState.SKIPPED: 4,
    TaskState.BLOCKED: 5,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One task: what stands before its name, and the dependencies the tree does not show."""

    guide: str
    task: TaskView
    also_needs: tuple[str, ...] = ()


def rows(tasks: Sequence[TaskView]) -> list[Row]:
    """All tasks, in the order in which they are drawn: each below one that it needs."""
    place = {task.name: task.index for task in tasks}
    children: list[list[int]] = [[] for _ in tasks]
    roots: list[int] = []
    above: list[int] = []
    for task in tasks:
        needed = [place[name] for name in task.depends_on if name in place]
        above.append(max(needed, default=-1))
        (children[above[-1]] if needed else roots).append(task.index)
    found: list[Row] = []
    stack = [(root, "", place_ == len(roots) - 1, 0) for place_, root in enumerate(roots)][::-1]
    while stack:
        index, indent, last, depth = stack.pop()
        task = tasks[index]
        guide, below = "", ""
        if depth:
            flat = depth > MAX_INDENT
            guide = indent + ("· " if flat else "└─ " if last else "├─ ")
            below = indent if flat else indent + ("   " if last else "│  ")
        others = tuple(name for name in task.depends_on if place.get(name) != above[index])
        found.append(Row(guide, task, others))
        inner = children[index]
        if task.child is not None:
            within = below + ("│  " if inner and depth <= MAX_INDENT else "   ") + WITHIN
            found += [replace(row, guide=within + row.guide) for row in rows(task.child.tasks)]
        stack += [(child, below, at == len(inner) - 1, depth + 1) for at, child in enumerate(inner)][::-1]
    return found


def fitting(all_rows: Sequence[Row], room: int) -> tuple[list[Row], list[TaskView]]:
    """The rows to draw where there is room for `room`, and the tasks that are left out.

    What failed or runs comes before what waits, and that before what is done; the order stays.
    """
    if len(all_rows) <= room:
        return list(all_rows), []
    order = sorted(range(len(all_rows)), key=lambda at: (_WORTH[all_rows[at].task.state], at))
    kept = set(order[: max(room, 0)])
    return (
        [row for at, row in enumerate(all_rows) if at in kept],
        [row.task for at, row in enumerate(all_rows) if at not in kept],
    )
