"""From what a command wrote and how it ended to a task's outcome."""

from __future__ import annotations

import mmap
import signal
from pathlib import Path

import msgspec

from gbe_envoy.adapter import CommandResult
from gbe_jobs_domain.edges import EdgeData, Inline, Ref, inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, TaskOutcome

JSON = "application/json"
TEXT = "text/plain"

JSON_LIMIT = 64 << 20
"""A larger output is not looked at for being JSON: nothing could open it anyway."""

ERROR_BYTES = 8 * 1024
"""Of stderr, that much becomes the error's text."""

_decode = msgspec.json.Decoder().decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def lines_of(stdout: bytes) -> list[str]:
    """The lines, without their ends; nothing at all has none."""
    if not stdout:
        return []
    return stdout.decode("utf-8", "replace").removesuffix("\n").split("\n")


def data_of(stdout: bytes, lines: list[str]) -> Inline:
    """The one JSON value that the output is, else its lines."""
    text = stdout.strip()
    if text:
        try:
            value = _decode(text)
        except _BAD_JSON:
            return inline(lines)
        # As it was written: numbers keep their digits.
        return Inline(msgspec.Raw(text), len(value) if isinstance(value, list) else None)
    return inline(lines)


def media_type_of(file: Path) -> str:
    """Whether the file is one JSON value. Blocks; takes no memory for it."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        if not 0 < size <= JSON_LIMIT:
            return TEXT
        opened.seek(0)
        if opened.read(4096).lstrip()[:1] not in b'{["':
            return TEXT
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            try:
                _skip(mapped)
            except _BAD_JSON:
                return TEXT
    return JSON


def outcome_of(result: CommandResult, ref: Ref | None) -> TaskOutcome:
    """The outcome. `ref`: where the whole output is, when it was large."""
    lines = lines_of(result.stdout)
    data: EdgeData
    if ref is None:
        data = data_of(result.stdout, lines)
    else:
        data = ref
        lines.insert(0, f"[… {result.stdout_size - len(result.stdout)} bytes omitted, all are in {ref.uri} …]")
    stderr = result.stderr.decode("utf-8", "replace")
    if result.exit_code == 0 and not result.cancelled and not result.output_limit:
        return Completed(output=lines, stderr=stderr, data=data, result_ref=None if ref is None else ref.uri)
    return Failed(
        error=error_of(result, stderr),
        kind=FailureKind.CANCELLED if result.cancelled else FailureKind.ERROR,
        exit_code=result.exit_code or 1,
        stderr=stderr,
        output=lines,
        data=ref,
    )


def error_of(result: CommandResult, stderr: str) -> str:
    """What went wrong, in its own words where it had some."""
    said = stderr.strip()[-ERROR_BYTES:]
    if result.cancelled:
        return "cancelled"
    if result.output_limit:
        return f"wrote more than {result.stdout_size} bytes and was ended"
    name = result.signal or _signal_behind(result.exit_code)
    if name is not None:
        how = f"killed by {name}" if result.signal else f"exit code {result.exit_code} ({name})"
        return f"{how}: {said}" if said else how
    return said or f"exit code {result.exit_code}"


def _signal_behind(code: int) -> str | None:
    """A shell says 128+n for a command of its own that signal n ended."""
    if not 128 < code < 128 + signal.NSIG:
        return None
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return None
