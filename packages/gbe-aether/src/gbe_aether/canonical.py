"""Canonical JSON and the hash `H` over it (specification, section 0.1).

There are two dialects. Records are hashed as UTF-8 text in which only what JSON must escape is
escaped. Snapshots and log files are written in ASCII. Both sort keys by code point and have no
white space.
"""

import hashlib
import json
import re
from typing import Any

import msgspec

_raw = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_records = msgspec.json.Encoder(order="sorted")
_escaped = re.compile("[^ -~]")
_ascii_line = json.JSONEncoder(ensure_ascii=True, sort_keys=True, allow_nan=False)


def plain(value: Any) -> Any:
    """The record as dicts, lists and scalars; integers of any size stay what they are."""
    return _without_tuples(msgspec.to_builtins(value))


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, dict | list | tuple):
                value[key] = _without_tuples(each)
        return value
    if isinstance(value, list | tuple):
        # Long lists are of one kind: numbers need no look.
        if value and isinstance(value[0], dict | list | tuple):
            return [_without_tuples(each) for each in value]
        return list(value)
    return value


def json_bytes(value: Any) -> bytes:
    """Canonical text of plain values as UTF-8. Unlike `canonical` it lets floats pass (`8.0`)."""
    return _raw.encode(value).encode()


def canonical(record: Any) -> bytes:
    """Canonical text of a record, a struct or plain values: what `H` hashes.

    Raises:
        TypeError: for a float, or anything that JSON has no form for.
    """
    value = plain(record)
    refuse_floats(value)
    return json_bytes(value)


def record_bytes(record: Any) -> bytes:
    """Canonical text of a record, fast: what `json_bytes(plain(record))` gives. Floats pass."""
    try:
        return _records.encode(record)
    except OverflowError:
        # An integer beyond 64 bits.
        return json_bytes(plain(record))


def text_json(text: str) -> str:
    """A string as it stands in canonical text, quotes included."""
    return _raw.encode(text)


def H(record: Any) -> str:
    """Lower-case hex SHA-256 of the canonical text."""
    return hashlib.sha256(canonical(record)).hexdigest()


def structure_sha256(value: Any) -> str:
    """SHA-256 of the canonical text of plain values, floats allowed, as the golden files use it."""
    return hashlib.sha256(json_bytes(plain(value))).hexdigest()


def ascii_text(value: Any) -> str:
    """Compact text in the ASCII dialect: sorted keys, no white space."""
    text = record_bytes(value).decode()
    # What differs between the dialects stands within strings only.
    return text if text.isascii() and "\x7f" not in text else _escaped.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    units = found.group().encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def ascii_line(value: Any) -> str:
    """One line of a log file: ASCII dialect with `, ` and `: ` between."""
    return _ascii_line.encode(plain(value)).replace("\x7f", "\\u007f")


def ascii_indented(value: Any) -> str:
    """The text of a snapshot file: ASCII dialect, indented by two."""
    text = json.dumps(plain(value), ensure_ascii=True, sort_keys=True, indent=2, allow_nan=False)
    return text.replace("\x7f", "\\u007f")


def refuse_floats(value: Any) -> None:
    """Raise `TypeError` when there is a float anywhere in plain values: none is ever hashed."""
    if isinstance(value, float):
        raise TypeError(f"a float cannot be hashed: {value!r}; canonical records hold integers, text and booleans")
    if isinstance(value, dict):
        for each in value.values():
            refuse_floats(each)
    elif isinstance(value, list | tuple):
        for each in value:
            refuse_floats(each)
