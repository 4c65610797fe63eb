"""What happens to a job as plain lines, one per event: for pipes, files and dumb terminals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gbe_jobs_domain.states import JobState, TaskState
from gbe_overseer.escape import one_line
from gbe_overseer.view import Change, JobChanged, JobView, TaskChanged, TaskNoted, TaskView, TaskWrote, reason_of
from gbe_overseer.words import duration, headline, plural, summary_of, title


def lines(view: JobView, changes: Iterable[Change], now: int) -> Iterator[str]:
    """One line (without its end) per change that a reader of a log wants to see."""
    for change in changes:
        if isinstance(change, JobChanged):
            yield from _job(view, change, now)
        elif isinstance(change, TaskChanged):
            yield from _task(change)
        elif isinstance(change, TaskWrote):
            yield from _output(change)
        elif isinstance(change, TaskNoted):
            yield f"{change.task.title}: {one_line(change.text)}"
        elif change.text:
            yield f"waiting: {one_line(change.text)}"
        else:
            yield f"no longer waiting for {_waited_for(change.what)}"


def _job(view: JobView, change: JobChanged, now: int) -> Iterator[str]:
    if change.state is JobState.RUNNING:
        yield f"{title(view)}: running, {plural(len(view.tasks), 'task')}"
    elif change.state.terminal:
        yield headline(view, now)


def _task(change: TaskChanged) -> Iterator[str]:
    task = change.task
    if change.state is TaskState.RUNNING:
        attempt = f", attempt {task.attempts}" if task.attempts > 1 else ""
        note = f", {one_line(task.note)}" if task.note else ""
        yield f"{task.title}: running{attempt}{note}"
    elif change.state.terminal:
        yield f"{task.title}: {ending(task)}"


def ending(task: TaskView) -> str:
    """`completed in 0.12 s, attempt 3`; with the reason, where it did not."""
    text = task.state.value
    if task.began_at and task.ended_at:
        text += f" {'in' if task.state is TaskState.COMPLETED else 'after'} {duration(task.elapsed_ms(0))}"
    if task.attempts > 1:
        text += f", attempt {task.attempts}"
    why = reason_of(task)
    return f"{text}: {summary_of(why)}" if why else text


def _output(change: TaskWrote) -> Iterator[str]:
    mark = "!" if change.stream == "stderr" else "|"
    if change.omitted:
        yield f"{change.task.title} {mark} ({plural(change.omitted, 'line')} left out)"
    for line in change.lines:
        yield f"{change.task.title} {mark} {one_line(line)}"


def _waited_for(what: str) -> str:
    return {"oracle": "an Oracle", "server": "the server"}.get(what, f"an Operative that handles '{what}'")
