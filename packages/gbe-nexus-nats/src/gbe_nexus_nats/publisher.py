"""Publishing in bulk: every message with a reply token of its own, acks counted on one inbox.

A message that is refused for the moment, or answered by silence, is sent again as the same bytes under the same
token: whichever answer comes first counts, and the message id makes the second copy harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, cast

import msgspec

from gbe_nexus.answers import Answers
from gbe_nexus.errors import ClosedError, NexusError, PayloadTooLarge, PermissionDenied, Refused, Unavailable
from gbe_nexus.transport import Outgoing, PubAck
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.errors import MESSAGE_TOO_LARGE, ServerRefusal
from gbe_nexus_nats.parser import Delivery
from gbe_nexus_nats.wire import header_block, literal_subject, publish_frame, status_of

logger = logging.getLogger("gbe.nexus.nats")

SILENCE = 2.5
"""Seconds without an answer after which a message is sent again."""

LASTING = 10.0
"""Seconds of trying after which what is left of the last try is the result."""

FULL_PATIENCE = 1.0
"""Seconds for which a full stream is tried again: it empties as its messages are consumed."""

_TICK = 0.1
_LOOK_UP_AFTER = 0.15

_VIOLATION = re.compile(r'publish to "(.+)"', re.IGNORECASE)

Result = PubAck | NexusError


class Raw(msgspec.Struct, frozen=True, gc=False):
    """A message with its header block made already. `resend`: whether a second copy is harmless."""

    subject: str
    header: bytes
    payload: bytes
    resend: bool


class _Batch:
    __slots__ = (
        "again",
        "answers",
        "errors",
        "first",
        "frames",
        "left",
        "resend",
        "results",
        "sent",
        "since",
        "subjects",
    )

    def __init__(self, first: int, size: int, answers: Answers[Result], now: float) -> None:
        self.first = first
        self.left = size
        self.answers = answers
        self.results: list[Result | None] = [None] * size
        self.frames: list[bytes | None] = [None] * size
        self.subjects: list[str] = []
        self.resend: list[bool] = []
        self.since = now
        self.sent = 0.0  # When it was last written; 0: never, so nothing of it can be stored.
        self.again: set[int] = set()
        self.errors: dict[int, NexusError] = {}

    def settle(self, index: int, result: Result) -> bool:
        """Note a result; whether that was the last one."""
        if self.results[index] is not None:
            return False
        self.results[index] = result
        self.frames[index] = None
        self.left -= 1
        return self.left == 0

    def open(self) -> Iterable[int]:
        """The indexes without a result, in order."""
        return [index for index, result in enumerate(self.results) if result is None]


class Publisher:
    """The publishing side of a connection."""

    def __init__(
        self,
        client: FastClient,
        size_limit: Callable[[str], Awaitable[int]],
        has_stream: Callable[[str], Awaitable[bool]],
    ) -> None:
        """`size_limit`: finds out the largest message a stream takes; `has_stream`: whether one takes a subject."""
        self._client = client
        self._size_limit = size_limit
        self._has_stream = has_stream
        self._looked_up: set[str] = set()
        self._loop = asyncio.get_running_loop()
        inbox = client.inbox()
        self._reply = inbox + b"."
        self._cut = len(self._reply)
        self._sink = client.attach(inbox + b".*", self._answers)
        self._decode = msgspec.json.Decoder(PubAck).decode
        self._next = 1
        self._waiting: dict[int, _Batch] = {}
        self._batches: dict[int, _Batch] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        client.up.append(self._on_up)
        client.down.append(self._on_down)
        client.violations.append(self._on_violation)

    def publish(self, messages: Sequence[Outgoing]) -> Answers[Result]:
        """Write all; one result per message is under way."""
        batch = self._start(len(messages))
        limit = self._client.max_payload
        for index, message in enumerate(messages):
            try:
                subject = literal_subject(message.subject)
                header = header_block(message.msg_id, message.headers)
                size = len(header) + len(message.payload)
                if size > limit:
                    raise PayloadTooLarge(size, limit)
            except NexusError as error:
                self._settle(batch, index, error)
                batch.subjects.append("")
                batch.resend.append(False)
                continue
            batch.subjects.append(message.subject)
            batch.resend.append(message.msg_id is not None)
            self._put(batch, index, subject, header, message.payload)
        return self._written(batch)

    def publish_raw(self, messages: Sequence[Raw]) -> Answers[Result]:
        """The same for messages with headers made by the caller."""
        batch = self._start(len(messages))
        limit = self._client.max_payload
        for index, message in enumerate(messages):
            batch.subjects.append(message.subject)
            batch.resend.append(message.resend)
            try:
                subject = literal_subject(message.subject)
                size = len(message.header) + len(message.payload)
                if size > limit:
                    raise PayloadTooLarge(size, limit)
            except NexusError as error:
                self._settle(batch, index, error)
                continue
            self._put(batch, index, subject, message.header, message.payload)
        return self._written(batch)

    async def drain(self, timeout: float) -> None:
        """Wait until everything has its result, or until the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for batch in list(self._batches.values()):
                    await batch.answers

    def close(self) -> None:
        """Whatever has no result yet gets `ClosedError`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()
        for batch in list(self._batches.values()):
            for index in batch.open():
                self._settle(batch, index, ClosedError("the transport was closed before the server answered"))

    # --- sending ----------------------------------------------------------------------------------

    def _start(self, size: int) -> _Batch:
        if self._closed:
            raise ClosedError("the transport is closed")
        batch = _Batch(self._next, size, Answers(), self._loop.time())
        self._next += size
        if size:
            self._batches[batch.first] = batch
        else:
            batch.answers.settle([])
        return batch

    def _put(self, batch: _Batch, index: int, subject: bytes, header: bytes, payload: bytes) -> None:
        token = batch.first + index
        frame = publish_frame(subject, b"%b%d" % (self._reply, token), header, payload)
        self._waiting[token] = batch
        batch.frames[index] = frame
        self._client.write(frame)

    def _written(self, batch: _Batch) -> Answers[Result]:
        if batch.left:
            if self._client.live:
                batch.sent = self._loop.time()
                self._client.push()
            if self._timer is None:
                self._timer = self._loop.call_later(_TICK, self._tick)
        return batch.answers

    def _send_again(self, batch: _Batch, indexes: Iterable[int]) -> None:
        for index in indexes:
            frame = batch.frames[index]
            if frame is not None:
                self._client.write(frame)

    # --- answers ----------------------------------------------------------------------------------

    def _answers(self, deliveries: list[Delivery]) -> None:
        cut = self._cut
        waiting = self._waiting
        decode = self._decode
        for subject, _, headers, payload in deliveries:
            token = int(subject[cut:])
            batch = waiting.get(token)
            if batch is None:
                continue  # The answer to a second copy.
            index = token - batch.first
            if headers is not None or b'"error"' in payload:
                self._not_stored(batch, index, headers, payload)
                continue
            try:
                result = decode(payload)
            except msgspec.DecodeError:
                self._settle(batch, index, Refused(f"the answer is not JetStream's: {payload[:200]!r}"))
                continue
            del waiting[token]
            # `settle`, unrolled: this is once per message.
            batch.results[index] = result
            batch.frames[index] = None
            batch.left -= 1
            if not batch.left:
                self._finish(batch)

    def _settle(self, batch: _Batch, index: int, result: Result) -> None:
        self._waiting.pop(batch.first + index, None)
        if batch.settle(index, result):
            self._finish(batch)

    def _finish(self, batch: _Batch) -> None:
        self._batches.pop(batch.first, None)
        try:
            batch.answers.settle(cast("list[Result]", batch.results))
        except ClosedError:
            logger.debug("a callback went on publishing while the transport was being closed")
        except Exception:
            # Its callback broke its word not to raise; the answers to others must not suffer.
            logger.exception("a callback of a bulk publish failed")

    def _not_stored(self, batch: _Batch, index: int, headers: bytes | None, payload: bytes) -> None:
        status, description = status_of(headers)
        subject = batch.subjects[index]
        if status == 503:
            # No stream listens: there is none, or (for a moment) it has no leader or the server is just starting.
            self._try_again(batch, index, Unavailable(f"publish to {subject}: its stream has no leader"))
            if subject not in self._looked_up and self._loop.time() - batch.since > _LOOK_UP_AFTER:
                self._spawn(self._look_up(subject))
            return
        if status:
            self._settle(batch, index, Refused(f"publish to {subject}: {status} {description}"))
            return
        try:
            answer = msgspec.json.decode(payload)
            if answer.get("error") is None:  # The word was in the stream's name.
                self._settle(batch, index, self._decode(payload))
                return
        except (msgspec.DecodeError, AttributeError):
            self._settle(batch, index, Refused(f"the answer is not JetStream's: {payload[:200]!r}"))
            return
        refusal = ServerRefusal(answer["error"], f"publish to {subject}")
        if refusal.code == MESSAGE_TOO_LARGE:
            self._spawn(self._too_large(batch, index, str(answer.get("stream", ""))))
        elif refusal.transient or (refusal.full and self._loop.time() - batch.since < FULL_PATIENCE):
            self._try_again(batch, index, refusal.mapped())
        else:
            self._settle(batch, index, refusal.mapped())

    def _try_again(self, batch: _Batch, index: int, error: NexusError) -> None:
        batch.again.add(index)
        batch.errors[index] = error

    async def _too_large(self, batch: _Batch, index: int, stream: str) -> None:
        frame = batch.frames[index]
        if frame is None:
            return
        _, _, body = frame.partition(b"\r\n")
        size = len(body) - 2
        try:
            limit = await self._size_limit(stream)
        except NexusError:
            limit = self._client.max_payload
        self._settle(batch, index, PayloadTooLarge(size, limit, f"message for stream {stream}"))

    async def _look_up(self, subject: str) -> None:
        """Whether a stream takes this subject at all: if not, trying again is no use."""
        self._looked_up.add(subject)
        try:
            if await self._has_stream(subject):
                return
        except NexusError:
            return
        finally:
            self._looked_up.discard(subject)
        for batch in list(self._batches.values()):
            for index in sorted(batch.again):
                if batch.subjects[index] == subject:
                    batch.again.discard(index)
                    self._settle(batch, index, Refused(f"publish to {subject}: no stream takes this subject"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- time and connection ----------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        for batch in list(self._batches.values()):
            again, batch.again = batch.again, set()
            if now - batch.since >= LASTING:
                for index in batch.open():
                    self._settle(batch, index, batch.errors.get(index) or self._silence(batch, index))
            elif not self._client.live:
                batch.again = again
            elif batch.sent and now - batch.sent >= SILENCE:
                self._resend_open(batch, now, again)
            elif again:
                self._send_again(batch, sorted(again))
        if self._batches and self._timer is None:  # A callback may have published, and set it.
            self._timer = self._loop.call_later(_TICK, self._tick)

    def _resend_open(self, batch: _Batch, now: float, refused: set[int]) -> None:
        batch.sent = now
        for index in batch.open():
            if batch.resend[index] or index in refused:
                self._send_again(batch, (index,))
            else:
                self._settle(batch, index, self._silence(batch, index))

    def _silence(self, batch: _Batch, index: int) -> NexusError:
        why = "no answer" if self._client.live else "no connection to the server"
        return Unavailable(f"publish to {batch.subjects[index]}: {why}; it may or may not be stored")

    def _on_down(self) -> None:
        for batch in list(self._batches.values()):
            if not batch.sent:
                continue
            for index in batch.open():
                if not batch.resend[index] and index not in batch.again:
                    self._settle(batch, index, self._silence(batch, index))
            batch.sent = 0.0  # What is left may go out on the next connection.

    def _on_up(self) -> None:
        now = self._loop.time()
        for batch in list(self._batches.values()):
            if not batch.sent:  # Otherwise it was written to this connection already.
                batch.sent = now
                batch.again.clear()
                self._send_again(batch, batch.open())

    def _on_violation(self, text: str) -> None:
        found = _VIOLATION.search(text)
        if found is None:
            return
        for batch in list(self._batches.values()):
            for index in batch.open():
                if batch.subjects[index] == found[1]:
                    self._settle(batch, index, PermissionDenied(f"publish to {found[1]}: these credentials may not"))
