"""Job documents: YAML or JSON as people write it, in the job form or the molecule form (architecture section 9).

A document is loaded whole or refused with everything that is wrong with it (`DefinitionErrors`). Time and memory are
bounded by the size of the text, whatever it holds.
"""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from gbe_jobs_domain.canonical import check_definition, decode_definition, encode_definition
from gbe_jobs_domain.collector import Collector
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.errors import DefinitionError, DefinitionErrors
from gbe_jobs_domain.inner import InnerDocuments
from gbe_jobs_domain.nodes import Kind, Scalar, Unreadable
from gbe_jobs_domain.parsing import parse, readable
from gbe_jobs_domain.plain_json import decode_plain
from gbe_jobs_domain.reader import Reader

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "DefinitionError",
    "DefinitionErrors",
    "Document",
    "MoleculeFile",
    "check_definition",
    "decode_definition",
    "encode_definition",
    "load_document",
    "load_document_file",
    "load_file",
    "load_molecule",
]

MAX_DOCUMENT_BYTES: Final = 16 << 20
"""The size from which on a document isn't even looked at, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Document:
    """A loaded document. `form`: `job` or `molecule`. `variables`: as they were substituted. `local`: how `gbe run`
    serves it where it brings everything along (`LOCAL_KEYS`); that does not travel."""

    source: str
    definition: JobDefinition
    form: str = "job"
    variables: dict[str, str] = field(default_factory=dict)
    local: dict[str, str] = field(default_factory=dict)


def load_document(
    text: bytes | str,
    *,
    source: str,
    variables: Mapping[str, str] | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    folder: Path | None = None,
    given_as: str = "--var",
) -> Document:
    """Load a document. `source` names it in errors, `variables` override its `vars` (`given_as`: what they are called).

    The molecules in it are loaded, too, and travel with the definition. `folder`: where those lie that are files; None:
    there are no files here.

    Raises `DefinitionErrors`.
    """
    collector = Collector(source)
    whole = readable(text, collector, max_bytes)
    with _collection_paused():
        reader = Reader(
            collector,
            variables or {},
            max_bytes,
            inner=InnerDocuments(folder, max_bytes),
            given_as=given_as,
        )
        return _load(whole, reader)


def load_file(
    path: str | Path, variables: Mapping[str, str] | None = None, *, max_bytes: int = MAX_DOCUMENT_BYTES
) -> JobDefinition:
    """The definition in a document's file. Raises as `load_document_file` does."""
    return load_document_file(path, variables, max_bytes=max_bytes).definition


def load_document_file(
    path: str | Path, variables: Mapping[str, str] | None = None, *, max_bytes: int = MAX_DOCUMENT_BYTES
) -> Document:
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
    folder = Path(path).parent
    return load_document(text, source=source, variables=variables, max_bytes=max_bytes, folder=folder)


@dataclass(frozen=True, slots=True)
class MoleculeFile:
    """A molecule to be registered: its document, as it is written, or with the files put in that it names."""

    definition: JobDefinition
    text: bytes


def load_molecule(path: str | Path) -> MoleculeFile:
    """Load a molecule's document from a file, to be kept. Raises `DefinitionErrors`."""
    source = str(path)
    collector = Collector(source)
    inner = InnerDocuments(Path(path).parent, MAX_DOCUMENT_BYTES)
    if not Path(path).is_file():
        reason = "it is no file" if Path(path).exists() else os.strerror(errno.ENOENT)
        raise DefinitionErrors([DefinitionError(source, 0, 0, "", f"can't be read: {reason}")])
    found = inner.file(Path(path).name, Scalar("", Kind.STRING, 0, 0), collector, ())
    if found is None or collector:
        raise collector.all()
    if found.with_files:
        return MoleculeFile(found.definition, msgspec.json.format(found.text.encode(), indent=2) + b"\n")
    try:
        return MoleculeFile(found.definition, Path(path).read_bytes())
    except OSError as error:
        raise DefinitionErrors([DefinitionError(source, 0, 0, "", f"can't be read: {error.strerror}")]) from None


def _load(text: str, reader: Reader) -> Document:
    collector = reader.collector
    source = collector.source
    if not reader.overrides and (definition := decode_plain(text)):
        return Document(source, definition)
    try:
        root = parse(text, collector)
    except Unreadable:
        raise collector.all() from None
    definition = reader.read(root)
    if definition is None or collector:
        raise collector.all()
    return Document(source, definition, reader.form.title, reader.variables, reader.local)


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
