"""`gbe run --junit FILE`: a report in any case, however the run ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gbe_jobs_domain.definitions import JobDefinition
from gbe_nexus import now_ms
from gbe_overseer.view import JobView
from gbe_runtime.errors import ConfigurationError


class JunitFile:
    """The file, and the job whose report it gets.

    Whether it can be written is found out at once (`ConfigurationError`). A report of an earlier run is gone from then
    on: nobody shall take it for this one's.
    """

    def __init__(self, path: Path, definition: JobDefinition) -> None:
        self._path = path
        self._definition = definition
        self._written = False
        if path.is_dir():
            raise ConfigurationError(f"--junit: {path} is a directory, not a file")
        if not path.parent.is_dir():
            raise ConfigurationError(f"--junit: there is no directory {path.parent}")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ConfigurationError(f"--junit: the directory {path.parent} can't be written to")
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--junit: {path}: {error.strerror}") from error

    def write(self, view: JobView) -> None:
        """The job as it was seen last. Raises `ConfigurationError`."""
        from gbe_overseer.junit import junit_report, view_of, write_report  # XML takes a while to import

        if not view.tasks:  # nobody had taken it yet
            view = view_of(self._definition, error=view.error, reason=view.reason or "interrupted", job_id=view.job_id)
        try:
            write_report(self._path, junit_report(view, now_ms()))
        except OSError as error:
            raise ConfigurationError(f"--junit: {self._path}: {error.strerror}") from error
        self._written = True

    def write_nothing(self, *, error: str = "", reason: str = "") -> None:
        """That the job came to nothing, and why. Does nothing where there is a report, and never fails."""
        if not self._written:
            from gbe_overseer.junit import view_of

            with contextlib.suppress(ConfigurationError):
                self.write(view_of(self._definition, error=error, reason=reason))
