"""Collects the errors of one document."""

from __future__ import annotations

from collections.abc import Callable

from gbe_jobs_domain.errors import MAX_ERRORS, DefinitionError, DefinitionErrors, PathPart, path_text
from gbe_jobs_domain.nodes import Node


class Collector:
    """Errors of one source, bounded in number."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.errors: list[DefinitionError] = []
        self.omitted = 0

    def __bool__(self) -> bool:
        return bool(self.errors)

    def at(self, line: int, column: int, message: str, hint: str = "", path: tuple[PathPart, ...] = ()) -> None:
        """Note an error at a place."""
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(DefinitionError(self.source, line, column, path_text(path), message, hint))
        else:
            self.omitted += 1

    def on(self, node: Node, path: tuple[PathPart, ...], message: str, hint: str = "") -> None:
        """Note an error about a node."""
        self.at(node.line, node.column, message, hint, path)

    def take(self, other: Collector) -> None:
        """Note everything that was noted of another source."""
        for error in other.errors:
            if len(self.errors) < MAX_ERRORS:
                self.errors.append(error)
            else:
                self.omitted += 1
        self.omitted += other.omitted

    def all(self) -> DefinitionErrors:
        """Everything noted, to be raised."""
        return DefinitionErrors(self.errors, self.omitted)


Placing = Callable[[int, int, str], tuple[int, int, str]]
"""Where in the outer document a place of the inner one is: line, column and message to the same."""


class Nested(Collector):
    """Errors of a document within another one: noted there, below `path`. True where there were any."""

    def __init__(self, outer: Collector, path: tuple[PathPart, ...], placing: Placing | None = None) -> None:
        super().__init__(outer.source)
        self._outer = outer
        self._path = path
        self._placing = placing
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def at(self, line: int, column: int, message: str, hint: str = "", path: tuple[PathPart, ...] = ()) -> None:
        """Note an error at a place of the inner document."""
        self._count += 1
        if self._placing is not None:
            line, column, message = self._placing(line, column, message)
        self._outer.at(line, column, message, hint, (*self._path, *path))

    def take(self, other: Collector) -> None:
        """Note everything that was noted of another source."""
        self._count += len(other.errors)
        self._outer.take(other)
