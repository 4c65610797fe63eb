"""External input: PFNA V0 documents and what they do to a run (sections 1.5 and 5.2)."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gbe_aether.documents import read_document
from gbe_aether.reading import an_object, required


class PFNAInputV1(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry: a vector that is added to the state before a tick (0: before the first)."""

    pfna_id: str
    gid: str
    run_id: str
    tick: int
    nid: str
    values: tuple[int, ...]
    description: str | None = None


class AuditRowV1(msgspec.Struct, frozen=True):
    """How one value was made an integer."""

    clamped: int
    index: int
    raw: str
    rounded: int
    scaled: str
    shifted: str


class IntegerizationV1(msgspec.Struct, frozen=True):
    """The audit of one entry, and the values that were added."""

    audit: tuple[AuditRowV1, ...]
    pfna_id: str
    values: tuple[int, ...]


_MISSING = "PFNA V0 document missing required field '{}'"


def load_pfna(path: str | os.PathLike[str], expected_length: int) -> tuple[PFNAInputV1, ...]:
    """The entries of a PFNA file by (tick, pfna_id). Raises what `pfna_from_document` raises."""
    return pfna_from_document(read_document(path, "PFNA document"), expected_length)


def pfna_from_document(document: Any, expected_length: int) -> tuple[PFNAInputV1, ...]:
    """The entries of a document by (tick, pfna_id), equal ones in file order.

    Raises:
        ValueError: with the message of section 1.5.
    """
    doc = an_object(document, "PFNA V0 document must be an object")
    if required(doc, "v", _MISSING) != 0 or isinstance(doc["v"], bool):
        raise ValueError("PFNA V0 requires v == 0")
    texts = []
    for name in ("pfna_id", "gid", "run_id", "nid"):
        text = str(required(doc, name, _MISSING))
        if not text:
            raise ValueError(f"PFNA {name} must be a non-empty string")
        texts.append(text)
    _, gid, run_id, nid = texts
    entries = required(doc, "entries", _MISSING)
    if not isinstance(entries, list) or not entries:
        raise ValueError("PFNA entries must be a non-empty list")
    inputs = [_entry(each, gid, run_id, nid, expected_length) for each in entries]
    inputs.sort(key=lambda entry: (entry.tick, entry.pfna_id))
    return tuple(inputs)


def _entry(value: Any, gid: str, run_id: str, nid: str, length: int) -> PFNAInputV1:
    doc = an_object(value, "PFNA entry must be an object")
    message = "PFNA entry missing required field '{}'"
    pfna_id = str(required(doc, "pfna_id", message))
    if not pfna_id:
        raise ValueError("PFNA entry pfna_id must be a non-empty string")
    try:
        tick = int(required(doc, "tick", message))
    except (TypeError, OverflowError) as error:
        # Section 1: what is refused is a ValueError; the TypeErrors of section 1.2 are the run config's.
        raise ValueError("PFNA entry tick must be an integer") from error
    if tick < 0:
        raise ValueError("PFNA entry tick must be >= 0")
    raw = required(doc, "values", message)
    if not isinstance(raw, list) or not raw:
        raise ValueError("PFNA entry values must be a non-empty list")
    try:
        values = tuple(int(each) for each in raw)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("PFNA entry values must be integers") from error
    if len(values) != length:
        raise ValueError("PFNA entry values length must match expected_length")
    description = doc.get("description")
    return PFNAInputV1(pfna_id, gid, run_id, tick, nid, values, None if description is None else str(description))


def check_origin(inputs: Iterable[PFNAInputV1], gid: str, run_id: str) -> None:
    """Raise `ValueError` unless every entry is for this graph and this run."""
    for entry in inputs:
        if entry.gid != gid:
            raise ValueError("PFNA gid must match the topology gid")
        if entry.run_id != run_id:
            raise ValueError("PFNA run_id must match the run")


def integerize(entry: PFNAInputV1) -> IntegerizationV1:
    """The entry's values through a float, as the audit shows them: exact up to 2^53."""
    rows = []
    for index, value in enumerate(entry.values):
        number = float(value)
        text = f"{number:.6f}"
        rounded = round(number)
        rows.append(AuditRowV1(rounded, index, str(value), rounded, text, text))
    return IntegerizationV1(tuple(rows), entry.pfna_id, tuple(row.rounded for row in rows))


class PFNAQueue:
    """The entries of a run by tick, each (tick, pfna_id) once: the first of equals wins."""

    def __init__(self, inputs: Iterable[PFNAInputV1]) -> None:
        self._by_tick: dict[int, dict[str, PFNAInputV1]] = {}
        for entry in inputs:
            self._by_tick.setdefault(entry.tick, {}).setdefault(entry.pfna_id, entry)

    def __bool__(self) -> bool:
        return bool(self._by_tick)

    def __contains__(self, tick: int) -> bool:
        return tick in self._by_tick

    def ticks(self, last: int) -> list[int]:
        """The ticks from 1 to `last` that have entries."""
        return sorted(tick for tick in self._by_tick if 1 <= tick <= last)

    def at(self, tick: int) -> Sequence[IntegerizationV1]:
        """The integerised entries of a tick by pfna_id (code point order)."""
        entries = self._by_tick.get(tick)
        return [integerize(entries[each]) for each in sorted(entries)] if entries else ()

    def refs(self, tick: int) -> list[str]:
        """The ids of a tick's entries by code point."""
        return sorted(self._by_tick.get(tick, ()))

    def vector(self, tick: int) -> list[int] | None:
        """What is added to the state before the tick; nothing is `None`."""
        entries = self.at(tick)
        return [sum(column) for column in zip(*(entry.values for entry in entries), strict=True)] if entries else None


def payload_ref(entries: Iterable[IntegerizationV1], modulus: int) -> int:
    """The check number of an INGRESS envelope over a tick's entries by pfna_id (section 5.2)."""
    acc = 0
    for entry in entries:
        for character in entry.pfna_id:
            acc = (acc * 31 + ord(character)) % modulus
        for value in entry.values:
            acc = (acc * 17 + value) % modulus
    return acc
