"""Reading fields out of documents: strict integers, coerced scalars, objects, lists."""

from collections.abc import Mapping
from typing import Any


def is_int(value: Any) -> bool:
    """Whether a value is an integer proper: no boolean, no float, no text."""
    return isinstance(value, int) and not isinstance(value, bool)


def strict_int(value: Any, name: str) -> int:
    """The integer, or `ValueError` "<name> must be an integer"."""
    if not is_int(value):
        raise ValueError(f"{name} must be an integer")
    return int(value)


def required(document: Mapping[str, Any], name: str, message: str) -> Any:
    """The value of a field that must be there; `message` has a `{}` for its name."""
    if name not in document:
        raise ValueError(message.format(name))
    return document[name]


def an_object(value: Any, message: str) -> dict[str, Any]:
    """A JSON object, or `ValueError` with the message."""
    if not isinstance(value, dict):
        raise ValueError(message)
    return value


def a_list(value: Any, message: str) -> list[Any]:
    """A JSON array, or `ValueError` with the message."""
    if not isinstance(value, list | tuple):
        raise ValueError(message)
    return list(value)
