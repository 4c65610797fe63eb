"""What is expected of an output, against what it is. Pure; and a command, for outputs and patterns that may be trouble.

As a command it reads a JSON object from standard input, `{"expectations": […], "stdout": {"file": …} | {"text": …},
"stderr": {"text": …}}`, and prints the complaints as a JSON array of strings. It is started as a bare script, so it
imports nothing but the standard library. Texts of output travel as Latin-1: a character for each byte.
"""

from __future__ import annotations

import difflib
import json
import mmap
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

OPEN_BYTES = 64 << 20
"""A larger output is not opened for a pattern or as JSON."""

MEMORY_BYTES = 1 << 30
"""What the command may use besides the output itself."""

CONTEXT = 3
"""Lines shown around a difference."""

_WINDOW_LINES = 200
_WINDOW_BYTES = 64 * 1024
_SHOWN_LINES = 60
_SHOWN_CHARACTERS = 240
_DIFFERENCES = 20
_BAD_JSON = (ValueError, RecursionError)  # ValueError: also half a character, and a number of too many digits

Data = bytes | mmap.mmap


class Match(Enum):
    """How an output is compared."""

    EXACT = "exact"
    CONTAINS = "contains"
    REGEX = "regex"
    JSON = "json"


@dataclass(frozen=True)
class Expectation:
    """Of one stream ("stdout", "stderr")."""

    stream: str
    match: Match
    value: str


class BadExpectation(ValueError):
    """It can't be met by anything: no pattern, no JSON."""


def check_expectation(expectation: Expectation) -> None:
    """Raises `BadExpectation`."""
    if expectation.match is Match.REGEX:
        try:
            re.compile(expectation.value)
        except (re.error, RecursionError, OverflowError) as error:
            raise BadExpectation(f"no regular expression: {error}") from error
    elif expectation.match is Match.JSON:
        try:
            _json(expectation.value)
        except _BAD_JSON as error:
            raise BadExpectation(f"no JSON: {error}") from error


def complaints(expectations: Sequence[Expectation], streams: Mapping[str, Data]) -> list[str]:
    """What is not as expected, a text each; empty where all is."""
    found = [_COMPARE[each.match](each.stream, streams[each.stream], each.value) for each in expectations]
    return [complaint for complaint in found if complaint]


# --- exact ------------------------------------------------------------------------------------------


def _exact(stream: str, data: Data, value: str) -> str:
    expected = _without_newline(value.encode("utf-8", "surrogatepass"))
    size = len(data) - (data[-1:] == b"\n")
    if size == len(expected) and data[:size] == expected:
        return ""
    at = _first_difference(data, size, expected)
    begin = expected.rfind(b"\n", 0, at) + 1
    for _ in range(CONTEXT):
        begin = max(expected.rfind(b"\n", 0, max(begin - 1, 0)) + 1, 0)
    line = expected.count(b"\n", 0, begin)
    theirs, theirs_cut = _lines(expected, begin, len(expected))
    ours, ours_cut = _lines(data, begin, size)
    shown = [f"{stream} is not what was expected", "--- expected", "+++ actual"]
    body = list(_diff(theirs, ours, line, at - expected.rfind(b"\n", 0, at) - 1))
    shown += body[:_SHOWN_LINES]
    if len(body) > _SHOWN_LINES or theirs_cut or ours_cut:
        shown.append(f"… ({len(expected):,} bytes expected, {size:,} bytes actual)")
    return "\n".join(shown)


def _first_difference(data: Data, size: int, expected: bytes) -> int:
    low, high = 0, min(size, len(expected))  # equal up to `low`
    while low < high:
        middle = (low + high + 1) // 2
        if data[low:middle] == expected[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _lines(data: Data, begin: int, end: int) -> tuple[list[str], bool]:
    """The lines of a part of it, and whether there is more."""
    piece = data[begin : min(end, begin + _WINDOW_BYTES)]
    lines = piece.decode("utf-8", "backslashreplace").split("\n") if end > 0 else []
    return lines[:_WINDOW_LINES], begin + len(piece) < end or len(lines) > _WINDOW_LINES


def _diff(expected: list[str], actual: list[str], before: int, column: int) -> Iterator[str]:
    """A unified diff without its head, line numbers counted from `before`.

    Where lines differ only in what can't be seen (spaces at an end, combined letters, no-break spaces), it is spelled
    out.
    """
    first = True
    lookalikes = _seen(expected) & _seen(actual)
    for text in list(difflib.unified_diff(expected, actual, lineterm="", n=CONTEXT))[2:]:
        if text.startswith("@@"):
            yield re.sub(r"([-+])(\d+)", lambda found: f"{found[1]}{int(found[2]) + before}", text)
            continue
        changed = text[:1] in "-+"
        shown = _shown(text[1:], column if changed and first else 0)
        yield text[:1] + (_spelled(shown) if changed and _as_seen(text[1:]) in lookalikes else shown)
        if text[:1] == "+":
            first = False


def _as_seen(line: str) -> str:
    """What two lines have in common that look the same."""
    return unicodedata.normalize("NFKC", line).rstrip()


def _seen(lines: list[str]) -> set[str]:
    return {_as_seen(line) for line in lines}


def _spelled(shown: str) -> str:
    """Whatever is not ASCII by its number, and the spaces at the end."""
    text = shown.rstrip(" ")
    spelled = "".join(c if c.isascii() or c == "…" else c.encode("unicode_escape").decode() for c in text)
    return spelled + "\\x20" * (len(shown) - len(text))


# --- the others -------------------------------------------------------------------------------------


def _contains(stream: str, data: Data, value: str) -> str:
    if data.find(value.encode("utf-8", "surrogatepass")) >= 0:
        return ""
    return f"{stream} does not contain {_quoted(value)}{_excerpt(stream, data)}"


def _regex(stream: str, data: Data, value: str) -> str:
    if len(data) > OPEN_BYTES:
        return f"{stream} has {len(data):,} bytes; a pattern is looked for in at most {OPEN_BYTES:,}"
    if re.search(value, data[:].decode("utf-8", "replace")):
        return ""
    return f"{stream} has no match for {_quoted(value)}{_excerpt(stream, data)}"


def _subset(stream: str, data: Data, value: str) -> str:
    if len(data) > OPEN_BYTES:
        return f"{stream} has {len(data):,} bytes; at most {OPEN_BYTES:,} are opened as JSON"
    try:
        actual = _json(data[:].decode("utf-8"))
    except _BAD_JSON as error:
        return f"{stream} is not one JSON value: {error}{_excerpt(stream, data)}"
    found: list[str] = []
    omitted = 0
    for difference in _differences(_json(value), actual, "$"):
        if len(found) < _DIFFERENCES:
            found.append(f"  {difference}")
        else:
            omitted += 1
    if not found:
        return ""
    more = [f"  … {omitted:,} more"] if omitted else []
    return "\n".join([f"{stream} is not the JSON that was expected", *found, *more])


def _differences(expected: Any, actual: Any, path: str) -> Iterator[str]:
    """Where `actual` lacks something of `expected`.

    Of objects the named keys are compared, arrays item by item and of one length; numbers by value, all else as it is.
    """
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            yield f"{path}: expected an object, got {_value(actual)}"
            return
        for key, value in expected.items():
            inner = f"{path}.{key}" if re.fullmatch(r"\w+", key) else f"{path}[{_value(key)}]"
            if key in actual:
                yield from _differences(value, actual[key], inner)
            else:
                yield f"{inner}: missing; there is {_keys(actual)}"
    elif isinstance(expected, list):
        if not isinstance(actual, list):
            yield f"{path}: expected an array, got {_value(actual)}"
            return
        if len(expected) != len(actual):
            yield f"{path}: expected {len(expected)} items, got {len(actual)}"
        for index, (value, other) in enumerate(zip(expected, actual, strict=False)):
            yield from _differences(value, other, f"{path}[{index}]")
    elif expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
        yield f"{path}: expected {_value(expected)}, got {_value(actual)}"


_COMPARE = {Match.EXACT: _exact, Match.CONTAINS: _contains, Match.REGEX: _regex, Match.JSON: _subset}


# --- how it reads -----------------------------------------------------------------------------------


def _excerpt(stream: str, data: Data) -> str:
    """How the output begins, as the rest of a complaint."""
    size = len(data) - (data[-1:] == b"\n")
    if size <= 0:
        return f"; {stream} is empty"
    lines = data[: min(size, 4096)].decode("utf-8", "backslashreplace").split("\n")
    shown = [f"  {_shown(line)}" for line in lines[:10]]
    if size > 4096 or len(lines) > 10:
        shown.append(f"  … ({size:,} bytes)")
    return "\n".join([f"; {stream} is:", *shown])


def _shown(line: str, column: int = 0) -> str:
    """A line, control characters spelled out; of a long one the part around the column."""
    if len(line) > _SHOWN_CHARACTERS:
        start = max(0, min(column - _SHOWN_CHARACTERS // 3, len(line) - _SHOWN_CHARACTERS))
        end = start + _SHOWN_CHARACTERS
        line = ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _quoted(text: str) -> str:
    return f"'{_shown(text)}'"


def _value(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except _BAD_JSON:
        text = str(type(value).__name__)
    return text if len(text) <= 120 else text[:119] + "…"


def _keys(value: dict[str, Any]) -> str:
    names = ", ".join(_value(key)[:40] for key in list(value)[:8])
    return (names or "nothing") + (", …" if len(value) > 8 else "")


def _without_newline(data: bytes) -> bytes:
    return data[:-1] if data[-1:] == b"\n" else data


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


# --- as a command -----------------------------------------------------------------------------------


def main() -> int:
    """Read, compare, print."""
    order = json.load(sys.stdin)
    expectations = [Expectation(stream, Match(match), value) for stream, match, value in order["expectations"]]
    streams = {stream: _opened(order[stream]) for stream in ("stdout", "stderr")}
    _limit_memory(sum(map(len, streams.values())))
    try:
        found = complaints(expectations, streams)
    except MemoryError:
        found = [f"comparing takes more than {MEMORY_BYTES >> 20} MiB of memory"]
    json.dump(found, sys.stdout)
    sys.stdout.flush()
    return 0


def _opened(source: dict[str, str]) -> Data:
    if "text" in source:
        return source["text"].encode("latin-1")
    fd = os.open(source["file"], os.O_RDONLY)
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ) if os.fstat(fd).st_size else b""
    finally:
        os.close(fd)


def _limit_memory(size: int) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = size + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))


if __name__ == "__main__":
    raise SystemExit(main())
