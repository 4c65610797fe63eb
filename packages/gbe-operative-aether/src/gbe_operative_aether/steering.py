"""What is asked of a session from outside, as the process that runs it hears it between two ticks."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import BinaryIO

from gbe_operative_aether.frames import LENGTH, MAX_FRAME, Begin, decode_request


class Steering:
    """Reads requests in a thread of its own and keeps them until the session has time for them.

    When there are no more requests to come, the worker is gone, and the process ends at once, wherever it is: nobody
    would take its answers.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._sessions: deque[Begin] = deque()
        self._paused = False
        self._steps = 0
        self._cancelled = False

    def listen(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._listen, name="steering", daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
                if length > MAX_FRAME:
                    os._exit(2)
                self._take(decode_request(self._exactly(length)))
        finally:
            os._exit(0)

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            os._exit(0)
        return data

    def _take(self, request: object) -> None:
        with self._changed:
            if isinstance(request, Begin):
                # What was asked of the session before came too late for it, and is none of this one's business.
                self._paused, self._steps, self._cancelled = request.paused, 0, False
                self._sessions.append(request)
            else:
                kind = getattr(request, "kind", "")
                if kind == "cancel":
                    self._cancelled = True
                elif kind == "pause":
                    self._paused = True
                elif kind == "resume":
                    self._paused, self._steps = False, 0
                elif kind == "step" and self._paused:
                    self._steps += 1
            self._changed.notify()

    def next_session(self) -> Begin:
        """Wait for the next one."""
        with self._changed:
            while not self._sessions:
                self._changed.wait()
            return self._sessions.popleft()

    @property
    def cancelled(self) -> bool:
        """Whether the session is to end."""
        return self._cancelled

    @property
    def paused(self) -> bool:
        """Whether the session is to stand still."""
        return self._paused

    def take_step(self) -> bool:
        """Whether a paused session may do one tick; each step asked for is one."""
        with self._changed:
            if not self._steps:
                return False
            self._steps -= 1
            return True

    def wait(self, seconds: float) -> None:
        """Stand still until the session may go on, or is to end, or so long."""
        with self._changed:
            if self._paused and not self._steps and not self._cancelled:
                self._changed.wait(seconds)
