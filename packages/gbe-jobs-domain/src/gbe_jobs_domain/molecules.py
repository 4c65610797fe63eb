"""Molecules: tasks whose work is a job of its own (mission document "operative types").

What everybody who deals with them agrees on; how such a document is loaded is in `inner.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from gbe_jobs_domain.definitions import JobDefinition

TASK_TYPE: Final = "molecule"
"""Tasks of this type are molecules wherever a document is loaded. Served under another name, the Operative takes the
same params, but nothing is checked or read for it before."""

DOCUMENT: Final = "molecule"
PATH: Final = "molecule_path"
REFERENCE: Final = "molecule_ref"
SOURCES: Final = (DOCUMENT, PATH, REFERENCE)
"""The params that say what the molecule is, one of which a task has."""
MODE: Final = "mode"
MODES: Final = ("bus", "local")
"""Where it runs: as a child job, or within the process of its Operative."""
OWN_PARAMS: Final = frozenset((*SOURCES, MODE))
"""All others are variables of the molecule."""

MAX_BYTES: Final = 256 << 10
"""Of a molecule's document as it travels with its task, or is kept in the registry; those within it included."""

MAX_DEPTH: Final = 8
"""Molecules within molecules, unless an Operative is told otherwise."""

_REFERENCE: Final = re.compile(r"([A-Za-z0-9_-]{1,64})(?:@([1-9][0-9]{0,8}))?\Z")


def parse_reference(text: str) -> tuple[str, int] | None:
    """`(name, version)` of `name` or `name@version`, 0 for the latest; None where the text is neither."""
    match = _REFERENCE.match(text)
    return None if match is None else (match[1], int(match[2] or 0))


def task_types(definition: JobDefinition) -> set[str] | None:
    """The types of a job's tasks, those within its molecules included; None where some are known at run time only."""
    found: set[str] = set()
    for task in definition.tasks:
        found.add(task.task_type)
        if task.task_type != TASK_TYPE:
            continue
        text = task.params.get(DOCUMENT)
        if not isinstance(text, str) or DOCUMENT in task.input_from:
            return None
        inner = _types_within(text)
        if inner is None:
            return None
        found |= inner
    return found


def references(definition: JobDefinition) -> list[str]:
    """The registered molecules that a job's tasks name, those within its molecules included; not what comes along
    edges or is in variables."""
    found: dict[str, None] = {}
    for task in definition.tasks:
        if task.task_type != TASK_TYPE:
            continue
        reference, text = task.params.get(REFERENCE), task.params.get(DOCUMENT)
        if isinstance(reference, str) and parse_reference(reference) and REFERENCE not in task.input_from:
            found[reference] = None
        if isinstance(text, str) and (inner := _within(text)) is not None:
            found.update(dict.fromkeys(references(inner)))
    return list(found)


def _types_within(text: str) -> set[str] | None:
    inner = _within(text)
    return None if inner is None else task_types(inner)


def _within(text: str) -> JobDefinition | None:
    from gbe_jobs_domain.documents import load_document  # which reads molecules

    try:
        return load_document(text, source=DOCUMENT).definition
    except ValueError:
        return None


# --- the registry: a bucket of the state store ---------------------------------------------------

MAX_VERSIONS: Final = 1_000
"""Of one molecule: its index is one entry of the store."""


class MoleculeVersion(Struct, frozen=True):
    """One version. `title`: the document's own name; `sha256` of its bytes, which is also where they are."""

    version: Annotated[int, Meta(ge=1)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    size: int
    title: str = ""
    created_at: int = 0


class MoleculeIndex(Struct, frozen=True):
    """A registered molecule. `latest`: what its name alone means."""

    latest: int = 0
    versions: list[MoleculeVersion] = []

    def find(self, version: int = 0) -> MoleculeVersion | None:
        """That version (0: the latest); None where there is none."""
        wanted = version or self.latest
        return next((found for found in self.versions if found.version == wanted), None)


class TooManyVersions(ValueError):
    """A molecule that was registered too often."""


def registered(index: MoleculeIndex, sha256: str, size: int, title: str, now: int) -> MoleculeIndex:
    """The index with a document as its latest version. Bytes that have a version keep it.

    Raises `TooManyVersions`.
    """
    known = next((found.version for found in index.versions if found.sha256 == sha256), None)
    if known is not None:
        return MoleculeIndex(known, index.versions)
    if len(index.versions) >= MAX_VERSIONS:
        raise TooManyVersions(f"a molecule has at most {MAX_VERSIONS:,} versions; register it under another name")
    version = max((found.version for found in index.versions), default=0) + 1
    return MoleculeIndex(version, [*index.versions, MoleculeVersion(version, sha256, size, title, now)])


def index_key(name: str) -> str:
    """Where the index of a registered molecule is."""
    return f"name/{name}"


def document_key(sha256: str) -> str:
    """Where a document is."""
    return f"document/{sha256}"


def choice_key(job_id: str) -> str:
    """Where it is kept which version a child job was made of, where its task named none."""
    return f"choice/{job_id}"
