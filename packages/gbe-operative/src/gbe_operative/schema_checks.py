"""Data against the schemas that tasks declare, with a limit on what that may take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys

import msgspec

from gbe_operative.schema_child import HEADER, LENGTH, Answer, Ask

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Processes that check: one slow schema does not hold up all others."""
GRACE = 20.0
"""Seconds beyond the limit for a process to start and to take what it is asked; its own clock is exact."""

_INHERITED = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
_answer = msgspec.json.Decoder(Answer).decode


class InvalidSchema(Exception):
    """What was declared is no schema; the text says why."""


class CheckFailed(Exception):
    """Whether the data matches can't be found out; the text says why. `lasting`: nor would it be another time."""

    def __init__(self, message: str, *, lasting: bool = True) -> None:
        super().__init__(message)
        self.lasting = lasting


class SchemaChecks:
    """Checks in processes that are started when the first schema comes, and end with this one."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._places = asyncio.Semaphore(AT_ONCE)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._reaping: set[asyncio.Task[int]] = set()

    async def check_schema(self, schema: bytes) -> None:
        """Raises `InvalidSchema`, `CheckFailed`."""
        await self._ask(Ask.SCHEMA, schema, b"")

    async def violation(self, schema: bytes, value: bytes, *, discreet: bool = False) -> str | None:
        """The first thing that is wrong with a JSON value: `at $.price: 'abc' is not of type 'number'`.

        `discreet`: without quoting it. Raises `InvalidSchema`, `CheckFailed`.
        """
        answer = await self._ask(Ask.MATCH_DISCREETLY if discreet else Ask.MATCH, schema, value)
        return answer.text if answer.kind == "violated" else None

    async def close(self) -> None:
        """End the processes."""
        children, self._idle = list(self._children), []
        for child in children:
            child.end()
        for child in children:
            await self._reap(child)
        if self._reaping:
            await asyncio.wait(self._reaping)

    async def _ask(self, ask: Ask, schema: bytes, value: bytes) -> Answer:
        async with self._places:
            answer = await self._answered(ask, schema, value)
        if answer.kind == "invalid":
            raise InvalidSchema(answer.text)
        if answer.kind == "failed":
            raise CheckFailed(answer.text)
        return answer

    async def _answered(self, ask: Ask, schema: bytes, value: bytes) -> Answer:
        while True:
            used = bool(self._idle)
            child = self._idle.pop() if used else await self._start()
            answered = False
            try:
                async with asyncio.timeout(self._limit + GRACE):
                    answer = await child.ask(ask, self._limit, schema, value)
                answered = True
            except (EOFError, ConnectionError):
                code = await self._reap(child)
                if code == -signal.SIGALRM:
                    raise CheckFailed(f"it takes more than {self._limit:g} s") from None
                if not used:
                    raise CheckFailed(f"the process that checks it ended ({code})", lasting=False) from None
                log.info("a process that checks schemas was gone (%s); started again", code)
            except TimeoutError:
                raise CheckFailed(f"it takes more than {self._limit:g} s") from None
            else:
                self._idle.append(child)
                return answer
            finally:
                if not answered and child in self._children:
                    child.end()  # whatever it is in, nobody waits for its answer
                    reaping = asyncio.ensure_future(self._reap(child))
                    self._reaping.add(reaping)
                    reaping.add_done_callback(self._reaping.discard)

    async def _start(self) -> _Child:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                "gbe_operative.schema_child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={name: os.environ[name] for name in _INHERITED if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            raise CheckFailed(f"no process could be started to check it: {error}", lasting=False) from error
        child = _Child(process)
        self._children.add(child)
        return child

    async def _reap(self, child: _Child) -> int:
        code = await child.wait()
        self._children.discard(child)
        return code


class _Child:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, ask: Ask, seconds: float, schema: bytes, value: bytes) -> Answer:
        """Raises `EOFError` or `ConnectionError` where it ends instead of answering."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        requests.write(HEADER.pack(ask, seconds, len(schema), len(value)) + schema)
        requests.write(value)
        await requests.drain()
        (size,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
        return _answer(await answers.readexactly(size))

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self._process.wait()
