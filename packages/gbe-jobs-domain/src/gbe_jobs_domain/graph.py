"""A definition's graph, drawn: as a text tree, and as Mermaid. Pure functions, the same text every time."""

from __future__ import annotations

import json
from typing import Final

from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition, upstream_of

MAX_INDENT: Final = 24
"""Levels of the tree; what is deeper goes on at the margin, so that a long chain stays readable (and small)."""


def render_tree(definition: JobDefinition) -> str:
    """The graph as a tree from its roots. A task with several dependencies is drawn below the first one that leads to
    it, with the others named; where it would appear again there is a reference (`↑`)."""
    index = {task.name: i for i, task in enumerate(definition.tasks)}
    dependents = _dependents(definition, index)
    count = len(definition.tasks)
    lines = [f"{_shown(definition.name)} ({_shown(definition.job_type)}), {count} task{'' if count == 1 else 's'}"]
    drawn: set[int] = set()
    blocks = [i for i, task in enumerate(definition.tasks) if not task.depends_on]
    continued: list[int] = []
    while blocks:
        for place, root in enumerate(blocks):
            _draw(definition, dependents, root, place == len(blocks) - 1, drawn, continued, lines)
        blocks, continued = continued, []
        if blocks:
            lines.append("continued:")
    return "\n".join(lines) + "\n"


def render_mermaid(definition: JobDefinition) -> str:
    """The graph as a Mermaid flowchart. A thick arrow carries data (`input_from`), a thin one only the order."""
    index = {task.name: i for i, task in enumerate(definition.tasks)}
    lines = ["---", f"title: {_mermaid_title(definition.name)}", "---", "flowchart TD"]
    lines += [
        f'    t{i}["{_mermaid(task.name)}<br/><small>{_mermaid(task.task_type)}</small>"]'
        for i, task in enumerate(definition.tasks)
    ]
    for i, task in enumerate(definition.tasks):
        with_data = {upstream_of(reference) for reference in task.input_from.values()}
        for name in task.depends_on:
            if name in index:
                lines.append(f"    t{index[name]} {'==>' if name in with_data else '-->'} t{i}")
    return "\n".join(lines) + "\n"


def _draw(
    definition: JobDefinition,
    dependents: list[list[int]],
    root: int,
    last_root: bool,
    drawn: set[int],
    continued: list[int],
    lines: list[str],
) -> None:
    """One root with everything below it. A stack instead of recursion: chains are long."""
    stack: list[tuple[int, str, bool, int]] = [(root, "", last_root, 0)]
    while stack:
        at, indent, last, depth = stack.pop()
        task = definition.tasks[at]
        branch = "└─ " if last else "├─ "
        if at in drawn and depth:
            lines.append(f"{indent}{branch}{_shown(task.name)} ↑")
            continue
        if depth >= MAX_INDENT:
            lines.append(f"{indent}{branch}{_shown(task.name)} ↓")
            continued.append(at)
            drawn.add(at)  # others refer to it from now on
            continue
        drawn.add(at)
        lines.append(f"{indent}{branch}{_label(task)}")
        below = indent + ("   " if last else "│  ")
        children = dependents[at]
        for place in range(len(children) - 1, -1, -1):
            stack.append((children[place], below, place == len(children) - 1, depth + 1))


def _dependents(definition: JobDefinition, index: dict[str, int]) -> list[list[int]]:
    dependents: list[list[int]] = [[] for _ in definition.tasks]
    for i, task in enumerate(definition.tasks):
        for name in task.depends_on:
            if name in index:
                dependents[index[name]].append(i)
    return dependents


def _label(task: TaskDefinition) -> str:
    label = f"{_shown(task.name)} [{_shown(task.task_type)}]"
    others = task.depends_on
    if len(others) > 1:
        names = ", ".join(_shown(name) for name in others[:4])
        label += f" ← {names}" + (f" and {len(others) - 4} more" if len(others) > 4 else "")
    return label


def _shown(text: str) -> str:
    """A name as it is, with whatever could move a cursor or reorder a line escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def _mermaid(text: str) -> str:
    """Text in a label: what Mermaid, or the page around it, could take for its own becomes an entity."""
    return "".join(c if c.isalnum() or c in "-_ ." else f"#{ord(c)};" for c in text)


def _mermaid_title(text: str) -> str:
    """A double-quoted YAML string without a character that means something to Mermaid's own scan of the text."""
    return json.dumps(text).translate({ord(c): f"\\u{ord(c):04x}" for c in "%<>&{}`"})
