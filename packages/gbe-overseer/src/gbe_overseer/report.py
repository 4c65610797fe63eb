"""A job and its results as text: what `gbe show` prints, and `gbe run` at its end. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Completed, Failed
from gbe_jobs_domain.states import TaskState
from gbe_overseer.escape import lines_of, one_line
from gbe_overseer.plain import ending
from gbe_overseer.view import JobView, TaskView
from gbe_overseer.words import duration, headline, tally

OUTPUT_LINES = 20
"""Lines of a task's output in a report; `gbe logs` has them all."""

ERROR_LINES = 80
"""Lines of a task's error: a diff is worth reading."""

_DATA = 400
_LINE = 400
_TASKS = 200
_COMPARED = 1 << 16


def report(view: JobView, now: int, *, seen: bool = False) -> Iterator[str]:
    """The job's end (or where it is), and its tasks with what they wrote.

    `seen`: how each ended stands right above it; then this is what they wrote, and why some failed.
    """
    if seen:
        if results := list(_results(view, now)):
            yield ""
            yield from results
        return
    yield headline(view, now)
    if not view.over and view.tasks:
        yield f"  {tally(view.counts())}"
    for text in view.waiting.values():
        yield f"  waiting: {one_line(text)}"
    shown = _most_telling(view.tasks)
    for task in shown:
        yield from _unfolded(view, task, now, "")
    if len(shown) < len(view.tasks):
        yield f"  … and {len(view.tasks) - len(shown):,} more tasks (gbe show {view.job_id} --json has all)"


def _unfolded(view: JobView, task: TaskView, now: int, indent: str) -> Iterator[str]:
    """A task, and below it those it consists of."""
    for line in _task(view, task, now):
        yield indent + line
    if task.child is not None:
        shown = _most_telling(task.child.tasks)
        for inner in shown:
            yield from _unfolded(task.child, inner, now, indent + "  ")
        if len(shown) < len(task.child.tasks):
            left = len(task.child.tasks) - len(shown)
            yield f"{indent}    … and {left:,} more tasks (gbe show {task.child.job_id} --json has all)"


def _results(view: JobView, now: int) -> Iterator[str]:
    if view.error and not view.failed_task:  # cut off, perhaps, where the terminal ends
        yield headline(view, now)
    for task in view.unfolded():
        first, *written = _task(view, task, now)
        if task.state is TaskState.FAILED:
            yield task.above + first.removeprefix("  ")
        elif written:
            yield task.title
        for line in written:
            yield line.removeprefix("  ")


def _most_telling(tasks: list[TaskView]) -> list[TaskView]:
    """All of them, or those that went wrong first; in definition order."""
    if len(tasks) <= _TASKS:
        return tasks
    telling = sorted(tasks, key=lambda task: (task.state is not TaskState.FAILED, task.index))[:_TASKS]
    return sorted(telling, key=lambda task: task.index)


def _task(view: JobView, task: TaskView, now: int) -> Iterator[str]:
    if task.state.terminal:
        yield f"  {task.name}: {ending(task)}"
    else:
        elapsed = f" for {duration(task.elapsed_ms(now))}" if task.state is TaskState.RUNNING and task.began_at else ""
        note = f", {one_line(task.note, _LINE)}" if task.note else ""
        attempt = f", attempt {task.attempts}" if task.attempts > 1 else ""
        yield f"  {task.name}: {task.state.value}{elapsed}{attempt}{note}"
    outcome = task.outcome
    if not isinstance(outcome, Completed | Failed):
        return
    yield from _tail("|", outcome.output, view, task)
    if isinstance(outcome, Failed):
        error = outcome.error.strip("\n").split("\n")
        if len(error) > 1:  # above is its first line
            yield from _head("!", error, view)
        said = outcome.stderr.strip()
        if said and said not in outcome.error:
            yield from _tail("!", said.split("\n"), view, task)
    if isinstance(outcome.data, Ref):
        yield f"    = {one_line(outcome.data.uri)} ({outcome.data.size:,} bytes)"
    elif outcome.data is not None:
        raw = bytes(outcome.data.value)
        if not _repeats_output(outcome, raw):
            yield f"    = {one_line(raw[: _DATA * 4].decode(errors='replace'), _DATA)}"


def _head(mark: str, lines: list[str], view: JobView) -> Iterator[str]:
    for line in lines[:ERROR_LINES]:
        yield f"    {mark} {one_line(line, _LINE)}".rstrip()
    if len(lines) > ERROR_LINES:
        yield f"    {mark} … {len(lines) - ERROR_LINES:,} lines more (gbe show {view.job_id} --json has all)"


def _tail(mark: str, lines: list[str], view: JobView, task: TaskView) -> Iterator[str]:
    left_out = len(lines) - OUTPUT_LINES
    if left_out > 0:
        yield f"    {mark} … {left_out:,} lines before (gbe logs {view.job_id} {task.name})"
    for line in lines[-OUTPUT_LINES:]:
        for safe in lines_of(line[: _LINE * 4]) or [""]:
            yield f"    {mark} {one_line(safe, _LINE)}"


def _repeats_output(outcome: Completed | Failed, raw: bytes) -> bool:
    """Whether the data is no more than the lines shown above it."""
    if len(raw) > _COMPARED:
        return False
    decoded = msgspec.json.decode(raw)
    if decoded == outcome.output or (not decoded and not outcome.output):
        return True
    try:
        return bool(msgspec.json.decode("\n".join(outcome.output)) == decoded)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
