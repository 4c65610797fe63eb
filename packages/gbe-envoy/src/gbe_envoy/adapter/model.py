"""What is asked of the adapter, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OnLine = Callable[[str, bytes], None]
"""Called with "stdout" or "stderr" and one line without its newline, as soon as the line is whole.

It may have a method `skip(stream, lines)` as well, which is asked before so many lines come: where it returns true, it
has counted them and gets none of them. There may be hundreds of millions.
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    `argv[0]` is looked up in the `PATH` of `env` unless it contains a slash. `env` is the whole environment of the
    child (one variable, `GBE_GUARDIAN`, is added). `stdin` bytes are fed; a path is opened read-only; None is
    `/dev/null`. `pass_fds` become the child's descriptors 3, 4, … in that order: whatever else is open here, it gets no
    more than these; they stay the caller's to close.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None = None
    stdin: bytes | Path | None = None
    pass_fds: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on memory, disk and patience. Sizes are bytes, times are seconds."""

    tail_bytes: int = 64 * 1024
    """What is kept of stderr, and of a stdout that went to a file."""
    capture_bytes: int = 256 * 1024
    """A stdout up to this size stays in memory; a larger one goes, whole, to a file."""
    max_bytes: int = 10 * 1024**3
    """A stdout larger than this ends the command (`output_limit`)."""
    grace: float = 5.0
    """Between SIGTERM and SIGKILL."""
    linger: float = 0.1
    """How long what the command left in the background may still hold its output open, before it is killed."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended, and what it wrote. Times are milliseconds since the epoch."""

    exit_code: int
    """The exit code; 128+n after signal n; 124 after a timeout."""
    signal: str | None
    """The name of the signal which ended the command, such as "SIGKILL"."""
    stdout: bytes
    """All of it when there is no `spill`, else its tail, from the start of a line where there is one."""
    stdout_size: int
    """Bytes of stdout kept: the length of `stdout`, or of the file."""
    spill: Path | None
    """The file with the whole stdout, when that was larger than `capture_bytes`: now the caller's, to use and delete.

    It lies in the runner's directory, which `CommandRunner.close` removes.
    """
    stderr: bytes
    """The tail of stderr, from the start of a line where there is one."""
    stderr_size: int
    """Bytes of stderr written."""
    timed_out: bool
    cancelled: bool
    output_limit: bool
    started_at: int
    ended_at: int
