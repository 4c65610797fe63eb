"""A list of jobs as a table, or as the object that `gbe jobs --json` prints. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gbe_overseer.client import JobLine
from gbe_overseer.escape import one_line
from gbe_overseer.words import duration

_HEAD = ("JOB", "NAME", "STATE", "TASKS", "CREATED", "TOOK", "")


def listing(lines: Sequence[JobLine]) -> str:
    """The table, with a line end at its end."""
    return table([_HEAD, *map(_row, lines)])


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def listing_object(lines: Sequence[JobLine]) -> dict[str, object]:
    """`{"jobs": [{job_id, name, job_type, state, task_count, created_at, ended_at, error?}]}`."""
    return {
        "jobs": [
            {
                "job_id": line.job_id,
                "name": line.name,
                "job_type": line.job_type,
                "state": line.state.value,
                "task_count": line.task_count,
                "created_at": line.created_at or None,
                "ended_at": line.ended_at or None,
                **({"error": line.error} if line.error else {}),
            }
            for line in lines
        ]
    }


def moment(ms: int) -> str:
    """A time of the day here; `-` for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) if ms else "-"


def _row(line: JobLine) -> tuple[str, ...]:
    took = duration(max(line.ended_at - line.created_at, 0)) if line.ended_at else "-"
    return (
        line.job_id,
        one_line(line.name or line.job_type, 40),
        line.state.value,
        f"{line.task_count:,}" if line.task_count else "-",
        moment(line.created_at),
        took,
        one_line(line.error, 60),
    )
