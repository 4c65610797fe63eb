"""The NATS protocol's small change: subjects, headers and frames, checked before they reach the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gbe_nexus.errors import Refused

MAX_SUBJECT = 1024
"""Bytes. The server drops the connection on a control line above 4 KiB, so a long subject must not get there."""

HEADER_LINE = b"NATS/1.0\r\n"
STATUS_LINE = b"NATS/1.0 "

# No blanks, no controls, no empty tokens; wildcards only where asked for.
_LITERAL = re.compile(r"[^\x00-\x20\x7f.*>]+(?:\.[^\x00-\x20\x7f.*>]+)*")
_PATTERN = re.compile(r"(?:(?:\*|[^\x00-\x20\x7f.*>]+)\.)*(?:\*|>|[^\x00-\x20\x7f.*>]+)")
_NAME = re.compile(r"[^\x00-\x20\x7f.*>/\\]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# The same few subjects are published thousands of times; a journal adds one per job, hence the bound.
_known: dict[str, bytes] = {}
_KNOWN_LIMIT = 16_384


def literal_subject(subject: str) -> bytes:
    """A subject to publish on, encoded; `Refused` where it is not one."""
    found = _known.get(subject)
    if found is not None:
        return found
    encoded = _encoded(subject, _LITERAL, "subject")
    if len(_known) >= _KNOWN_LIMIT:
        _known.clear()
    _known[subject] = encoded
    return encoded


def subject_pattern(subject: str) -> bytes:
    """A subject to subscribe to, wildcards allowed, encoded; `Refused` where it is not one."""
    return _encoded(subject, _PATTERN, "subject")


def api_name(name: str) -> str:
    """The name of a stream, consumer or bucket as it becomes part of a subject; `Refused` where it can't."""
    _encoded(name, _NAME, "name")
    return name


def _encoded(text: str, shape: re.Pattern[str], what: str) -> bytes:
    if not shape.fullmatch(text):
        raise Refused(f"not a valid {what}: {text[:200]!r}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"not a valid {what}: {text[:200]!r}") from error
    if len(encoded) > MAX_SUBJECT:
        raise Refused(f"{what} of {len(encoded)} bytes is longer than {MAX_SUBJECT}: {text[:80]!r}…")
    return encoded


def header_value(value: str) -> bytes:
    """A header's value, encoded; `Refused` where it would end its line."""
    if value.isascii() and value.isprintable():  # nearly always
        return value.encode()
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"not a valid header value: {value[:200]!r}") from error
    if b"\r" in encoded or b"\n" in encoded or b"\0" in encoded:
        raise Refused(f"a header value must be one line: {value[:200]!r}")
    return encoded


def header_block(msg_id: str | None, headers: Mapping[str, str] | None) -> bytes:
    """The header block of a message (empty where it has none)."""
    if headers:
        lines = [HEADER_LINE]
        if msg_id is not None:
            lines.append(b"Nats-Msg-Id: %b\r\n" % header_value(msg_id))
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise Refused(f"not a valid header name: {name[:200]!r}")
            lines.append(b"%b: %b\r\n" % (name.encode(), header_value(value)))
        lines.append(b"\r\n")
        return b"".join(lines)
    if msg_id is None:
        return b""
    return b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % header_value(msg_id)


def publish_frame(subject: bytes, reply: bytes, header: bytes, payload: bytes) -> bytes:
    """A PUB or HPUB frame. Everything in it was checked before."""
    if header:
        size = len(header)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(payload), header, payload)
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)


def parse_headers(block: bytes | None) -> dict[str, str]:
    """A header block as a mapping; of a name given twice the first value counts."""
    found: dict[str, str] = {}
    if not block:
        return found
    for line in block.split(b"\r\n")[1:]:
        name, separator, value = line.partition(b":")
        if separator:
            found.setdefault(name.strip().decode("utf-8", "replace"), value.strip().decode("utf-8", "replace"))
    return found


def status_of(block: bytes | None) -> tuple[int, str]:
    """Code and description of an in-line status (`NATS/1.0 408 Request Timeout`); code 0 where it is a message."""
    if not block or not block.startswith(STATUS_LINE):
        return 0, ""
    line = block[len(STATUS_LINE) : block.find(b"\r\n")]
    code, _, description = line.partition(b" ")
    return (int(code) if code.isdigit() else 0), description.decode("utf-8", "replace").strip()
