"""What a job or a task wrote, made harmless for a terminal.

Task output and names come from anywhere. A control sequence in them could move the cursor, change the title or fake
what the screen shows; a bidirectional override could make text read differently from what it is.
"""

from __future__ import annotations

import re
from typing import Final

# C0 without tab, DEL and C1; the marks that reorder text; the separators that break lines; lone surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str, width: int | None = None) -> str:
    """`text` with everything unsafe spelled out (`\\x1b`, `\\n`); cut to `width` characters where that is given."""
    if width is not None and len(text) > width:
        # Cut before escaping as well: a megabyte is not escaped to show eighty characters of it.
        text = text[: max(width - 1, 0)] + "…"
    if not text.isprintable():
        text = _UNSAFE.sub(_spelled, text).replace("\t", "    ")
    if width is not None and len(text) > width:
        text = text[: max(width - 1, 0)] + "…"
    return text


def lines_of(text: str) -> list[str]:
    """Each line of `text`, made safe. Only newlines end a line; a carriage return before one belongs to it."""
    if not text:
        return []
    return [one_line(line.removesuffix("\r")) for line in text.removesuffix("\n").split("\n")]


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x0A:
        return "\\n"
    if code == 0x0D:
        return "\\r"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
