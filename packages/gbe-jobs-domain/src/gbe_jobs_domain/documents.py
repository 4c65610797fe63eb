"""Job documents: YAML or JSON as people write it, in the job form or the molecule form (architecture section 9).

A document is loaded whole or refused with everything that is wrong with it (`DefinitionErrors`). Time and memory are
bounded by the size of the text, whatever it holds.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gbe_jobs_domain.canonical import check_definition, decode_definition, encode_definition
from gbe_jobs_domain.collector import Collector
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.errors import DefinitionError, DefinitionErrors
from gbe_jobs_domain.json_nodes import parse_json
from gbe_jobs_domain.nodes import Node, TooLarge, Unreadable
from gbe_jobs_domain.plain_json import decode_plain
from gbe_jobs_domain.reader import Reader

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "DefinitionError",
    "DefinitionErrors",
    "Document",
    "check_definition",
    "decode_definition",
    "encode_definition",
    "load_document",
    "load_file",
]

MAX_DOCUMENT_BYTES: Final = 16 << 20
"""The size from which on a document isn't even looked at, unless told otherwise."""

# What neither YAML nor JSON has a place for. A file that holds one is hardly a text.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LOOKS_LIKE_JSON: Final = re.compile(r'[ \t\r\n]*\{[ \t\r\n]*["}]|[ \t\r\n]*\[')


@dataclass(frozen=True, slots=True)
class Document:
    """A loaded document. `form`: `job` or `molecule`. `variables`: as they were substituted."""

    source: str
    definition: JobDefinition
    form: str = "job"
    variables: dict[str, str] = field(default_factory=dict)


def load_document(
    text: bytes | str,
    *,
    source: str,
    variables: Mapping[str, str] | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Document:
    """Load a document. `source` names it in errors, `variables` override its `vars`.

    Raises `DefinitionErrors`.
    """
    collector = Collector(source)
    readable = _text(text, collector, max_bytes)
    with _collection_paused():
        return _load(readable, collector, variables or {}, max_bytes)


def load_file(
    path: str | Path, variables: Mapping[str, str] | None = None, *, max_bytes: int = MAX_DOCUMENT_BYTES
) -> JobDefinition:
    """Load a document from a file; one that is too large isn't read.

    Raises `DefinitionErrors`, also where the file can't be read.
    """
    source = str(path)
    try:
        with open(path, "rb") as file:
            text = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DefinitionErrors([DefinitionError(source, 0, 0, "", f"can't be read: {reason}")]) from None
    return load_document(text, source=source, variables=variables, max_bytes=max_bytes).definition


def _load(text: str, collector: Collector, variables: Mapping[str, str], max_bytes: int) -> Document:
    source = collector.source
    if not variables and (definition := decode_plain(text)):
        return Document(source, definition)
    try:
        root = _parse(text, collector)
    except Unreadable:
        raise collector.all() from None
    reader = Reader(collector, variables, max_bytes)
    definition = reader.read(root)
    if definition is None or collector:
        raise collector.all()
    return Document(source, definition, reader.form.title, reader.variables)


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Without the garbage collector: a document is a large tree without cycles, and going over it again and again
    while it grows takes as long as reading it."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _text(text: bytes | str, collector: Collector, max_bytes: int) -> str:
    # Characters are at least a byte each, so a str that is too long needs no encoding to be refused.
    if len(text) > max_bytes:
        collector.at(0, 0, f"larger than {max_bytes:,} bytes", "store large values and pass references")
        raise collector.all()
    try:
        encoded = text if isinstance(text, bytes) else text.encode()
        decoded = encoded.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8-sig")
        found = f"byte 0x{error.object[error.start]:02x}"
        collector.at(*_place(before, len(before)), f"not UTF-8: {found}", "is it a text file?")
        raise collector.all() from None
    except UnicodeEncodeError as error:
        collector.at(*_place(error.object, error.start), "half a surrogate pair is no character")
        raise collector.all() from None
    if control := _CONTROL.search(decoded):
        character = f"U+{ord(control[0]):04X}"
        collector.at(*_place(decoded, control.start()), f"control character {character}", "is it a text file?")
        raise collector.all()
    return decoded


def _place(text: str, at: int) -> tuple[int, int]:
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1


def _parse(text: str, collector: Collector) -> Node | None:
    """JSON where it says it is, YAML otherwise.

    What begins like JSON may still be YAML's flow style: the complaint is JSON's only if YAML can't read it either.
    """
    named_json = collector.source.endswith(".json")
    if named_json or _LOOKS_LIKE_JSON.match(text):
        found = Collector(collector.source)
        try:
            root = parse_json(text, found)
        except Unreadable as error:
            if named_json or isinstance(error, TooLarge) or (root := _flow_style(text, collector)) is None:
                collector.errors += found.errors
                raise
            return root
        collector.errors += found.errors
        collector.omitted += found.omitted
        return root
    return _parse_yaml(text, collector)


def _flow_style(text: str, collector: Collector) -> Node | None:
    found = Collector(collector.source)
    try:
        root = _parse_yaml(text, found)
    except Unreadable:
        return None
    collector.errors += found.errors
    collector.omitted += found.omitted
    return root


def _parse_yaml(text: str, collector: Collector) -> Node | None:
    from gbe_jobs_domain.yaml_nodes import parse_yaml  # PyYAML takes longer to import than the rest together

    return parse_yaml(text, collector)
