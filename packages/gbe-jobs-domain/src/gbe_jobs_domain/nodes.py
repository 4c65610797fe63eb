"""A parsed document with places: what YAML and JSON have in common, before anyone asks what it means."""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias

MAX_DEPTH: Final = 50
MAX_NODES: Final = 2_000_000
"""Values in one document: what bounds the memory that a hostile one can take."""


class Kind(Enum):
    """What an unquoted scalar means (YAML 1.2 core schema, which for JSON's own values is JSON)."""

    STRING = "string"
    NUMBER = "number"
    BOOL = "boolean"
    NULL = "null"


class Scalar:
    """A value without parts. `text` is the source's own for numbers, so that 1.50 stays 1.50."""

    __slots__ = ("column", "kind", "line", "text")

    def __init__(self, text: str, kind: Kind, line: int, column: int) -> None:
        self.text = text
        self.kind = kind
        self.line = line
        self.column = column


class Block(Scalar):
    """A literal block (`|`): its lines are the source's own, from the one after `line` on, `indent` to the right."""

    __slots__ = ("indent",)

    def __init__(self, text: str, line: int, column: int, indent: int) -> None:
        super().__init__(text, Kind.STRING, line, column)
        self.indent = indent


class Items:
    """A list."""

    __slots__ = ("column", "items", "line")

    def __init__(self, line: int, column: int) -> None:
        self.items: list[Node] = []
        self.line = line
        self.column = column


class Entries:
    """A mapping: key to the key's own node and its value. `partial`: some of it was reported and left out."""

    __slots__ = ("column", "entries", "line", "partial")

    def __init__(self, line: int, column: int) -> None:
        self.entries: dict[str, tuple[Scalar, Node]] = {}
        self.partial = False
        self.line = line
        self.column = column


class Broken:
    """Something that was reported already: nothing more is to be said about it."""

    __slots__ = ("column", "line")

    def __init__(self, line: int, column: int) -> None:
        self.line = line
        self.column = column


Node: TypeAlias = Scalar | Items | Entries | Broken


def node_at(node: Node, path: tuple[str | int, ...]) -> Node:
    """The node at a path, or the nearest one above it."""
    for part in path:
        if isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        elif isinstance(node, Entries) and isinstance(part, str) and part in node.entries:
            node = node.entries[part][1]
        else:
            break
    return node


class Unreadable(Exception):
    """The text can't be parsed any further; the collector has the reason."""


class TooLarge(Unreadable):
    """It goes on, but not here: too deep, or too many values."""
