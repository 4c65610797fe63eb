"""Logging to stderr: text for people, JSON lines for machines. No secrets, no control characters.

Masking and escaping happen in the formatters, the last place before the bytes are written, so that they also cover
what other libraries log, arguments and tracebacks.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, TextIO
from urllib.parse import quote

LogFormat = Literal["text", "json"]

MASK: Final = "***"

_secrets: set[str] = set()
_secret_pattern: re.Pattern[str] | None = None

# The last `@` before a slash or a space ends the user part, so a password may contain one. A lone user is masked as
# well: NATS takes `nats://token@host`.
_URL_LOGIN = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?:(?P<user>[^\s/@:]*):)?[^\s/]*@")

# C0, DEL, C1, and what reorders or breaks lines on a terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_BUT_NEWLINE = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def register_secret(value: str) -> None:
    """Never write `value` (nor its form in URLs) to a log. The empty string is no secret."""
    global _secret_pattern  # noqa: PLW0603 (secrets belong to the process, as its log does)
    if not value or value in _secrets:
        return
    _secrets.update((value, quote(value, safe="")))
    # The longest first: of two secrets, one may be the beginning of the other.
    _secret_pattern = re.compile("|".join(re.escape(secret) for secret in sorted(_secrets, key=len, reverse=True)))


def mask(text: str) -> str:
    """`text` without registered secrets and without the passwords of URLs."""
    if _secret_pattern is not None:
        text = _secret_pattern.sub(MASK, text)
    if "://" in text:
        text = _URL_LOGIN.sub(_mask_login, text)
    return text


def escape(text: str, *, newlines: bool = True) -> str:
    """`text` with its control characters written out (`\\x1b`); without `newlines`, those stay."""
    return (_CONTROL if newlines else _CONTROL_BUT_NEWLINE).sub(_escape_one, text)


def one_line(text: str) -> str:
    """`text` as it may be shown: one line, no secrets."""
    return escape(mask(text))


def setup_logging(
    format: LogFormat = "text",
    level: str = "info",
    role: str = "",
    stream: TextIO | None = None,
) -> None:
    """Log everything of at least `level` to stderr (or `stream`) from here on. `role` is in each line."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(role) if format == "json" else TextFormatter(role))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    # A broken stderr (its reader is gone) is no reason for a traceback per line, onto the same stderr.
    logging.raiseExceptions = False


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO oracle gbe_oracle.driver: message key=value`, and an indented traceback."""

    def __init__(self, role: str = "") -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback's lines, which can't be mistaken for log lines."""
        fields = "".join(f" {name}={_plain(value)}" for name, value in _extras(record).items())
        role = f"{self._role} " if self._role else ""
        text = one_line(f"{_time(record)} {record.levelname} {role}{record.name}: {_message(record)}{fields}")
        if trace := _traceback(self, record):
            text += "".join(f"\n    | {line}" for line in escape(mask(trace), newlines=False).split("\n"))
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ts, level, role, logger, message, what `extra=` gave, and the error."""

    def __init__(self, role: str = "") -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """One line. JSON escapes by itself, so only masking is left to do."""
        line: dict[str, object] = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": mask(_message(record)),
        }
        for name, value in _extras(record).items():
            line.setdefault(name, _masked(value))
        if trace := _traceback(self, record):
            line["error"] = mask(trace)
        return json.dumps(line, ensure_ascii=True, default=lambda value: mask(str(value)), skipkeys=True)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # a wrong placeholder must not lose the line, nor end the caller
        return f"{record.msg!s} (arguments {record.args!r} don't fit: {error})"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _plain(value: object) -> str:
    text = mask(str(_masked(value)))  # before quoting: that changes how a secret looks
    return json.dumps(text, ensure_ascii=False) if not text or re.search(r'[\s"=]', text) else text


def _masked(value: object) -> object:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {mask(str(key)): _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(item) for item in value]
    return value


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _mask_login(found: re.Match[str]) -> str:
    user = found["user"]
    return f"{found['scheme']}{MASK}@" if user is None else f"{found['scheme']}{user}:{MASK}@"


def _escape_one(found: re.Match[str]) -> str:
    code = ord(found[0])
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
