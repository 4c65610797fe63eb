"""Collects the errors of one document."""

from __future__ import annotations

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

    def all(self) -> DefinitionErrors:
        """Everything noted, to be raised."""
        return DefinitionErrors(self.errors, self.omitted)
