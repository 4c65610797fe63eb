"""What a running function can know and say: `current()`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gbe_operative_python.messages import Note, Run

MASK = "***"
PROGRESS_TEXT = 4096
"""Characters of a message."""
PROGRESS_BYTES = 64 << 10
"""Bytes of its data: more than the worker would pass on."""
_SHORTEST = 4  # as the worker has it: shorter values would be found everywhere


class Context:
    """One attempt, as its function sees it."""

    __slots__ = ("_run", "_say", "_work_dir")

    def __init__(self, run: Run, say: Callable[[Note], None]) -> None:
        self._run = run
        self._say = say
        self._work_dir: Path | None = None

    @property
    def task_id(self) -> str:
        """The same for all attempts: what makes a good idempotency key."""
        return self._run.task_id

    @property
    def task_name(self) -> str:
        """As the job has it."""
        return self._run.task_name

    @property
    def task_type(self) -> str:
        """What `@task` named."""
        return self._run.task_type

    @property
    def job_id(self) -> str:
        """The job's."""
        return self._run.job_id

    @property
    def attempt(self) -> int:
        """From 1; counts the failed attempts before it."""
        return self._run.attempt

    @property
    def work_dir(self) -> Path:
        """A directory for this attempt alone, made when it is first asked for and removed after the attempt."""
        if self._work_dir is None:
            path = Path(self._run.work_dir)
            path.mkdir(0o700, exist_ok=True)
            self._work_dir = path
        return self._work_dir

    @property
    def made_work_dir(self) -> bool:
        """Whether the directory above was asked for."""
        return self._work_dir is not None

    def progress(self, message: str, data: Any = None) -> None:
        """Say how it goes: seen by `gbe watch`, `gbe run` and whoever listens. Secrets are masked.

        Anything that is JSON may go along, up to 64 KiB; larger data is left out. May be called from any thread.
        """
        encoded = b"" if data is None else msgspec.json.encode(data)
        if len(encoded) > PROGRESS_BYTES:
            encoded = b""
        self._say(Note(message[:PROGRESS_TEXT].encode("utf-8", "replace").decode(), encoded))

    def mask(self, text: str) -> str:
        """`text` with this task's secrets replaced by `***`, for logs and services outside of GBE.

        What the function prints, returns and raises is masked in any case.
        """
        for value in sorted((one for one in self._run.secrets if len(one) >= _SHORTEST), key=len, reverse=True):
            text = text.replace(value, MASK)
        return text


_current: list[Context | None] = [None]


def current() -> Context:
    """The attempt that runs in this process. Raises RuntimeError where none does (a plain call in a test, say)."""
    context = _current[0]
    if context is None:
        raise RuntimeError(f"no task runs in this process ({os.getpid()}): current() is for functions run as tasks")
    return context


def set_current(context: Context | None) -> None:
    """The process's own business."""
    _current[0] = context
