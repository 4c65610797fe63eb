"""Keeping secrets out of everything a task says."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import msgspec

SHORTEST = 4
"""Shorter values are not replaced: they would be found everywhere, and tell what they are by that."""
SHORTEST_LINE = 8
"""Of a secret of several lines (a key, say) each line from this length on is replaced too."""

MASK = "***"


class Masker:
    """Replaces values by `***`: as they are, and as JSON strings have them."""

    __slots__ = ("_bytes", "_longest", "_text", "secrets")

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = tuple(secrets)
        values: set[str] = set()
        for secret in self.secrets:
            lines = [line for line in secret.splitlines() if len(line) >= SHORTEST_LINE] if "\n" in secret else []
            for value in (secret, secret.strip(), *lines):
                if len(value) >= SHORTEST:
                    values |= {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
        ordered = sorted(values, key=lambda value: (-len(value), value))
        encoded = [value.encode("utf-8", "surrogatepass") for value in ordered]
        self._text = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._bytes = re.compile(b"|".join(map(re.escape, encoded))) if ordered else None
        self._longest = max(map(len, encoded), default=0)

    def __bool__(self) -> bool:
        return self._text is not None

    def text(self, text: str) -> str:
        """`text` without the secrets."""
        return self._text.sub(MASK, text) if self._text is not None else text

    def raw(self, data: bytes) -> bytes:
        """`data` without the secrets."""
        return self._bytes.sub(MASK.encode(), data) if self._bytes is not None else data

    def json(self, data: bytes) -> bytes:
        """The JSON `data` without the secrets; it stays JSON, also where a number is one."""
        if self._bytes is None or self._bytes.search(data) is None:
            return data
        return msgspec.json.encode(self._walk(msgspec.json.decode(data)))

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._walk(item) for key, item in value.items()}
        encoded = msgspec.json.encode(value)
        return value if self.raw(encoded) == encoded else MASK

    async def stream(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """The chunks without the secrets, also where one lies across two chunks."""
        held = b""
        async for chunk in chunks:
            held += chunk
            ready, held = self._split(held)
            if ready:
                yield ready
        if held:
            yield self.raw(held)

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """What can be passed on, masked, and the end in which a secret may have begun."""
        if self._bytes is None:
            return data, b""
        cut = max(0, len(data) - self._longest + 1)
        done = 0
        out: list[bytes] = []
        for match in self._bytes.finditer(data):
            if match.start() >= cut:
                break
            out += [data[done : match.start()], MASK.encode()]
            done = match.end()
        cut = max(cut, done)
        out.append(data[done:cut])
        return b"".join(out), data[cut:]
