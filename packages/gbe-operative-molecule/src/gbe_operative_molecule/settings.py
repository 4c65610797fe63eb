"""What a host's owner can say about molecules, by environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gbe_jobs_domain.molecules import MAX_DEPTH

DEPTH = "GBE_MOLECULE_MAX_DEPTH"
LOCAL_SLOTS = "GBE_MOLECULE_LOCAL_SLOTS"
DEFAULT_LOCAL_SLOTS = 4
DEEPEST = 32
"""What a document nested in documents can hold at all."""


@dataclass(frozen=True, slots=True)
class MoleculeSettings:
    """`max_depth`: molecules within molecules. `local_slots`: steps of one molecule with `mode: local` at once."""

    max_depth: int = MAX_DEPTH
    local_slots: int = DEFAULT_LOCAL_SLOTS

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> MoleculeSettings:
        """From variables; what is empty is unset. Raises `ValueError` naming the variable."""
        return cls(
            max_depth=_number(environment, DEPTH, MAX_DEPTH, DEEPEST),
            local_slots=_number(environment, LOCAL_SLOTS, DEFAULT_LOCAL_SLOTS, 1024),
        )


def _number(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= most:
        raise ValueError(f"{name}={text}: expected a whole number from 1 to {most}")
    return int(text)
