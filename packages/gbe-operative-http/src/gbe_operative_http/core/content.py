"""What a response body is, by its `Content-Type`."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from enum import Enum

import msgspec

JSON = "application/json"
BINARY = "application/octet-stream"

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_CHARSET = re.compile(r""";\s*charset\s*=\s*"?([A-Za-z0-9._:+-]{1,40})""", re.IGNORECASE)
_TEXTUAL = re.compile(
    r"text/.*|.*\+xml|application/(?:xml|javascript|x-javascript|ecmascript|x-ndjson|jsonl|json-seq|yaml|x-yaml|toml|sql"
    r"|graphql|x-www-form-urlencoded)"
)
# Those that are decoded in linear time, and into nothing but text.
_CHARSETS = re.compile(
    r"ascii|utf-(?:8|16|32)(?:-[bl]e)?|utf-8-sig|iso8859-\d+|cp\d+|koi8-[rtu]|mac-\w+|gb\w+|big5\w*|shift_jis\w*|euc_\w+"
)


class Kind(Enum):
    """How a body is handed on."""

    JSON = "json"
    TEXT = "text"
    BINARY = "binary"
    UNKNOWN = "unknown"
    """Nothing says what it is, so its bytes have to."""


@dataclass(frozen=True, slots=True)
class Content:
    """`charset`: Python's name; None = none was given, or one that we do not take."""

    kind: Kind
    media_type: str
    charset: str | None

    @property
    def transcoded(self) -> bool:
        """Whether it is handed on in another encoding than it came in: always in UTF-8."""
        return self.charset is not None and self.kind is not Kind.BINARY and self.charset not in ("utf-8", "ascii")


def content_of(header: str | None) -> Content:
    """From the header's value. What can't be understood is unknown."""
    match = _MEDIA_TYPE.match(header.strip()) if header else None
    if header is None or match is None:
        return Content(Kind.UNKNOWN, BINARY, None)
    media_type = match[0].lower()
    charset = _CHARSET.search(header)
    known = _known(charset[1]) if charset else None
    if media_type == JSON or media_type.endswith("+json"):
        return Content(Kind.JSON, media_type, known)
    if _TEXTUAL.fullmatch(media_type):
        return Content(Kind.TEXT, media_type, known)
    return Content(Kind.BINARY, media_type, None)


def _known(charset: str) -> str | None:
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return None
    return name if _CHARSETS.fullmatch(name) else None


def guessed(head: bytes, content: Content) -> Content:
    """What a long body is by its beginning, where nothing says it."""
    if content.kind is not Kind.UNKNOWN:
        return content
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return content
    if "\0" in text:
        return content
    if text.lstrip().startswith(("{", "[")):
        return Content(Kind.JSON, JSON, None)
    return Content(Kind.TEXT, "text/plain", None)


def text_of(data: bytes, content: Content) -> str | None:
    """The whole body as text; None where it is none. What a given charset can't decode is replaced."""
    if content.kind is Kind.BINARY:
        return None
    if content.charset is not None and content.charset != "utf-8":
        return data.decode(content.charset, "replace")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None if content.charset is None else data.decode("utf-8", "replace")
    return None if content.kind is Kind.UNKNOWN and "\0" in text else text


def structured(text: str, content: Content) -> msgspec.Raw | None:
    """The JSON value that the body is, as it was written (numbers keep their digits); None where it is none."""
    if content.kind not in (Kind.JSON, Kind.UNKNOWN) or not text.strip():
        return None
    raw = text.strip().encode("utf-8", "surrogatepass")
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.Raw(raw)
