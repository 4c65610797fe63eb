"""`EdgeData`: what a task hands to those that depend on it (mission document "operative types")."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any, Final, TypeAlias

import msgspec

ARTIFACT_STORE = "gbe-artifacts"
"""The one bucket `store://` reaches; keys start with the job id."""

MAX_NESTING: Final = 256
"""Levels of arrays and objects in what travels within messages. Readers take about a thousand, all that is around the
value and their own call stack included: what one of them writes another may not be able to read. Deeper values go to
the artifact store."""


class Inline(msgspec.Struct, frozen=True, tag_field="kind", tag="inline", omit_defaults=True):
    """A JSON value, kept as the bytes it came in. `items`: its length, where it is an array."""

    value: msgspec.Raw
    items: int | None = None

    def decoded(self) -> Any:
        """The value as Python objects."""
        return msgspec.json.decode(self.value)


class Ref(msgspec.Struct, frozen=True, tag_field="kind", tag="ref", omit_defaults=True):
    """A value in the artifact store. `size` in bytes, `sha256` in lower-case hex."""

    store: str
    key: str
    size: int
    sha256: str
    media_type: str = "application/octet-stream"
    items: int | None = None

    @property
    def uri(self) -> str:
        """`store://bucket/key`: what a param whose name ends in `_ref` receives."""
        return f"store://{self.store}/{self.key}"


EdgeData: TypeAlias = Inline | Ref

_encode = msgspec.json.Encoder().encode


def inline(value: object) -> Inline:
    """An inline edge of a Python value."""
    return Inline(msgspec.Raw(_encode(value)), len(value) if isinstance(value, list | tuple) else None)


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_LEVEL = (ord("[") + ord("]")) // 2  # less one of them: a level more, or less
_OTHERS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def nested_deeper(text: bytes, limit: int = MAX_NESTING) -> bool:
    """Whether a JSON text has more than `limit` levels of arrays and objects."""
    if text.count(b"[") + text.count(b"{") <= limit:  # nearly always
        return False
    brackets = _STRING.sub(b"", text).translate(_BRACKETS, _OTHERS)
    passes = min(limit, 16)
    for _ in range(passes):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    # What is deeper than most is counted: a pass for each level of a hostile text takes a second.
    return max(accumulate(map(_LEVEL.__sub__, brackets)), default=0) > limit - passes
