"""Reading the JSON documents that a session is made of.

A document is a regular file of at most `MAX_DOCUMENT_BYTES` that holds one JSON value. Everything
else is refused before it costs time or memory.
"""

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import IO, Any, NoReturn

MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
"""The size up to which a document is read: 32 MiB, some 400,000 edges. Parsed it can take 25 times as much memory."""


def resolve(path: Path, name: str) -> Path:
    """The absolute path without symbolic links.

    Raises:
        ValueError: for a cycle of symbolic links or a path that no file system can hold.
    """
    try:
        resolved = path.resolve()
        # Newer Pythons leave a cycle as it is.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            resolved.stat()
        return resolved
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot be resolved (a cycle of symbolic links?): {str(path)!r}") from error


def read_document(path: str | os.PathLike[str], what: str) -> Any:
    """The value in a JSON file.

    Args:
        path: The file.
        what: What it is to hold, for messages ("Run config").

    Raises:
        ValueError: YAML, not a regular file, too large, nested too deeply, text that is not Unicode.
        json.JSONDecodeError: not JSON (NaN and infinities are not).
        OSError: the file cannot be opened or read.
    """
    file = Path(path)
    if file.suffix.lower() in {".yaml", ".yml"}:
        raise ValueError(f"{what} must be a JSON file: {file}: YAML is not supported")
    with open_regular(file, what) as stream:
        status = os.fstat(stream.fileno())
        if status.st_size > MAX_DOCUMENT_BYTES:
            raise ValueError(_too_large(what, file, status.st_size))
        # A file may grow while it is read.
        content = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise ValueError(_too_large(what, file, len(content)))
    try:
        return parse_document(content, f"{what} {file}")
    except ValueError as error:
        # The JSON error itself doesn't say where it is.
        if str(file) not in str(error):
            error.add_note(f"(in {file})")
        raise


def open_regular(file: Path, what: str) -> IO[bytes]:
    """Open a file to read, if it is a regular one: no folder, no device, no pipe whose writer one would wait for.

    Raises:
        ValueError: it is none, or a cycle of symbolic links.
        OSError: it cannot be opened.
    """
    resolve(file, what)
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{what} must be a regular file: {file}")
    return os.fdopen(handle, "rb")


def parse_document(content: bytes | str, what: str) -> Any:
    """The JSON value in a text. Raises what `read_document` raises for the content."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is not UTF-8 text: {error.reason} at byte {error.start}") from error

    def refuse(constant: str) -> NoReturn:
        raise json.JSONDecodeError(f"{what}: {constant} is not JSON", text, text.index(constant))

    try:
        value = json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply") from error
    if "\\u" in text or "\\U" in text:
        _refuse_surrogates(value, what)
    return value


def _refuse_surrogates(value: Any, what: str) -> None:
    """A lone surrogate has no UTF-8 form, so that no record with it could be hashed."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            if not each.isascii():
                try:
                    each.encode()
                except UnicodeEncodeError as error:
                    raise ValueError(f"{what} holds a lone surrogate in {each!r}") from error
        elif isinstance(each, dict):
            pending.extend(each)
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)


def _too_large(what: str, file: Path, size: int) -> str:
    return f"{what} is too large: {file} has {size} bytes, at most {MAX_DOCUMENT_BYTES} are read"
