"""The connection: nats-py's, with a hot path of our own.

Connecting, authentication, TLS, reconnecting and liveness checks stay nats-py's. Reading and writing don't: its
reader costs several task switches and a regular expression per message and its writer a queue and a task, which is
more than all the rest of what a small message costs. Here the socket's protocol object parses a whole read at once
and calls plain functions, and writes are joined into one per turn of the event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription as NatsSubscription
from nats.protocol.parser import Parser

from gbe_nexus.errors import PermissionDenied, UnsuitableServer
from gbe_nexus_nats.parser import Delivery, FrameParser, Lane, Sink

logger = logging.getLogger("gbe.nexus.nats")

WRITE_AT_ONCE = 64 * 1024
"""Bytes collected after which a write does not wait for the end of the loop's turn: the server can start on them."""

PATIENCE = 0.003
"""Seconds that what nobody waits for (an ack) stays for the next write, which then costs no more than without it."""

HELD_LIMIT = 2 * 1024 * 1024
"""Bytes kept for the next connection while there is none (acks, subscriptions)."""


class _Reader(asyncio.Protocol):
    """The socket's protocol once connected. nats-py's stream protocol keeps its part: flow control and closing."""

    def __init__(self, client: FastClient, stream: asyncio.BaseProtocol) -> None:
        self._client = client
        self._stream = cast("asyncio.StreamReaderProtocol", stream)

    def data_received(self, data: bytes) -> None:
        self._client.received(self, data)

    def eof_received(self) -> bool:
        self._client.ended(self, None)
        return False

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream.connection_lost(exc)
        self._client.ended(self, exc)


class _ParserShell(Parser):
    """What nats-py sees of the parser: that it can be reset."""

    def __init__(self, frames: FrameParser) -> None:
        self._frames = frames

    def reset(self) -> None:
        self._frames.reset()


class FastClient(Client):
    """nats-py's client with its reader and writer replaced. Ordinary nats-py calls keep working."""

    def __init__(self) -> None:
        super().__init__()
        self.up: list[Callable[[], None]] = []
        """Called after each regained connection, when the subscriptions are restored."""
        self.down: list[Callable[[], None]] = []
        """Called after each loss of the connection."""
        self.violations: list[Callable[[str], None]] = []
        """Called with the server's text of each permissions violation."""
        self.require_tls = False
        self.established = False
        self._sinks: dict[bytes, Sink] = {}
        self._frames = FrameParser(self._sinks, self._control_frame, self._callback_failed)
        self._ps = _ParserShell(self._frames)
        self._raw: asyncio.Transport | None = None
        self._reader: _Reader | None = None
        self._live = False
        self._in_read = False
        self._flush_scheduled = False
        self._pushed = False
        self._out: list[bytes] = []
        self._out_size = 0
        self._unhurried: list[bytes] = []
        self._unhurried_timer: asyncio.TimerHandle | None = None
        self._queue: deque[tuple[bytes, bytes, Delivery | None]] = deque()
        self._queued = asyncio.Event()
        self._ended: Exception | None = None
        self._loop = asyncio.get_running_loop()

    # --- what the rest of the package uses ------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether frames written now have a socket to go to."""
        return self._live

    @property
    def congested(self) -> bool:
        """Whether so much waits for the socket that what may be dropped should be."""
        return self._raw is None or self._raw.get_write_buffer_size() > 4 * 1024 * 1024

    def write(self, frame: bytes) -> None:
        """Send a frame with the others of this turn of the loop. Without a connection it is dropped."""
        if not self._live:
            return
        self._out.append(frame)
        self._out_size += len(frame)
        if self._out_size >= WRITE_AT_ONCE:
            self.write_out()
        elif not self._in_read and not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._scheduled_write)

    def push(self) -> None:
        """Send what is collected now, if nothing was in this turn of the loop: for what somebody waits for.

        Later frames of the turn still go out together at its end.
        """
        if self._in_read or self._pushed:
            return
        self._pushed = True
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._scheduled_write)
        self.write_out()

    def write_or_hold(self, frame: bytes) -> None:
        """Send a frame with the next write, within a few milliseconds, or keep it for the next connection: an ack is
        as good then."""
        if self._live:
            self._unhurried.append(frame)
            if self._unhurried_timer is None:
                self._unhurried_timer = self._loop.call_later(PATIENCE, self._write_unhurried)
        elif not self.is_closed and self._pending_data_size < HELD_LIMIT:
            self._pending.append(frame)
            self._pending_data_size += len(frame)

    def write_out(self) -> None:
        """Hand everything collected to the socket now."""
        out = self._out
        if not out or self._raw is None or not self._live:
            return
        if self._raw.is_closing():
            out.clear()
            self._out_size = 0
            return  # Lost, and we are about to be told. uvloop's transport raises where asyncio's drops.
        if self._unhurried:
            out[:0] = self._unhurried
            self._unhurried.clear()
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_size = 0
        self._raw.write(data)

    def attach(self, subject: bytes, where: Callable[[list[Delivery]], None] | Lane) -> Sink:
        """Subscribe with a plain callback, or into a lane shared with others.

        Restored by nats-py on a new connection until `detach`.
        """
        self._sid += 1
        sid = self._sid
        sink = Sink(sid, subject, where if isinstance(where, Lane) else Lane(where))
        # nats-py's own record of it: never started, there only to be replayed after a reconnect.
        self._subs[sid] = NatsSubscription(self, sid, subject.decode())
        self._sinks[sink.sid] = sink
        self.write(b"SUB %b %b\r\n" % (subject, sink.sid))
        return sink

    def detach(self, sink: Sink, linger: float = 0.0) -> None:
        """Unsubscribe; what is under way still reaches the callback for `linger` seconds."""
        if self._subs.pop(int(sink.sid), None) is not None:
            self.write(b"UNSUB %b\r\n" % sink.sid)
        if linger > 0:
            self._loop.call_later(linger, self._sinks.pop, sink.sid, None)
        else:
            self._sinks.pop(sink.sid, None)

    def inbox(self) -> bytes:
        """A new inbox subject."""
        return b"%b.%b" % (bytes(self._inbox_prefix), bytes(self._nuid.next()))

    def tell(self, callbacks: list[Callable[[], None]]) -> None:
        """Call each of `up` or `down`, whatever one of them does."""
        for callback in list(callbacks):
            try:
                callback()
            except Exception as error:  # one that fails must not keep the others from hearing it
                self._callback_failed(error)

    def drop_connection(self) -> None:
        """Let go of the socket at once, whatever waits in it."""
        if self._raw is not None:
            self._raw.abort()

    # --- called by the socket's protocol --------------------------------------------------------

    def received(self, reader: _Reader, data: bytes) -> None:
        """Bytes from the server."""
        if reader is not self._reader:
            return
        self._in_read = True
        try:
            self._frames.feed(data)
        except Exception as error:  # bytes that are no protocol: the connection is of no use any more
            self.ended(reader, error)
        finally:
            self._in_read = False
            self.write_out()

    def ended(self, reader: _Reader, error: Exception | None) -> None:
        """The connection is over (for the reader's part of it)."""
        if reader is self._reader and self._ended is None:
            self._ended = error or nats_errors.UnexpectedEOF()
            self._queued.set()

    def _control_frame(self, operation: bytes, arguments: bytes, delivery: Delivery | None) -> None:
        if operation == b"PING":
            self.write(b"PONG\r\n")
        elif operation == b"PONG":
            self._pings_outstanding = 0
            self._pongs_received += 1
            if self._pongs:
                future = self._pongs.pop(0)
                if not future.done():
                    future.set_result(True)
        elif operation == b"-ERR":
            self._server_error(arguments.decode("utf-8", "replace").strip().strip("'"))
        else:
            self._queue.append((operation, arguments, delivery))
            self._queued.set()

    def _server_error(self, text: str) -> None:
        # Fatal ones end with the server closing the connection, and the next connection is tried like any other:
        # nats-py would close the client for good instead.
        if "permissions violation" in text.lower():
            logger.warning("the server refused: %s", text)
            for callback in self.violations:
                callback(text)
        else:
            logger.error("the server reported: %s", text)

    def _callback_failed(self, error: Exception) -> None:
        logger.error("a message callback failed", exc_info=error)

    def _write_unhurried(self) -> None:
        self._unhurried_timer = None
        if self._unhurried and self._live:
            self._out.extend(self._unhurried)
            self._unhurried.clear()
            self.write_out()

    def _scheduled_write(self) -> None:
        self._flush_scheduled = False
        self._pushed = False
        self.write_out()

    def _went_down(self) -> None:
        if not self._live:
            return
        self._live = False
        # Nothing of this connection may leak into the next one: what matters is sent again by its owner.
        self._out.clear()
        self._out_size = 0
        unhurried, self._unhurried = self._unhurried, []
        for frame in unhurried:
            self.write_or_hold(frame)
        self._queue.clear()
        pongs, self._pongs = self._pongs, []
        for future in pongs:
            if not future.done():
                future.set_result(False)
        # A graceful close would wait for ever on a peer that does not read.
        self.drop_connection()
        self.tell(self.down)

    # --- nats-py's hooks --------------------------------------------------------------------------

    def _connect_command(self) -> bytes:
        if self.require_tls and not self._server_info.get("tls_required"):
            # Before the credentials go out in the clear.
            if self.established:
                raise nats_errors.Error("nats: the server does not offer TLS any more")  # Tried again later.
            raise UnsuitableServer("the server does not offer TLS")
        return super()._connect_command()

    async def _process_connect_init(self) -> None:
        self._reader = None
        self._ended = None
        self._queue.clear()
        try:
            await super()._process_connect_init()
        except nats_errors.Error as error:
            if not self.established and "authorization" in str(error).lower():
                raise PermissionDenied("the server does not accept these credentials") from error
            raise
        except ValueError as error:
            # A first line that does not fit the reader. nats-py's reconnecting survives its own errors only.
            raise nats_errors.Error(f"nats: unreadable greeting: {error}") from error
        if not self.is_connected:
            raise nats_errors.Error("nats: no PONG to the first PING")
        self._install_reader()
        self.established = True

    def _install_reader(self) -> None:
        # nats-py reads the handshake through a StreamReader; from here on the socket is ours.
        writer: asyncio.StreamWriter = cast("Any", self._transport)._io_writer
        stream_reader: Any = cast("Any", self._transport)._io_reader
        raw = cast("asyncio.Transport", writer.transport)
        reader = _Reader(self, raw.get_protocol())
        self._raw = raw
        self._reader = reader
        self._live = True
        raw.set_protocol(reader)
        early = bytes(stream_reader._buffer)
        stream_reader._buffer.clear()
        if stream_reader._paused:
            stream_reader._paused = False
            raw.resume_reading()
        if early:
            self.received(reader, early)
        if stream_reader._eof or stream_reader.exception() is not None:
            self.ended(reader, stream_reader.exception())

    async def _read_loop(self) -> None:
        """What needs a task: ordinary nats-py subscriptions, INFO, and the end of the connection."""
        try:
            while not (self.is_closed or self.is_reconnecting):
                if self._ended is not None:
                    await self._process_op_err(self._ended)
                    return
                if not self._queue:
                    self._queued.clear()
                    await self._queued.wait()
                    continue
                _, arguments, delivery = self._queue.popleft()
                try:
                    if delivery is not None:
                        subject, reply, headers, payload = delivery
                        await self._process_msg(int(arguments), subject, reply, payload, cast("Any", headers))
                    else:
                        await self._process_info(json.loads(arguments))
                except Exception as error:  # nats-py's, for one message; the next ones are still to be read
                    self._callback_failed(error)
        except asyncio.CancelledError:
            return

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if not initial_connection:
            self._server_info.update(info)
            self._max_payload = info.get("max_payload", self._max_payload)
        await super()._process_info(info, initial_connection)

    async def _process_op_err(self, e: Exception) -> None:
        if self.is_closed or self.is_reconnecting:
            return
        logger.warning("connection lost: %s", e)
        self._went_down()
        await super()._process_op_err(e)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if self._live:
            self.write_out()
            self._live = False
        await super()._close(status, do_cbs)

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        if self._live:
            self.write(bytes(cmd))
        elif priority:
            self._pending.insert(0, bytes(cmd))
            self._pending_data_size += len(cmd)
        else:
            self._pending.append(bytes(cmd))
            self._pending_data_size += len(cmd)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        if self._live:
            if self._pending:
                pending, self._pending, self._pending_data_size = self._pending, [], 0
                for frame in pending:
                    self.write(frame)
            self.write_out()
        done = self._loop.create_future()
        done.set_result(None)
        return done

    async def _flusher(self) -> None:
        # nats-py looks whether this task is alive; there is nothing for it to do.
        await self._loop.create_future()

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        self._pongs.append(future or self._loop.create_future())
        self.write(b"PING\r\n")
        self.write_out()

    async def flush(self, timeout: float = 10) -> None:
        """Returns when the server has read everything written so far; `ConnectionError` where it can't any more."""
        if self.is_closed:
            raise nats_errors.ConnectionClosedError
        if not self._live:
            raise nats_errors.ConnectionReconnectingError
        future: asyncio.Future[bool] = self._loop.create_future()
        await self._send_ping(future)
        try:
            arrived = await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise nats_errors.FlushTimeoutError from None
        if not arrived:
            raise nats_errors.ConnectionReconnectingError
