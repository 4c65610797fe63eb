"""JSON text to nodes: for the places of errors. Valid documents rarely come here (see `documents.py`)."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Final

from gbe_jobs_domain.collector import Collector
from gbe_jobs_domain.errors import quoted
from gbe_jobs_domain.nodes import MAX_DEPTH, MAX_NODES, Entries, Items, Kind, Node, Scalar, TooLarge, Unreadable

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
# Possessive, since what could be tried again would be remembered for each escape.
_STRING: Final = re.compile(r'"([^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+)"')
_WORD: Final = re.compile(r"[A-Za-z0-9_.+-]+")
_WORDS: Final = {"true": Kind.BOOL, "false": Kind.BOOL, "null": Kind.NULL}


def parse_json(text: str, collector: Collector) -> Node | None:
    """The document's node; None where the text holds none. Duplicate keys are collected.

    Raises `Unreadable` (the reason collected) at the first syntax error.
    """
    return _Parser(text, collector).document() if text.strip(" \t\r\n") else None


class _Parser:
    def __init__(self, text: str, collector: Collector) -> None:
        self._text = text
        self._errors = collector
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._count = 0
        self._depth = 0

    def document(self) -> Node:
        node, at = self._value(self._skip(0))
        at = self._skip(at)
        if at < len(self._text):
            raise self._refused(at, "expected the end of the document")
        return node

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        return match.end() if match else at

    def _place(self, at: int) -> tuple[int, int]:
        line = bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1

    def _refused(self, at: int, expected: str, hint: str = "") -> Unreadable:
        found = self._text[at : at + 1]
        return self._wrong(at, f"{expected}, found {quoted(found) if found else 'the end of the document'}", hint)

    def _wrong(self, at: int, message: str, hint: str = "") -> Unreadable:
        self._errors.at(*self._place(at), f"not valid JSON: {message}", hint)
        return Unreadable()

    def _value(self, at: int) -> tuple[Node, int]:
        self._count += 1
        if self._count > MAX_NODES:
            self._errors.at(*self._place(at), f"more than {MAX_NODES:,} values in one document")
            raise TooLarge
        start = self._text[at : at + 1]
        if start == '"':
            return self._string(at)
        if start in ("{", "["):
            if self._depth >= MAX_DEPTH:
                self._errors.at(*self._place(at), f"nested deeper than {MAX_DEPTH} levels")
                raise TooLarge
            self._depth += 1
            found = self._object(at) if start == "{" else self._array(at)
            self._depth -= 1
            return found
        if match := _NUMBER.match(self._text, at):
            end = _WORD.match(self._text, at)
            if end and end.end() == match.end():
                return Scalar(match[0], Kind.NUMBER, *self._place(at)), match.end()
            raise self._wrong(at, f"{quoted(end[0] if end else match[0])} is no number")
        word = _WORD.match(self._text, at)
        if word and (kind := _WORDS.get(word[0])):
            return Scalar(word[0], kind, *self._place(at)), word.end()
        raise self._refused(at, "expected a value", "strings need double quotes" if word or start == "'" else "")

    def _string(self, at: int) -> tuple[Scalar, int]:
        match = _STRING.match(self._text, at)
        if not match:
            raise self._wrong(at, "a string that doesn't end in its line")
        text = match[1]
        if "\\" in text:
            try:
                text = json.loads(match[0])
                text.encode()
            except ValueError:
                raise self._wrong(at, "a string with a wrong escape") from None
        return Scalar(text, Kind.STRING, *self._place(at)), match.end()

    def _array(self, at: int) -> tuple[Items, int]:
        node = Items(*self._place(at))
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "]":
            return node, at + 1
        while True:
            value, at = self._value(at)
            node.items.append(value)
            at, more = self._next(at, "]")
            if not more:
                return node, at

    def _object(self, at: int) -> tuple[Entries, int]:
        node = Entries(*self._place(at))
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "}":
            return node, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise self._refused(at, "expected a key in double quotes")
            key, at = self._string(at)
            at = self._skip(at)
            if self._text[at : at + 1] != ":":
                raise self._refused(at, "expected ':' after a key")
            value, at = self._value(self._skip(at + 1))
            if key.text in node.entries:
                first = node.entries[key.text][0].line
                message = f"duplicate key {quoted(key.text)}"
                self._errors.at(key.line, key.column, message, f"the first one is in line {first}")
            else:
                node.entries[key.text] = (key, value)
            at, more = self._next(at, "}")
            if not more:
                return node, at

    def _next(self, at: int, close: str) -> tuple[int, bool]:
        """Past a comma, or past the end of the collection."""
        at = self._skip(at)
        found = self._text[at : at + 1]
        if found == close:
            return at + 1, False
        if found != ",":
            raise self._refused(at, f"expected ',' or '{close}'")
        at = self._skip(at + 1)
        if self._text[at : at + 1] == close:
            raise self._refused(at, "expected a value after ','", "JSON has no comma before the end")
        return at, True
