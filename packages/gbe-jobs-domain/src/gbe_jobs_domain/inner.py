"""The documents within a document: molecules, written inline or in files of their own.

Each is read and checked where the outer one is, so that what runs is what was submitted, and its mistakes show before
anything is. A molecule travels as the JSON text of its nodes: with its own variables still in it, and with the files
that it names put in.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gbe_jobs_domain.collector import Collector, Nested, Placing
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.errors import DefinitionErrors, PathPart, quoted
from gbe_jobs_domain.molecules import MAX_BYTES, MAX_DEPTH
from gbe_jobs_domain.named_files import UNREADABLE, content, reason
from gbe_jobs_domain.nodes import Block, Broken, Entries, Items, Kind, Node, Scalar, Unreadable
from gbe_jobs_domain.parsing import parse, readable
from gbe_jobs_domain.schema_files import SchemaFiles

_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_NUMBERS: Final = frozenset({"timeout_secs", "max_retries", "delay", "factor", "max_delay"})

AtPath = tuple[PathPart, ...]


@dataclass(frozen=True, slots=True)
class InnerDocument:
    """A molecule that was loaded. `height`: how many levels of molecules are within it; `with_files`: whether it, or
    one of those, names files, which were put in; `text`: the whole as JSON."""

    root: Node
    variables: tuple[str, ...]
    height: int
    with_files: bool
    text: str
    definition: JobDefinition


class InnerDocuments:
    """Loads what one document has within. `folder`: where its files are looked for; None: there are none here."""

    def __init__(self, folder: Path | None, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._within: tuple[Path, ...] = ()
        """The files this is within, the outermost first."""
        self._files: dict[Path, InnerDocument | None] = {}
        """Each is loaded once, however often it is named; None: it can't be, and why was said."""

    @property
    def folder(self) -> Path | None:
        """Where the files are that the document names."""
        return self._folder

    def _below(self, file: Path) -> InnerDocuments:
        found = InnerDocuments(file.parent, self._limit)
        found._within = (*self._within, file.resolve())
        found._files = self._files
        return found

    @property
    def within(self) -> bool:
        """Whether the document that this is for is a file within another one."""
        return bool(self._within)

    def inline(self, node: Node, collector: Collector, path: AtPath) -> InnerDocument | None:
        """The molecule that is the value of a param: a mapping, or the text of a document."""
        if isinstance(node, Entries):
            return self._read(node, Nested(collector, path), node, collector, path)
        if not isinstance(node, Scalar) or node.kind is not Kind.STRING:
            if not isinstance(node, Broken):
                collector.on(node, path, "expected a molecule: a mapping, or the text of a document")
            return None
        nested = Nested(collector, path, _placing(node))
        try:
            root = parse(readable(node.text, nested, MAX_BYTES), nested)
        except (Unreadable, DefinitionErrors):
            return None
        return self._read(root, nested, node, collector, path)

    def file(self, name: str, node: Node, collector: Collector, path: AtPath) -> InnerDocument | None:
        """The molecule in a file, whose name is relative to the document's own."""
        if self._folder is None:
            hint = "write the molecule into the document, or register it and use molecule_ref"
            collector.on(node, path, "there are no files where this document is loaded", hint)
            return None
        file = self._folder / name
        try:
            real = file.resolve()
            if real in self._within:
                names = [_shown(found) for found in (*self._within[self._within.index(real) :], real)]
                collector.on(node, path, "cyclic molecules: " + " → ".join(names))
                return None
            if real in self._files:
                found = self._files[real]
                if found is None:
                    collector.on(node, path, f"{_shown(file)} has errors")
                return found
            text = content(file, MAX_BYTES)
        except UNREADABLE as error:
            collector.on(node, path, f"{file} can't be read: {reason(error)}")
            return None
        own = Collector(str(file))
        self._files[real] = found = self._load_file(file, text, own)
        collector.take(own)
        return found

    def _load_file(self, file: Path, text: bytes, own: Collector) -> InnerDocument | None:
        try:
            root = parse(readable(text, own, MAX_BYTES), own)
        except (Unreadable, DefinitionErrors):
            return None
        return self._below(file)._read(root, own, root, own, ())

    def _read(
        self, root: Node | None, errors: Collector, at: Node | None, collector: Collector, path: AtPath
    ) -> InnerDocument | None:
        from gbe_jobs_domain.reader import Reader  # which reads what is within by this module

        schemas = SchemaFiles(self._folder)
        reader = Reader(errors, {}, self._limit, inner=self, schemas=schemas, outermost=False)
        definition = reader.read(root)
        if definition is None or errors or root is None or at is None:
            return None
        if reader.height >= MAX_DEPTH:
            collector.on(at, path, f"molecules within molecules, more than {MAX_DEPTH} levels deep")
            return None
        text = _text_of(root)
        if text is None:
            hint = "register it and use molecule_ref, or pass large values along edges"
            collector.on(at, path, f"with everything in it, a molecule larger than {MAX_BYTES:,} bytes", hint)
            return None
        return InnerDocument(root, tuple(reader.variables), reader.height, reader.with_files, text, definition)


def _shown(file: Path) -> str:
    return file.name if file.name.isprintable() else quoted(file.name)


def _placing(node: Scalar) -> Placing:
    """Where the lines of a text stand in the document that has it as a value."""

    def in_block(line: int, column: int, message: str) -> tuple[int, int, str]:
        assert isinstance(node, Block)
        return (node.line + line, node.indent + column, message) if line else (node.line, node.column, message)

    def in_string(line: int, column: int, message: str) -> tuple[int, int, str]:
        place = f"line {line}, column {column} of it: " if line else ""
        return node.line, node.column, place + message

    return in_block if isinstance(node, Block) else in_string


class _TooLong(Exception):
    pass


def _text_of(root: Node) -> str | None:
    """The nodes as JSON; None where that is longer than a molecule may be."""
    parts: list[str] = []
    try:
        _write(root, parts, [MAX_BYTES], "")
    except _TooLong:
        return None
    return "".join(parts)


def _write(node: Node, parts: list[str], left: list[int], key: str) -> None:
    def put(text: str) -> None:
        left[0] -= len(text.encode())
        if left[0] < 0:
            raise _TooLong
        parts.append(text)

    if isinstance(node, Entries):
        put("{")
        for number, (name, (_, value)) in enumerate(node.entries.items()):
            put(("," if number else "") + json.dumps(name, ensure_ascii=False) + ":")
            _write(value, parts, left, name)
        put("}")
    elif isinstance(node, Items):
        put("[")
        for number, value in enumerate(node.items):
            if number:
                put(",")
            _write(value, parts, left, key)
        put("]")
    else:
        assert isinstance(node, Scalar)  # a document with something broken in it is not written
        put(_scalar(node, key))


def _scalar(node: Scalar, key: str) -> str:
    if node.kind is Kind.STRING:
        return json.dumps(node.text, ensure_ascii=False)
    if node.kind is not Kind.NUMBER or _JSON_NUMBER.match(node.text):
        return node.text if node.kind is not Kind.NULL else "null"
    if key in _NUMBERS:  # YAML's numbers are more than JSON's
        return repr(float(int(node.text, 0)) if node.text[:2] in ("0x", "0o") else float(node.text))
    return json.dumps(node.text)
