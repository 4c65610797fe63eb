"""A child process that lives no longer than its parent, and whose end can be awaited from any event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

# The guard waits for a line (then its job is done) or for the end of the pipe (then the parent is gone). CONT, because
# a stopped process would sit on its TERM.
_GUARD = 'read -r _ && exit 0; kill -TERM "$1" && kill -CONT "$1"'


class GuardedProcess:
    """A process and its guard.

    The guard is a shell that holds one end of a pipe to us. When we die, however, it ends the process. It belongs to
    no event loop, so a server can be shared by tests that each have their own.
    """

    def __init__(self, command: Sequence[str], *, output: IO[bytes], keep_fd: int, directory: Path) -> None:
        # Sessions of their own: a Ctrl-C on the terminal is for the parent, who then stops the process in order.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            pass_fds=(keep_fd,),
            start_new_session=True,
        )
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "gbe-guard", str(self._process.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code (negative: the signal that ended it), None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._dismiss_guard()
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal; fine where the process is gone."""
        self._process.send_signal(number)

    def suspend(self) -> None:
        """SIGSTOP; returns when all its threads stand still (or it has ended)."""
        self.send(signal.SIGSTOP)
        if self._process.returncode is None and hasattr(os, "waitid"):  # macOS has it since Python 3.13
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    async def wait(self) -> int:
        """Wait for its end; returns the exit code. Any number of callers may wait."""
        while (code := self.code) is None:
            await self._exited()
        return code

    async def _exited(self) -> None:
        try:
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux: a thread has to wait
            await asyncio.to_thread(self._process.wait)
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    def _dismiss_guard(self) -> None:
        """Tell the guard to go before the process id can be given to anybody else."""
        pipe = self._guard.stdin
        if pipe is None or pipe.closed:
            return
        try:
            pipe.write(b"\n")
            pipe.close()
        except OSError:
            pass  # somebody killed it
        self._guard.wait()
