"""YAML text to nodes.

Built on PyYAML's *events*: its composer recurses, expands aliases and resolves YAML 1.1 (`yes`, `on`, 1_000, 12:30).
Here nothing recurses, an alias is an error where it stands, and scalars follow the YAML 1.2 core schema.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from gbe_jobs_domain.collector import Collector
from gbe_jobs_domain.errors import plain, quoted
from gbe_jobs_domain.nodes import (
    MAX_DEPTH,
    MAX_NODES,
    Block,
    Broken,
    Entries,
    Items,
    Kind,
    Node,
    Scalar,
    TooLarge,
    Unreadable,
)

_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NUMBER: Final = re.compile(
    r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_NUMBER_STARTS: Final = frozenset("+-.0123456789")


def parse_yaml(text: str, collector: Collector) -> Node | None:
    """The document's node; None where the text holds none. Structural errors are collected.

    Raises `Unreadable` (the reason collected) where parsing can't go on.
    """
    if found := _UNPRINTABLE.search(text):
        before = text[: found.start()]
        line, column = before.count("\n") + 1, found.start() - before.rfind("\n")
        collector.at(
            line, column, f"not valid YAML: character U+{ord(found[0]):04X}", "write it as an escape in quotes"
        )
        raise Unreadable
    composer = _Composer(collector, text)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = f"not valid YAML: {error.problem or 'unexpected end'}"
        if error.context:
            begun = error.context_mark
            where = f" that begins in line {begun.line + 1}" if begun and begun.line + 1 < line else ""
            message += f" ({error.context}{where})"
        collector.at(line, column, message, _hint(text, line, column))
        raise Unreadable from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Not known to happen, but what a parser of foreign text may raise is not for the caller to find out.
        collector.at(1, 1, f"not valid YAML: {' '.join(str(error).split())}")
        raise Unreadable from None
    return composer.root


def resolve(text: str) -> Kind:
    """What an unquoted scalar means in YAML 1.2."""
    if text in _NULLS:
        return Kind.NULL
    if text[0] in _NUMBER_STARTS:
        return Kind.NUMBER if _NUMBER.match(text) else Kind.STRING
    return Kind.BOOL if text in _TRUE or text in _FALSE else Kind.STRING


def _hint(text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    if not 1 <= line <= len(lines):
        return ""
    at = lines[line - 1]
    if at[column - 1 : column] == "\t" or re.match(r" *\t", at):
        return "tabs can't indent YAML, use spaces"
    if at[column - 1 : column] in ("@", "`", "%", "*", "&", "!"):
        return "a value that begins with this character needs quotes"
    if at[column - 1 : column] == ":":
        return "a value with ': ' in it needs quotes"
    return ""


class _Composer:
    """Builds the nodes with a stack of its own."""

    def __init__(self, collector: Collector, text: str) -> None:
        self.root: Node | None = None
        self._text = text
        self._lines: list[str] | None = None
        self._errors = collector
        self._open: list[Items | Entries] = []
        self._keys: list[Scalar | Broken | None] = []  # per open collection: the key whose value comes next
        self._count = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        """Apply one event."""
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            line, column = self._begin(event)
            self._decorated(event, line, column)
            kind = Entries if isinstance(event, yaml.MappingStartEvent) else Items
            if len(self._open) >= MAX_DEPTH:
                self._errors.at(line, column, f"nested deeper than {MAX_DEPTH} levels")
                raise TooLarge
            node = kind(line, column)
            self._add(node)
            self._open.append(node)
            self._keys.append(None)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            line, column = self._begin(event)
            self._errors.at(line, column, "aliases are not supported", "write the value out")
            self._add(Broken(line, column))
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                line, column = self._begin(event)
                self._errors.at(line, column, "a second document", "one file holds one job")
                raise Unreadable

    def _begin(self, event: Any) -> tuple[int, int]:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        self._count += 1
        if self._count > MAX_NODES:
            self._errors.at(line, column, f"more than {MAX_NODES:,} values in one document")
            raise TooLarge
        return line, column

    def _decorated(self, event: Any, line: int, column: int) -> None:
        if event.anchor is not None:
            self._errors.at(line, column, f"anchors are not supported (&{plain(event.anchor)})", "write the value out")
        if event.tag is not None:
            hint = "put a value in quotes to make it a string" if event.tag.endswith(":str") else "leave it out"
            self._errors.at(line, column, f"tags are not supported ({plain(event.tag)})", hint)

    def _scalar(self, event: Any) -> Node:
        line, column = self._begin(event)
        self._decorated(event, line, column)
        text: str = event.value
        if event.implicit[0] and event.style in (None, ""):
            kind = resolve(text)
            return Scalar(text.lower() if kind is Kind.BOOL else text, kind, line, column)
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            self._errors.at(line, column, "half a surrogate pair is no character")
            return Broken(line, column)
        if event.style == "|":
            return Block(text, line, column, self._indent(text, line))
        return Scalar(text, Kind.STRING, line, column)

    def _indent(self, block: str, line: int) -> int:
        """How far a literal block that begins after `line` is indented."""
        if self._lines is None:
            self._lines = self._text.split("\n")
        inside = next((found for found in block.split("\n") if found.strip()), "")
        outside = next((found for found in self._lines[line:] if found.strip()), "")
        return max(len(outside) - len(outside.lstrip(" ")) - (len(inside) - len(inside.lstrip(" "))), 0)

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, Items):
            parent.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            self._keys[-1] = self._key(node)
            return
        self._keys[-1] = None
        if isinstance(key, Broken):
            parent.partial = True
            return
        if key.text in parent.entries:
            first = parent.entries[key.text][0].line
            message = f"duplicate key {quoted(key.text)}"
            self._errors.at(key.line, key.column, message, f"the first one is in line {first}")
        else:
            parent.entries[key.text] = (key, node)

    def _key(self, node: Node) -> Scalar | Broken:
        if isinstance(node, Scalar) and node.kind is not Kind.NULL:
            if node.text != "<<":
                return node
            self._errors.at(node.line, node.column, "merge keys are not supported", "write the keys out")
        elif not isinstance(node, Broken):
            self._errors.at(node.line, node.column, "a key must be plain text")
        return Broken(node.line, node.column)
