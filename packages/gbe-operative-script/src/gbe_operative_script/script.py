"""Looking at a script before it runs: whether it may, whether it can, and by what."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gbe_envoy.adapter import CommandError, find_executable
from gbe_jobs_domain.outcomes import FailureKind
from gbe_operative.contract import OperativeError
from gbe_operative.rooted import PathError, Root, RootedFile
from gbe_operative_script.arguments import words_of

_HEAD = 512


@dataclass(frozen=True, slots=True)
class Script:
    """A script that can be run: `command` and its arguments."""

    path: Path
    command: tuple[str, ...]


def inspect(root: Root, script_path: str | None, interpreter: str | None, path: str) -> Script:
    """The script, as far as it can be known before it runs. `path`: the `PATH` it will have. Blocks.

    Raises `OperativeError` (rejected) for a file that is missing, no file, not readable, outside of the root, or that
    nothing can execute.
    """
    if not script_path:
        raise _rejected("missing param: script_path")
    try:
        with root.open(script_path) as file:
            if interpreter is not None:
                return Script(file.path, (*_interpreter(interpreter, path), str(file.path)))
            _check_executable(file, path)
            return Script(file.path, (str(file.path),))
    except PathError as error:
        raise _rejected(f"script_path {error}") from error


def _interpreter(text: str, path: str) -> list[str]:
    words = words_of("interpreter", text, "a script of your own")
    if not words:
        raise _rejected("interpreter is empty")
    try:
        return [_found(words[0], path), *words[1:]]
    except CommandError as error:
        raise _rejected(f"interpreter: {error}") from error


def _check_executable(file: RootedFile, path: str) -> None:
    if not os.access(file.path, os.X_OK):
        raise _rejected(f"script_path {str(file.path)!r}: it is not executable; name an interpreter, or chmod +x it")
    head = os.pread(file.fd, _HEAD, 0)
    if not head.startswith(b"#!"):
        if b"\0" in head:  # a program
            return
        raise _rejected(f"script_path {str(file.path)!r}: it has no #! line; name an interpreter")
    words = os.fsdecode(head[2:].split(b"\n", 1)[0]).replace("\t", " ").strip(" ").split(" ")
    if not words[0]:
        raise _rejected(f"script_path {str(file.path)!r}: its #! line names nothing")
    if os.path.basename(words[0]) == "env" and len(words) > 1 and not words[1].startswith("-") and "=" not in words[1]:
        words = words[1:]
    try:
        _found(words[0], path)
    except CommandError as error:
        hint = "; its lines end in CR LF, as on Windows" if words[-1].endswith("\r") else ""
        raise _rejected(f"script_path {str(file.path)!r}: its #! line: {error}{hint}") from error


def _found(name: str, path: str) -> str:
    """The executable. Raises `CommandError`."""
    executable = find_executable(name, path)
    if not os.path.isfile(executable):
        raise CommandError(f"{executable!r} is not there")
    if not os.access(executable, os.X_OK):
        raise CommandError(f"{executable!r} is not executable")
    return executable


def _rejected(message: str) -> OperativeError:
    return OperativeError(message, kind=FailureKind.REJECTED)
