"""`output_schema` and `input_schema` in a document: a JSON Schema written there, or in a file beside it.

What is in a file is put into the definition where the document is read, so that what runs is what was submitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from gbe_jobs_domain.collector import Collector
from gbe_jobs_domain.data_schemas import MAX_SCHEMA_BYTES, MAX_SCHEMAS, SchemaProblem, schema_problems
from gbe_jobs_domain.errors import DefinitionErrors, PathPart, quoted
from gbe_jobs_domain.named_files import UNREADABLE, content, reason
from gbe_jobs_domain.nodes import Broken, Entries, Items, Kind, Node, Scalar, Unreadable, node_at
from gbe_jobs_domain.parsing import parse, readable
from gbe_jobs_domain.variables import refers

MAX_FILE: Final = 4 * MAX_SCHEMA_BYTES
"""Bytes of a file with a schema: people indent."""

AtPath = tuple[PathPart, ...]

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class DataSchema:
    """A schema that can be used. `size`: of its JSON. `node`: where it is written."""

    value: dict[str, Any]
    size: int
    node: Entries


class SchemaFiles:
    """Reads the schemas of one document. `folder`: where their files are; None: there are no files here."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files: dict[Path, DataSchema | None] = {}
        self._checked: dict[bytes, tuple[dict[str, Any], list[SchemaProblem]]] = {}
        self._told = False

    def usable(self, schema: dict[str, Any]) -> bool:
        """Whether nothing at all is wrong with a schema that was decoded already."""
        problems = self._problems(_encode(schema), schema)
        return problems is not None and not problems[1]

    def read(self, node: Entries | Scalar, collector: Collector, path: AtPath) -> DataSchema | None:
        """The schema that is written there, or whose file is named there; None where something is wrong with it."""
        if isinstance(node, Entries):
            return self._read(node, collector, path)
        if self._folder is None:
            collector.on(node, path, "there are no files where this document is loaded", "write the schema into it")
            return None
        name = node.text
        try:
            folder = self._folder.resolve()
            real = (folder / name).resolve()
            if Path(name).is_absolute() or not real.is_relative_to(folder):
                hint = "a schema's file is there, or below it"
                collector.on(node, path, f"{quoted(name)} is not within the document's folder", hint)
                return None
            if real in self._files:
                found = self._files[real]
                if found is None:
                    collector.on(node, path, f"{quoted(name)} has errors")
                return found
            text = content(real, MAX_FILE)
        except UNREADABLE as error:
            collector.on(node, path, f"{quoted(name)} can't be read: {reason(error)}")
            return None
        own = Collector(str(self._folder / name))
        self._files[real] = found = self._parsed(text, own)
        collector.take(own)
        return found

    def _parsed(self, text: bytes, own: Collector) -> DataSchema | None:
        try:
            root = parse(readable(text, own, MAX_FILE), own)
        except (Unreadable, DefinitionErrors):
            return None
        if isinstance(root, Entries):
            return self._read(root, own, ())
        if root is None:
            own.at(1, 1, "the file is empty", "a JSON Schema is a mapping")
        elif not isinstance(root, Broken):
            own.on(root, (), "expected a JSON Schema, which is a mapping")
        return None

    def _read(self, node: Entries, collector: Collector, path: AtPath) -> DataSchema | None:
        before = len(collector.errors) + collector.omitted
        value = _plain(node, collector, path)
        if len(collector.errors) + collector.omitted > before or _is_broken(node):
            return None
        encoded = _encode(value)
        if len(encoded) > MAX_SCHEMA_BYTES:
            message = f"a schema of {len(encoded):,} bytes, the limit is {MAX_SCHEMA_BYTES:,}"
            collector.on(node, path, message, "check the part that matters")
            return None
        found = self._problems(encoded, value)
        if found is None:
            if not self._told:
                collector.on(node, path, f"more than {MAX_SCHEMAS:,} different schemas in one job")
                self._told = True
            return None
        shared, problems = found
        for problem in problems:
            collector.on(node_at(node, problem.path), (*path, *problem.path), problem.message, problem.hint)
        return None if problems else DataSchema(shared, len(encoded), node)

    def _problems(self, encoded: bytes, value: dict[str, Any]) -> tuple[dict[str, Any], list[SchemaProblem]] | None:
        """The same schema once for all that have it, and what is wrong with it; None where there are too many."""
        found = self._checked.get(encoded)
        if found is None:
            if len(self._checked) >= MAX_SCHEMAS or len(encoded) > MAX_SCHEMA_BYTES:
                return None
            found = self._checked[encoded] = (value, schema_problems(value))
        return found


def _plain(node: Node, collector: Collector, path: AtPath) -> Any:
    """The value that the nodes mean. A document is at most 50 levels deep."""
    if isinstance(node, Entries):
        return {key: _plain(value, collector, (*path, key)) for key, (_, value) in node.entries.items()}
    if isinstance(node, Items):
        return [_plain(item, collector, (*path, index)) for index, item in enumerate(node.items)]
    if not isinstance(node, Scalar) or node.kind is Kind.NULL:
        return None
    if node.kind is Kind.BOOL:
        return node.text == "true"
    if node.kind is Kind.NUMBER:
        number = _number(node.text)
        if number is None:
            collector.on(node, path, f"{node.text[:80]} is no number of JSON")
        return number
    if refers(node.text):
        collector.on(node, path, "variables are substituted in params only")
    return node.text


def _is_broken(node: Node) -> bool:
    """Whether something in it was complained about before."""
    if isinstance(node, Entries):
        return node.partial or any(_is_broken(value) for _, value in node.entries.values())
    if isinstance(node, Items):
        return any(_is_broken(item) for item in node.items)
    return isinstance(node, Broken)


def _number(text: str) -> int | float | None:
    try:
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
