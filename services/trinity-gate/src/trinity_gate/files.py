"""Writing a file whole or not at all, and reading one that may be torn."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trinity_gate.errors import DamagedFile

MAX_DOCUMENT = 64 << 20
"""Bytes of a JSON document in the data directory."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put it there: a temporary file beside it, fsync, rename, fsync of the directory."""
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names durable that were changed in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode_document(document: Any) -> bytes:
    """JSON as people like to read it."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read_document(path: Path) -> Any:
    """The JSON in a file. Raises `DamagedFile`."""
    try:
        with path.open("rb") as file:
            body = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise DamagedFile(f"{path} can't be read: {error.strerror or error}") from error
    if len(body) > MAX_DOCUMENT:
        raise DamagedFile(f"{path} is larger than {MAX_DOCUMENT} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is not a JSON document: {error}") from error
