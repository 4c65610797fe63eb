"""`Display`: where somebody looks on while a job runs; a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Protocol, TextIO

from gbe_nexus import now_ms
from gbe_overseer.plain import lines
from gbe_overseer.view import Change, JobView


class Display(Protocol):
    """Shows a job as it goes on. `interval`: seconds after which `show` is wanted without any change."""

    interval: float | None

    @property
    def tells_all(self) -> bool:
        """Whether what it leaves on the screen says of each task how it ended."""
        ...

    def show(self, view: JobView, changes: Iterable[Change]) -> None:
        """What is known now, and what is new about it."""
        ...

    def say(self, text: str) -> None:
        """A line for whoever looks on, about what isn't the job's doing."""
        ...

    def close(self) -> None:
        """Nothing more comes. Twice is fine."""
        ...


class PlainLines:
    """One line per event."""

    interval: float | None = None
    tells_all = False  # a log is not read for the results

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, view: JobView, changes: Iterable[Change]) -> None:
        """Print the new lines."""
        text = "".join(f"{line}\n" for line in lines(view, changes, now_ms()))
        if text:
            self._stream.write(text)
            self._stream.flush()

    def say(self, text: str) -> None:
        """Print it among them."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing to do."""


class Nothing:
    """For who wants the result only."""

    interval: float | None = None
    tells_all = False

    def show(self, view: JobView, changes: Iterable[Change]) -> None:
        """Not shown."""

    def say(self, text: str) -> None:
        """That is said all the same."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to do."""


def display_on(stream: TextIO, *, quiet: bool = False) -> Display:
    """The live tree where the stream is a terminal that can move its cursor."""
    if quiet:
        return Nothing()
    if stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        from gbe_overseer.tree import LiveTree

        return LiveTree(stream)
    return PlainLines(stream)
