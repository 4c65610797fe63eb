"""Dataclasses that were read are made as complete as their classes make them.

msgspec leaves a default that is a plain value with the class: it is found as an attribute, but not in `vars()`, so that
the instance loses it when it is encoded as a result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec


def complete(value: Any) -> None:
    """Give each dataclass instance within a value that was read its own defaults. Such a value has no circles."""
    if isinstance(value, list | tuple | AbstractSet):
        for item in value:
            complete(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            complete(key)
            complete(item)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            complete(getattr(value, name, None))
    elif dataclasses.is_dataclass(value):
        own = getattr(value, "__dict__", None)
        for field in dataclasses.fields(value):
            if own is not None and field.name not in own and field.default is not dataclasses.MISSING:
                own[field.name] = field.default
            complete(getattr(value, field.name, None))


__all__ = ["complete"]
