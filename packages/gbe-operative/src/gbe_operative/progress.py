"""What an attempt says while it runs: hints on `gbe.tasks.{task_type}.progress`, bounded per second."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from gbe_jobs_domain import subjects
from gbe_jobs_domain.payloads import ProgressKind, TaskProgress, TaskQueued, encode
from gbe_nexus import NexusError, Transport, encode_payload, now_ms
from gbe_operative.core.limiter import BYTES_PER_SECOND, LineBuffer, ProgressLimiter
from gbe_operative.core.masking import Masker

FLUSH_EVERY = 0.1
KEPT_MESSAGES = 10
"""Messages said before the first moment is over; later ones are counted as omitted."""


class OutputReporter:
    """Takes the lines that an attempt writes (`gbe_envoy.adapter.OnLine`)."""

    __slots__ = ("_progress", "skip")

    def __init__(self, progress: AttemptProgress) -> None:
        self._progress = progress
        self.skip = progress.skip

    def __call__(self, stream: str, line: bytes) -> None:
        self._progress.line(stream, line)


class AttemptProgress:
    """One attempt's. Silent until `go_live`: a task that ends within a moment publishes nothing."""

    def __init__(
        self, transport: Transport, worker: str, task: TaskQueued, attempt: int, masker: Masker | None
    ) -> None:
        self._transport = transport
        self._worker = worker
        self._task = task
        self._attempt = attempt
        self._masker = masker
        self._limiter = ProgressLimiter()
        self._buffers = {"stdout": LineBuffer("stdout")}
        self._in_pieces: set[str] = set()
        self._waiting: list[TaskProgress] = []
        self._omitted = 0
        self._live = False
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0

    def say(self, kind: ProgressKind, message: str, lines: Sequence[str], stream: str, data: object) -> None:
        """One message, or output lines, which are collected."""
        if self._ended:
            return
        for line in lines:
            buffer = self._buffers.get(stream) or self._buffers.setdefault(stream, LineBuffer(stream))
            buffer.add(self._clean(line))
        if message or data is not None or not lines:
            raw = None if data is None else msgspec.Raw(self._clean_bytes(encode(data)))
            if len(self._waiting) >= KEPT_MESSAGES or (raw is not None and len(raw) > BYTES_PER_SECOND // 2):
                self._omitted += 1
            else:
                self._waiting.append(self._message(kind, message=self._clean(message)[:4096], data=raw))
        if self._live and self._timer is None:
            self._flush()

    def line(self, stream: str, line: bytes) -> None:
        """One line of output. There may be millions, of which hardly any are sent."""
        buffer = self._buffers.get(stream) or self._buffers.setdefault(stream, LineBuffer(stream))
        if buffer.full:
            buffer.omitted += 1
            return
        if self._ended:
            return
        text = self._clean(line.decode("utf-8", "replace"))
        if self._masker is not None:  # very long lines come in pieces
            if stream in self._in_pieces:
                text = self._masker.excerpt(text)
                self._in_pieces.discard(stream)
            if len(line) > BYTES_PER_SECOND // 2:
                self._in_pieces.add(stream)
        buffer.add(text)
        if self._live and self._timer is None:
            self._flush()

    def skip(self, stream: str, lines: int) -> bool:
        """Whether none of so many lines would be taken; they are counted as omitted, then."""
        buffer = self._buffers.get(stream)
        if buffer is None or not buffer.full:
            return False
        buffer.omitted += lines
        return True

    def go_live(self, started_at: int) -> None:
        """The moment is over and the attempt still runs, since `started_at` (epoch milliseconds)."""
        if not self._live and not self._ended:
            self._live = True
            self._send(msgspec.structs.replace(self._message(ProgressKind.STARTED), at=started_at))
            self._flush()

    def end(self) -> None:
        """Nothing more follows; what waits is sent as far as there is room."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._live and not self._ended:
            self._send_waiting()
        self._ended = True

    def _flush(self) -> None:
        self._timer = None
        self._send_waiting()
        # Also after a silent flush there is a pause, so that a steady trickle of lines makes few messages.
        loop = asyncio.get_running_loop()
        if self._waiting or any(buffer.lines or buffer.omitted for buffer in self._buffers.values()):
            self._timer = loop.call_later(FLUSH_EVERY, self._flush)
        else:
            self._timer = loop.call_later(FLUSH_EVERY, self._rest)

    def _rest(self) -> None:
        self._timer = None
        if self._waiting or any(buffer.lines for buffer in self._buffers.values()):
            self._flush()

    def _send_waiting(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._waiting and self._limiter.room(now) > 0:
            message = self._waiting.pop(0)
            if self._omitted:
                message, self._omitted = msgspec.structs.replace(message, omitted=self._omitted), 0
            self._send(message)
        for buffer in self._buffers.values():
            if (buffer.lines or buffer.omitted) and self._limiter.room(now) > BYTES_PER_SECOND // 2:
                lines, omitted = buffer.take()
                self._send(self._message(ProgressKind.OUTPUT, stream=buffer.stream, lines=lines, omitted=omitted))

    def _message(
        self,
        kind: ProgressKind,
        *,
        message: str = "",
        lines: list[str] | None = None,
        stream: str = "stdout",
        omitted: int = 0,
        data: msgspec.Raw | None = None,
    ) -> TaskProgress:
        task = self._task
        return TaskProgress(
            task_id=task.task_id,
            job_id=task.job_id,
            task_name=task.task_name,
            attempt=self._attempt,
            kind=kind,
            worker=self._worker,
            stream=stream,
            lines=lines or [],
            omitted=omitted,
            message=message,
            data=data,
            at=now_ms(),
        )

    def _send(self, message: TaskProgress) -> None:
        self._count += 1
        event_id = f"{self._task.task_id}:{self._attempt}:progress:{self._count}"
        body = encode_payload(event_id, message)
        self._limiter.spend(asyncio.get_running_loop().time(), len(body))
        hint(self._transport, self._task.task_type, body)

    def _clean(self, text: str) -> str:
        return text if self._masker is None else self._masker.text(text)

    def _clean_bytes(self, data: bytes) -> bytes:
        return data if self._masker is None else self._masker.raw(data)


def hint(transport: Transport, task_type: str, body: bytes) -> None:
    """Publish progress. Losing it harms nobody."""
    try:
        transport.hint(subjects.progress(task_type), body)
    except NexusError:
        return


def retry_message(worker: str, task: TaskQueued, attempt: int, text: str) -> bytes:
    """The announcement of another attempt."""
    message = TaskProgress(
        task_id=task.task_id,
        job_id=task.job_id,
        task_name=task.task_name,
        attempt=attempt,
        kind=ProgressKind.RETRY,
        worker=worker,
        message=text,
        at=now_ms(),
    )
    return encode_payload(f"{task.task_id}:{attempt}:retry", message)
