"""Running the `gbe` command as a user does: a process of its own, a home of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.workspace import ROOT

GBE = [str(Path(sys.executable).with_name("gbe"))]
EXAMPLES = ROOT / "docs" / "examples"


@dataclass
class Cli:
    """`gbe` with an environment in which nothing of the developer's own is set."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GBE_", "XDG_"))}
        if server := os.environ.get("GBE_NATS_SERVER"):
            kept["GBE_NATS_SERVER"] = server
        return {**kept, "HOME": str(self.home), "TMPDIR": str(self.home), "TERM": "dumb", **self.extra}

    def run(
        self, *arguments: str | Path, timeout: float = 60, cwd: Path | None = None, said: str = "", **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. `said`: what it reads."""
        return subprocess.run(
            [*GBE, *map(str, arguments)],
            env={**self.environment, **extra},
            cwd=cwd,
            input=said,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str | Path, output: Path, **extra: str) -> subprocess.Popen[bytes]:
        """Start a command; what it prints, on whichever stream, goes to the file."""
        with output.open("wb") as file:
            return subprocess.Popen(
                [*GBE, *map(str, arguments)],
                env={**self.environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Until the condition holds: other processes have no event that could be awaited."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for: {what}")
        time.sleep(0.02)


def wait_for_text(file: Path, text: str, timeout: float = 60) -> None:
    """Until the text is in the file."""
    try:
        wait_for(lambda: text in file.read_text(errors="replace"), repr(text), timeout)
    except AssertionError as error:
        raise AssertionError(f"{error}; there is:\n{file.read_text(errors='replace')}") from None


def finish(process: subprocess.Popen[bytes], number: int = signal.SIGTERM, timeout: float = 60) -> int:
    """Send a signal and wait for the end; one that does not end is killed, and no trouble of later tests."""
    process.send_signal(number)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def processes(marks: Mapping[str, str]) -> Iterator[int]:
    """Processes whose environment has all these variables."""
    wanted = [f"{name}={value}".encode() for name, value in marks.items()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if all(mark in found for mark in wanted):
                yield int(entry.name)


def child(process: subprocess.Popen[bytes], word: str) -> int | None:
    """The process id of the child whose command line has this word."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for pid in children.read_text().split():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in words and b"gbe-guard" not in words:
            return int(pid)
    return None
