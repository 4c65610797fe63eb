"""Paths into JSON values: what follows the task in a reference of `input_from` or `output`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

JSON: Final = "application/json"

MAX_DIGITS: Final = 18
"""Of an index; no array has more items, and Python reads no number of any length."""

_decode = msgspec.json.Decoder().decode


class Text(str):
    """A text that was too long for its place: as a value it is a string, as it would have been there; and as the output
    of a command it would have been lines, so a path may have an index into them."""

    __slots__ = ()


class PathError(ValueError):
    """The value has no such path, or can't be opened; the text says what there is instead."""


def walk(value: Any, path: str) -> Any:
    """What is at `path`: keys of objects and indices of arrays, with dots between. Raises `PathError`."""
    for part in path.split(".") if path else ():
        value = step(value, part)
    return value


def step(value: Any, part: str) -> Any:
    """One part of a path further. Raises `PathError`."""
    if isinstance(value, Text):
        value = opened(value.encode(), "text/plain")
    if isinstance(value, dict):
        if part not in value:
            raise PathError(f"no {part!r}; there is {_some(list(value))}")
        return value[part]
    if isinstance(value, list):
        if not (part.isascii() and part.isdigit()):
            raise PathError(f"{part!r} is no index of an array of {len(value)}")
        if len(part) > MAX_DIGITS or int(part) >= len(value):
            raise PathError(f"no index {part[:MAX_DIGITS]}; the array has {len(value)} items")
        return value[int(part)]
    raise PathError(f"no {part!r} in {_kind(value)}")


def opened(data: bytes, media_type: str) -> Any:
    """The value an artifact holds: JSON, or the lines of a text. Raises `PathError`."""
    if media_type == JSON:
        try:
            return _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PathError(f"the artifact is not JSON: {error}") from error
    if media_type.startswith("text/"):
        return data.decode("utf-8", "replace").removesuffix("\n").split("\n") if data else []
    raise PathError(f"the artifact is {media_type}; only JSON and text can be opened")


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:8])
    return (shown or "nothing") + (", …" if len(names) > 8 else "")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return "a string" if isinstance(value, str) else "a number"
