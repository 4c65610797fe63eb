"""What a worker can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Times in seconds, sizes in bytes."""

    ack_wait: float = 30.0
    """The lease of a new task type's consumer; an existing one's is adopted."""
    crash_budget: int = 3
    """Starts without an end until a task is given up."""
    inline_limit: int = 256 * KIB
    """Larger data goes by reference; output and stderr are cut to it."""
    fetch_limit: int = 64 * MIB
    """The largest artifact that is opened for `input_from` (one that goes by reference may be of any size)."""
    data_limit: int = 64 * MIB
    """The largest data that a task hands on as a value; nobody could open more. The rest is for artifacts."""
    artifact_limit: int = 4096 * MIB
    """The largest artifact that a task stores."""
    check_limit: float = 10.0
    """How long it may take to match data against a schema."""
    moment: float = 0.2
    """A task that ends sooner publishes no progress."""
    stop_grace: float = 10.0
    """How long running tasks may go on when the worker is asked to stop, before they are handed back."""
    interrupt_grace: float = 15.0
    """How long an attempt that watches `cancelled` may take to clean up."""
    unknown_version_for: float = 600.0
    """How long a message of a newer version is left to newer workers."""
    unknown_version_delay: float = 30.0
    """How long it is put off at a time."""
    work_root: Path | None = None
    """Where work directories are made; default: the system's temporary directory."""
