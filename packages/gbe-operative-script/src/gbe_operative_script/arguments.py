"""The param `args`: words as a shell reads them, or a JSON array."""

from __future__ import annotations

import shlex

import msgspec

from gbe_jobs_domain.outcomes import FailureKind
from gbe_operative.contract import OperativeError

ARGUMENT_BYTES = 128 * 1024 - 1
"""What Linux takes in one argument."""

TOTAL_BYTES = 1024 * 1024
"""Of all arguments. Linux takes 2 MiB with the environment, which has the other half."""

WORDS_CHARACTERS = 32 * 1024
"""Of text that is split into words: `shlex` takes quadratic time."""

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
        found = words_of("args", text, "a JSON array of arguments")
    total = 0
    for number, argument in enumerate(found, 1):
        if "\0" in argument:
            raise _rejected(f"args: argument {number} contains a NUL byte, which no argument can; use stdin_ref")
        size = len(argument.encode("utf-8", "replace"))
        if size > ARGUMENT_BYTES:
            raise _rejected(f"args: argument {number} has {size} bytes, the limit is {ARGUMENT_BYTES}; use stdin_ref")
        total += size + 1
    if total > TOTAL_BYTES:
        raise _rejected(f"args: {total} bytes in all, the limit is {TOTAL_BYTES}; use stdin_ref")
    return found


def words_of(param: str, text: str, instead: str) -> list[str]:
    """The words of a param's text, as a POSIX shell splits them. Raises `OperativeError` (rejected)."""
    if len(text) > WORDS_CHARACTERS:
        raise _rejected(
            f"{param}: {len(text)} characters are too many to split into words (limit {WORDS_CHARACTERS}); "
            f"use {instead}"
        )
    try:
        return shlex.split(text)
    except ValueError as error:
        raise _rejected(f"{param} can't be split into words: {error}") from error


def _text_of(item: str | bool | int | float) -> str:
    return item if isinstance(item, str) else msgspec.json.encode(item).decode()


def _rejected(message: str) -> OperativeError:
    return OperativeError(message, kind=FailureKind.REJECTED)
