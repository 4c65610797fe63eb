"""The files that a document names: molecules, schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Final

UNREADABLE: Final = (OSError, ValueError, RuntimeError)
"""What looking for a file and reading it raise. ValueError: a NUL in its name; RuntimeError: links in a circle."""


def content(file: Path, limit: int) -> bytes:
    """What is in the file, at most one byte more than the limit. Raises one of `UNREADABLE`."""
    if file.exists() and not file.is_file():
        raise OSError(0, "it is no file")
    with file.open("rb") as opened:
        return opened.read(limit + 1)


def reason(error: Exception) -> str:
    """Why a file can't be read, without its name."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
