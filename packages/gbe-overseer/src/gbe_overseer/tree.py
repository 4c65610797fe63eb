"""The live tree: a job's tasks with their states, times and attempts, redrawn as they change."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from gbe_jobs_domain.states import JobState, TaskState
from gbe_nexus import now_ms
from gbe_overseer.escape import one_line
from gbe_overseer.layout import Row, fitting, rows
from gbe_overseer.view import Change, JobView, TaskChanged, reason_of
from gbe_overseer.words import duration, headline, plural, tally, title

if TYPE_CHECKING:
    from typing import TextIO

REFRESH: Final = 0.1
"""Seconds between two pictures, where nothing changes."""

LEAST: Final = 0.04
"""Seconds between two pictures, however much changes: nobody sees more, and drawing costs time."""

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_SPINNER = "|/-\\"

_GLYPHS = {
    TaskState.COMPLETED: ("✓", "v", "green"),
    TaskState.SKIPPED: ("↷", "s", "cyan"),
    TaskState.FAILED: ("✗", "x", "bold red"),
    TaskState.CANCELLED: ("⊘", "-", "yellow"),
    TaskState.PENDING: ("○", "o", "blue"),
    TaskState.CLAIMED: ("○", "o", "blue"),
    TaskState.BLOCKED: ("·", ".", "dim"),
    TaskState.RUNNING: ("", "", "bold cyan"),
}
_JOB_STYLE = {
    JobState.COMPLETED: "bold green",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "bold yellow",
}


class LiveTree:
    """A `Display` on a terminal. The last picture stays on the screen."""

    interval: float | None = REFRESH

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        self._console = console or Console(file=stream, highlight=False, soft_wrap=False)
        self._unicode = (self._console.encoding or "").lower().replace("-", "").startswith("utf")
        self._rows: list[Row] = []
        self._count = -1
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._started = False
        self._drawn = 0.0
        self._all_drawn = False

    @property
    def tells_all(self) -> bool:
        """Whether no task was left out of the last picture."""
        return self._all_drawn

    def show(self, view: JobView, changes: Iterable[Change]) -> None:
        """Draw what is known now."""
        count = sum(1 for _ in view.unfolded())
        if count != self._count or any(isinstance(c, TaskChanged) and not self._rows for c in changes):
            self._count = count
            self._rows = rows(view.tasks)
        if not self._started:
            self._started = True
            self._live.start()
        now = time.monotonic()
        if view.over or now - self._drawn >= LEAST:
            self._drawn = now
            self._live.update(self.picture(view, now_ms()), refresh=True)

    def say(self, text: str) -> None:
        """Print it above the tree."""
        self._console.print(Text(text))

    def close(self) -> None:
        """Leave the last picture and give the cursor back."""
        if self._started:
            self._started = False
            self._live.stop()

    def picture(self, view: JobView, now: int) -> Group:
        """The tree at this moment, in no more lines than the terminal has."""
        room = max(self._console.height - 3 - len(view.waiting), 3)
        shown, left_out = fitting(self._rows, room)
        self._all_drawn = view.over and not left_out
        lines = [self._head(view, now)]
        lines += [self._line(row, now) for row in shown]
        if left_out:
            counts = Counter(task.state for task in left_out)
            lines.append(Text(f"… and {plural(len(left_out), 'task')} more: {tally(counts)}", "dim"))
        lines += [Text(f"waiting: {one_line(text)}", "yellow") for text in view.waiting.values()]
        return Group(*lines)

    def _head(self, view: JobView, now: int) -> Text:
        if view.over:
            return _line(Text(headline(view, now), _JOB_STYLE.get(view.state, "")))
        text = Text()
        text.append(title(view), "bold")
        counts = tally(view.counts()) if view.tasks else "waiting for an Oracle"
        text.append(f"  {counts}", "dim")
        if view.created_at:
            text.append(f"  {duration(view.elapsed_ms(now))}", "cyan")
        return _line(text)

    def _line(self, row: Row, now: int) -> Text:
        task = row.task
        fancy, simple, style = _GLYPHS[task.state]
        glyph = fancy if self._unicode else simple
        if task.state is TaskState.RUNNING:
            frames = _SPINNER if self._unicode else _PLAIN_SPINNER
            glyph = frames[now // 100 % len(frames)]
        guide = row.guide if self._unicode else row.guide.translate(_ASCII_GUIDES)
        text = Text()
        text.append(guide, "dim")
        text.append(f"{glyph} ", style)
        text.append(one_line(task.name), "" if task.state is not TaskState.BLOCKED else "dim")
        text.append(f"  {task.task_type}", "dim")
        if task.began_at:
            text.append(f"  {duration(task.elapsed_ms(now))}", "cyan")
        if task.attempts > 1:
            text.append(f"  attempt {task.attempts}", "magenta")
        if why := reason_of(task) if task.state in _WITH_REASON else "":
            text.append(f"  {one_line(why, 300)}", style)
        elif task.note and not task.state.terminal:
            text.append(f"  {one_line(task.note, 300)}", "yellow")
        elif task.last_line and task.state is TaskState.RUNNING:
            text.append(f"  {one_line(task.last_line, 300)}", "dim")
        elif row.also_needs and task.state is TaskState.BLOCKED:
            text.append(f"  also needs {', '.join(row.also_needs[:4])}", "dim")
        return _line(text)


_WITH_REASON = (TaskState.FAILED, TaskState.SKIPPED)
_ASCII_GUIDES = str.maketrans({"└": "`", "├": "|", "─": "-", "│": "|", "·": ".", "▸": ">"})


def _line(text: Text) -> Text:
    """One row of the screen, never two: cut where the terminal ends."""
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
