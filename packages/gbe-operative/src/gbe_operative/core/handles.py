"""`--handles shell:4,data-fetch=shell:2`: which task types, by which plug-in, with how many slots."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gbe_jobs_domain.ids import InvalidId, check_type_name

MAX_SLOTS = 10_000
DEFAULT_OF_TYPE = 0
"""To parse with: the slots of a type for which no number is given are its Operative's, or the worker's, default."""

_PLUGIN = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


class InvalidHandles(ValueError):
    """The text names what is wrong with `--handles`."""


@dataclass(frozen=True, slots=True)
class Handle:
    """One task type."""

    task_type: str
    plugin: str
    slots: int


def parse_handles(text: str, default_slots: int) -> tuple[Handle, ...]:
    """`type[=plug-in][:slots]`, separated by commas. Raises `InvalidHandles`."""
    found: dict[str, Handle] = {}
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        names, colon, count = item.partition(":")
        task_type, equals, plugin = names.partition("=")
        try:
            check_type_name(task_type)
        except InvalidId as error:
            raise InvalidHandles(f"in {item!r}: {error}") from error
        if equals and not _PLUGIN.match(plugin):
            raise InvalidHandles(f"in {item!r}: {plugin!r} is not a plug-in name")
        if colon and not (count.isascii() and count.isdigit() and 1 <= int(count) <= MAX_SLOTS):
            raise InvalidHandles(f"in {item!r}: slots are a number from 1 to {MAX_SLOTS}, not {count!r}")
        if task_type in found:
            raise InvalidHandles(f"task type {task_type!r} is there twice")
        found[task_type] = Handle(task_type, plugin or task_type, int(count) if colon else default_slots)
    if not found:
        raise InvalidHandles("no task types: say for example --handles shell:4")
    return tuple(found.values())
