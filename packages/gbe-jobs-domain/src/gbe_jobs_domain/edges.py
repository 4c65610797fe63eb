"""`EdgeData`: what a task hands to those that depend on it (mission document "operative types")."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

ARTIFACT_STORE = "gbe-artifacts"
"""The one bucket `store://` reaches; keys start with the job id."""


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
