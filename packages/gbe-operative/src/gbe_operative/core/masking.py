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

PIECE = 8
"""Characters of a secret, next to where a text was cut, that are replaced as the whole is; of a short secret half."""
CUT = "…"
"""Where something was left out of a text."""
_TORN = "\ufffd" + "".join(map(chr, range(0xDC80, 0xDD00)))
"""What is left of a character where bytes were cut, however they were decoded."""


class Masker:
    """Replaces values by `***`: as they are, and as JSON strings have them."""

    __slots__ = ("_bytes", "_longest", "_text", "_values", "secrets")

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = tuple(secrets)
        values: set[str] = set()
        for secret in self.secrets:
            lines = [line for line in secret.splitlines() if len(line) >= SHORTEST_LINE] if "\n" in secret else []
            for value in (secret, secret.strip(), *lines):
                if len(value) >= SHORTEST:
                    values |= {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
        ordered = sorted(values, key=lambda value: (-len(value), value))
        self._values = ordered
        encoded = [value.encode("utf-8", "surrogatepass") for value in ordered]
        self._text = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._bytes = re.compile(b"|".join(map(re.escape, encoded))) if ordered else None
        self._longest = max(map(len, encoded), default=0)

    def __bool__(self) -> bool:
        return self._text is not None

    def text(self, text: str) -> str:
        """`text` without the secrets."""
        return self._text.sub(MASK, text) if self._text is not None else text

    def excerpt(self, text: str) -> str:
        """The same for a text that may have been cut anywhere: without what is left of a secret there."""
        pieces = self.text(text).split(CUT)
        return CUT.join(map(self._piece, pieces))

    def excerpt_raw(self, data: bytes) -> bytes:
        """The same for the bytes of one."""
        text = data.decode("utf-8", "surrogateescape")
        return data if (clean := self.excerpt(text)) == text else clean.encode("utf-8", "surrogateescape")

    def _piece(self, text: str) -> str:
        core = text.strip(_TORN)
        if not core:
            return text
        before = text.index(core)
        clean = self._without_begun(self._without_rest(core))
        return text[:before] + clean + text[before + len(core) :]

    def _without_rest(self, text: str) -> str:
        """`text` without the end of a secret that it begins with, or without all of it if it is from within one."""
        for value in self._values:
            least = _least(value)
            if len(text) >= least and text in value:
                return MASK
            at = value.find(text[:least], max(1, len(value) - len(text))) if len(text) >= least else -1
            while at > 0:
                if text.startswith(value[at:]):
                    return MASK + text[len(value) - at :]
                at = value.find(text[:least], at + 1)
        return text

    def _without_begun(self, text: str) -> str:
        """`text` without the beginning of a secret that it ends with."""
        for value in self._values:
            least = _least(value)
            at = value.rfind(text[-least:], 0, min(len(value) - 1, len(text))) if len(text) >= least else -1
            while at >= 0:
                if text.endswith(value[: at + least]):
                    return text[: len(text) - at - least] + MASK
                at = value.rfind(text[-least:], 0, at + least - 1)
        return text

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


def _least(value: str) -> int:
    return min(PIECE, (len(value) + 1) // 2)
