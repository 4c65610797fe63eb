"""What is wrong with a job document: every error at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_ERRORS: Final = 200
"""Errors kept of one document; beyond that they are only counted."""

PathPart = str | int

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class DefinitionError:
    """One error. `line` and `column` count from 1; 0 where there is no place (a definition off the bus, a `--var`)."""

    source: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        path = f"{self.path}: " if self.path else ""
        return f"{place}: {path}{with_hint(self.message, self.hint)}"


class DefinitionErrors(ValueError):
    """All errors of a document, in the order of their places. `omitted`: how many more there were."""

    def __init__(self, errors: Iterable[DefinitionError], omitted: int = 0) -> None:
        found = list(errors)
        order = {source: at for at, source in enumerate(dict.fromkeys(error.source for error in found))}
        self.errors = tuple(sorted(found, key=lambda error: (order[error.source], error.line, error.column)))
        self.omitted = omitted
        lines = [str(error) for error in self.errors]
        if omitted:
            lines.append(f"… and {omitted} more")
        super().__init__("\n".join(lines))


def with_hint(message: str, hint: str) -> str:
    """One sentence of both."""
    if not hint:
        return message
    return f"{message}{', ' if hint.startswith('did you mean') else '; '}{hint}"


def path_text(parts: Iterable[PathPart]) -> str:
    """`tasks[2].params.url`; keys that aren't plain are quoted."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.match(part):
            text += f".{part}" if text else part
        else:
            text += f"[{quoted(part)}]"
    return text


def quoted(text: str) -> str:
    """What was found, for a message: in quotes, escaped, and short."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def plain(name: str) -> str:
    """A name within a sentence: as it is where it is harmless, else quoted."""
    return name if _PLAIN_KEY.match(name) else quoted(name)
