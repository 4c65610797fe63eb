"""Making an outcome small enough for one message. Sizes are of the JSON that travels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from gbe_jobs_domain.edges import Inline
from gbe_jobs_domain.outcomes import Completed, Failed, TaskOutcome

_encode = msgspec.json.Encoder().encode

Reporting = TypeVar("Reporting", Completed, Failed)


def too_large(task: str, field: str, size: int, limit: int, hint: str = "") -> str:
    """The error of a hard limit: which step, what of it, how large, and how large it may be. Sizes in bytes."""
    return f"task {task!r}: {field} is {size:,} bytes, the limit is {limit:,}" + (f"; {hint}" if hint else "")


def encoded_size(text: str) -> int:
    """Bytes of a string as JSON, quotes included."""
    return len(_encode(text))


def tail_of_text(text: str, limit: int) -> str:
    """The end of `text` that takes at most about `limit` encoded bytes, with a word on what is missing."""
    if len(text) * 6 <= limit or encoded_size(text) <= limit:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest end that fits
        middle = (low + high + 1) // 2
        if encoded_size(text[len(text) - middle :]) <= limit:
            low = middle
        else:
            high = middle - 1
    return f"[… {len(text) - low} characters omitted …]\n" + text[len(text) - low :]


def tail_of_lines(lines: Sequence[str], limit: int) -> list[str]:
    """The last lines that take at most about `limit` encoded bytes, with a word on how many are missing."""
    size = 0
    for kept, line in enumerate(reversed(lines)):
        size += encoded_size(line) + 1
        if size > limit:
            omitted = len(lines) - kept
            if kept == 0 and lines:
                return [f"[… {omitted - 1} lines omitted …]", tail_of_text(lines[-1], limit)]
            return [f"[… {omitted} lines omitted …]", *lines[omitted:]]
    return list(lines)


def trim_texts(outcome: TaskOutcome, limit: int) -> TaskOutcome:
    """The outcome with output, stderr and error cut to about `limit` encoded bytes each; their ends are kept."""
    if isinstance(outcome, Completed):
        return _trim(outcome, limit)
    if isinstance(outcome, Failed):
        return replace(_trim(outcome, limit), error=tail_of_text(outcome.error, limit))
    return replace(outcome, reason=tail_of_text(outcome.reason, limit))


def _trim(outcome: Reporting, limit: int) -> Reporting:
    return replace(outcome, output=tail_of_lines(outcome.output, limit), stderr=tail_of_text(outcome.stderr, limit))


def inline_data(outcome: TaskOutcome) -> Inline | None:
    """The outcome's data where it is inline."""
    data = None if not isinstance(outcome, Completed | Failed) else outcome.data
    return data if isinstance(data, Inline) else None


def without_data(outcome: TaskOutcome) -> TaskOutcome:
    """The outcome without its data."""
    return replace(outcome, data=None) if isinstance(outcome, Completed | Failed) else outcome
