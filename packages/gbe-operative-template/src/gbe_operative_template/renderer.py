"""`Renderer`: has templates rendered by processes that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import socket
import sys
from typing import Any

from gbe_envoy.adapter import Command, CommandError, CommandRunner, Limits
from gbe_operative.contract import OperativeError
from gbe_operative_template.messages import CANCEL, ENDED, READY, RECORD, RENDER, TIMEOUT, Answer, Order

PATIENCE = 30.0
"""Seconds in which the fork server has to be there, and in which it has to notice that a process has ended."""

ANSWER_BYTES = 6
"""Of an answer in JSON, at most, for each byte of text: a control character is written as `\\u0000`."""

_MAIN = "from gbe_operative_template.fork_server import main; main()"
_CHUNK = 1 << 20

log = logging.getLogger(__name__)


class Renderer:
    """Owns the fork server: started before it is needed, and again when it has died."""

    def __init__(self, runner: CommandRunner) -> None:
        self._runner = runner
        self._server: _Server | None = None

    def warm_up(self) -> None:
        """Have the fork server started, and don't wait for it."""
        self._running()

    async def close(self) -> None:
        """End it, and whatever is being rendered."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def render(self, order: Order, timeout: float) -> Answer:
        """The text, or what is wrong with the template. Cancelled, it has the process killed.

        Raises `OperativeError` where there is no answer: the time is over, or the process has died.
        """
        return await self._running().render(order, timeout)

    def _running(self) -> _Server:
        if self._server is None or self._server.dead:
            self._server = _Server(self._runner)
        return self._server


class _Server:
    """One fork server, from its start to its end."""

    def __init__(self, runner: CommandRunner) -> None:
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._numbers = itertools.count(1)
        self._ended: dict[int, asyncio.Future[tuple[bytes, int]]] = {}
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._stop = asyncio.Event()
        self._received = b""
        self.dead = False
        self._loop.add_reader(self._control.fileno(), self._on_readable)
        self._life = self._loop.create_task(self._live(runner, theirs))

    async def _live(self, runner: CommandRunner, theirs: socket.socket) -> None:
        why = "its process ended"
        try:
            result = await runner.run(
                Command([sys.executable, "-I", "-c", _MAIN], {}, "/", pass_fds=[theirs.fileno()]),
                limits=Limits(grace=1.0),
                cancel=self._stop,
            )
            said = result.stderr.decode("utf-8", "replace").strip()[-500:]
            if not self._stop.is_set():
                why = f"its process ended ({result.signal or f'exit code {result.exit_code}'}) {said}".rstrip()
                log.warning("the template Operative: %s; it is started again", why)
        except (CommandError, RuntimeError) as error:
            why = f"its process can't be started: {error}"
        finally:
            theirs.close()
            self._die(why)

    def _die(self, why: str) -> None:
        self.dead = True
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        error = OperativeError(f"the template was not rendered: {why}")
        everybody: list[asyncio.Future[Any]] = [self._ready, *self._ended.values()]
        for waiting in everybody:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # seen, whoever else waits

    async def close(self) -> None:
        """End it."""
        self._stop.set()
        await asyncio.wait([self._life])

    # --- one rendering ---

    async def render(self, order: Order, timeout: float) -> Answer:
        """See `Renderer.render`."""
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), PATIENCE)
        except TimeoutError as error:
            self._stop.set()
            raise OperativeError(f"the template's process was not ready within {PATIENCE:g} s") from error
        number = next(self._numbers)
        ended = self._ended[number] = self._loop.create_future()
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                self._send(RENDER, number, timeout, theirs.fileno())
            body = await self._exchange(ours, json.dumps(order).encode(), order["max_bytes"] * ANSWER_BYTES + _CHUNK)
            return await self._answer(body, ended, timeout)
        finally:
            ours.close()
            del self._ended[number]
            if not ended.done():
                ended.cancel()
                with contextlib.suppress(OSError, OperativeError):
                    self._send(CANCEL, number, 0.0)

    def _send(self, kind: bytes, number: int, value: float, *fds: int) -> None:
        if self.dead:
            raise OperativeError("the template was not rendered: its process has just ended")
        try:
            socket.send_fds(self._control, [RECORD.pack(kind, number, value)], fds)
        except OSError as error:
            raise OperativeError(f"the template was not rendered: {error.strerror}") from error

    async def _exchange(self, ours: socket.socket, order: bytes, limit: int) -> bytes:
        """All that comes back, up to the end of the stream."""
        with contextlib.suppress(ConnectionError):  # it has ended: why, is told
            await self._loop.sock_sendall(ours, order)
            ours.shutdown(socket.SHUT_WR)
            received = bytearray()
            while part := await self._loop.sock_recv(ours, _CHUNK):
                received += part
                if len(received) > limit:
                    raise OperativeError(f"the template's process answers with more than {limit} bytes")
            return bytes(received)
        return b""

    async def _answer(self, body: bytes, ended: asyncio.Future[tuple[bytes, int]], timeout: float) -> Answer:
        if body:
            with contextlib.suppress(ValueError):  # cut off in the middle
                answer: Answer = json.loads(body)
                return answer
        kind, code = await asyncio.wait_for(ended, PATIENCE)
        if kind == TIMEOUT:
            raise OperativeError(
                f"the template was not rendered within {timeout:g} s: does it loop without end?", retryable=False
            )
        if code == 2:
            raise OperativeError("the template takes more memory than it may", retryable=False)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        raise OperativeError(f"the template's process died ({how})")

    # --- what it says ---

    def _on_readable(self) -> None:
        try:
            data = self._control.recv(RECORD.size * 64)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control.fileno())
            return
        self._received += data
        while len(self._received) >= RECORD.size:
            kind, number, value = RECORD.unpack(self._received[: RECORD.size])
            self._received = self._received[RECORD.size :]
            if kind == READY:
                if not self._ready.done():
                    self._ready.set_result(None)
            elif kind in (ENDED, TIMEOUT):
                waiting = self._ended.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result((kind, int(value)))
