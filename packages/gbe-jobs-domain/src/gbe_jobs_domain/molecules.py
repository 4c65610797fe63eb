"""Molecules: tasks whose work is a job of its own (mission document "operative types").

What everybody who deals with them agrees on; how such a document is loaded is in `inner.py`.
"""

from __future__ import annotations

import re
from typing import Final

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
