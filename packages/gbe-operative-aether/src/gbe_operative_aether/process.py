"""One process that runs sessions of the engine, one after another, as the Operative sees it.

The engine computes without a pause, so it runs beside the worker and not in it: leases are renewed on time, a session
that takes too much memory ends itself and nothing else, and one that does not answer can be killed. The process ends by
itself when its standard input does, so none outlives a worker that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator
from typing import Final

from gbe_operative_aether.frames import LENGTH, MAX_FRAME, Answer, Request, decode_answer, frame

KEPT: Final = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "PYTHONPATH", "OPENBLAS_CORETYPE", "LD_LIBRARY_PATH"}
)
"""Of the worker's environment the engine sees only these: it is nobody else's, and has no use for secrets."""

LAST_WORDS: Final = 4096
"""Bytes kept of what a process wrote to stderr."""


class ProcessDied(Exception):
    """The engine's process is gone; the text says how, and its last words."""


class EngineProcess:
    """Started with `start`, ended with `stop`. One session at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._stderr = b""
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it. Raises `OSError`."""
        environment = {name: value for name, value in os.environ.items() if name in KEPT}
        # A thread more for the arithmetic of each session would only stand in the way of the others.
        environment["OPENBLAS_NUM_THREADS"] = "1"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gbe_operative_aether.engine",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._listening = asyncio.ensure_future(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while words := await process.stderr.read(LAST_WORDS):
            self._stderr = (self._stderr + words)[-LAST_WORDS:]

    @property
    def pid(self) -> int | None:
        """Its process id, while it lives."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def say(self, request: Request) -> None:
        """Send a request. Raises `ProcessDied`."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame(request))
            await self._process.stdin.drain()
        except (OSError, RuntimeError) as error:
            raise ProcessDied(await self._obituary()) from error

    async def answers(self) -> AsyncGenerator[Answer, None]:
        """What it answers, until somebody stops asking. Raises `ProcessDied`."""
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            try:
                (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
                if length > MAX_FRAME:
                    raise ProcessDied(f"the engine answered with {length} bytes, more than {MAX_FRAME}")
                body = await self._process.stdout.readexactly(length)
            except (asyncio.IncompleteReadError, OSError) as error:
                raise ProcessDied(await self._obituary()) from error
            yield decode_answer(body)

    async def _obituary(self) -> str:
        assert self._process is not None
        code = await self._process.wait()
        if self._listening is not None:
            await asyncio.wait({self._listening}, timeout=1.0)
        try:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        except ValueError:
            how = f"was killed by signal {-code}"
        said = self._stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        return f"the engine's process {how}" + (f": {said}" if said else "")

    async def stop(self) -> None:
        """End it at once. It has nothing to save: whatever is to be kept was sent."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        if self._listening is not None:
            await asyncio.wait({self._listening})
