"""Times, states and counts as people read them. Pure."""

from __future__ import annotations

from collections import Counter

from gbe_jobs_domain.states import TaskState
from gbe_overseer.escape import one_line
from gbe_overseer.view import JobView


def duration(ms: int) -> str:
    """`0.12 s`, `12.3 s`, `2 min 05 s`, `3 h 07 min`, `2 d 04 h`."""
    seconds = ms / 1000
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h"


def summary_of(text: str) -> str:
    """The line that says most (the first; of a Python traceback the last), safe, and a sign where there are more."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    telling = lines[-1 if lines[0].startswith("Traceback (most recent call last)") else 0]
    return one_line(telling, 2000) + (" …" if len(lines) > 1 else "")


def plural(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`, `5,000 tasks`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def tally(counts: Counter[TaskState]) -> str:
    """`3 completed, 1 running, 2 blocked`; in the order in which a reader asks."""
    order = (
        TaskState.FAILED,
        TaskState.RUNNING,
        TaskState.CLAIMED,
        TaskState.PENDING,
        TaskState.COMPLETED,
        TaskState.SKIPPED,
        TaskState.CANCELLED,
        TaskState.BLOCKED,
    )
    return ", ".join(f"{counts[state]:,} {state.value}" for state in order if counts[state])


def title(view: JobView) -> str:
    """The job's name and id; the id alone where its name isn't known."""
    return f"{one_line(view.name)} ({view.job_id})" if view.name else view.job_id


def headline(view: JobView, now: int) -> str:
    """`nightly (job_…): failed after 1.30 s: fetch: boom`."""
    state = view.state.value
    text = f"{title(view)}: {state}"
    if view.created_at:
        text += f" {'in' if state == 'completed' else 'after'} {duration(view.elapsed_ms(now))}"
    why = view.error or view.reason
    if why:
        where = f"{view.failed_task}: " if view.failed_task else ""
        text += f": {where}{summary_of(why)}"
        others = view.counts()[TaskState.FAILED] - 1
        if view.over and view.failed_task and others > 0:
            text += f" (and {plural(others, 'other task')} failed)"
    return text
