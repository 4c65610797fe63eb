"""The param `args`: words as a shell reads them, or a JSON array."""

from __future__ import annotations

import shlex

import msgspec

from gbe_jobs_domain.outcomes import FailureKind
from gbe_operative.contract import OperativeError

ARGUMENT_BYTES = 128 * 1024 - 1
"""What Linux takes in one argument."""

_decode = msgspec.json.Decoder(list[str | bool | int | float]).decode


def arguments_of(text: str) -> list[str]:
    """The arguments.

    Text that begins with `[` is a JSON array, whose items are taken as they are (numbers and booleans as JSON writes
    them). Any other is split into words as a POSIX shell does, with its quotes and backslashes; nothing is expanded.
    Raises `OperativeError` (rejected).
    """
    if text.lstrip().startswith("["):
        try:
            found = [_text_of(item) for item in _decode(text)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _rejected(
                f"args begins with '[' and is no JSON array of strings and numbers: {error}; "
                "a word that begins with '[' is to be quoted"
            ) from error
    else:
        try:
            found = shlex.split(text)
        except ValueError as error:
            raise _rejected(f"args can't be split into words: {error}") from error
    for number, argument in enumerate(found, 1):
        if "\0" in argument:
            raise _rejected(f"args: argument {number} contains a NUL byte, which no argument can; use stdin_ref")
        if len(size := argument.encode("utf-8", "replace")) > ARGUMENT_BYTES:
            raise _rejected(
                f"args: argument {number} has {len(size)} bytes, the limit is {ARGUMENT_BYTES}; use stdin_ref"
            )
    return found


def _text_of(item: str | bool | int | float) -> str:
    return item if isinstance(item, str) else msgspec.json.encode(item).decode()


def _rejected(message: str) -> OperativeError:
    return OperativeError(message, kind=FailureKind.REJECTED)
