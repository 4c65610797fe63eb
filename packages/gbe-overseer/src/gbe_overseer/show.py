"""Printing a job's result to stdout, as people or programs read it."""

from __future__ import annotations

import sys

from gbe_nexus import now_ms
from gbe_overseer.errors import OutputRefused
from gbe_overseer.report import report
from gbe_overseer.result import job_result, to_json
from gbe_overseer.view import JobView


def print_result(view: JobView, *, json: bool, seen: bool = False) -> None:
    """The `--json` object, or the report. `seen`: how everything ended stands on the terminal already."""
    now = now_ms()
    if json:
        text = to_json(job_result(view, now), pretty=sys.stdout.isatty()) + "\n"
    else:
        text = "".join(f"{line}\n" for line in report(view, now, seen=seen and sys.stdout.isatty()))
    write(text)


def write(text: str) -> None:
    """To stdout, whatever its encoding can't express written out. Raises `OutputRefused`, and `BrokenPipeError`."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputRefused(error) from error
