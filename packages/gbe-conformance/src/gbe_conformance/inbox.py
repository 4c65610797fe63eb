"""`Inbox`: a handler that collects, and what a test may expect of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gbe_nexus import Message


class Inbox:
    """Collects messages. Each `expect` takes the next ones, so a test reads as the story it tells.

    `ack`: acknowledge each on arrival. `each`: called with each, for anything else.
    """

    def __init__(self, *, ack: bool = False, each: Callable[[Message], None] | None = None) -> None:
        self.messages: list[Message] = []
        self.times: list[float] = []
        """When each of `messages` came, by the loop's clock."""
        self._ack = ack
        self._each = each
        self._taken = 0
        self._news = asyncio.Event()

    def __call__(self, messages: Sequence[Message]) -> None:
        """The handler."""
        assert messages, "a handler is never called with nothing"
        now = asyncio.get_running_loop().time()
        for message in messages:
            self.messages.append(message)
            self.times.append(now)
            if self._ack:
                message.ack()
            if self._each is not None:
                self._each(message)
        self._news.set()

    @property
    def payloads(self) -> list[bytes]:
        """The payloads of all messages so far."""
        return [message.payload for message in self.messages]

    async def expect(self, count: int, within: float = 5.0) -> list[Message]:
        """The next `count` messages, waiting for them; more may have come."""
        try:
            async with asyncio.timeout(within):
                while len(self.messages) < self._taken + count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            got = self.payloads[self._taken :]
            raise AssertionError(f"{len(got)} of {count} messages within {within:g} s: {got[:10]}") from None
        taken = self.messages[self._taken : self._taken + count]
        self._taken += count
        return taken

    async def expect_payloads(self, *payloads: bytes, within: float = 5.0) -> list[Message]:
        """The next messages have exactly these payloads, in this order."""
        messages = await self.expect(len(payloads), within)
        assert [message.payload for message in messages] == list(payloads)
        return messages

    async def expect_nothing(self, during: float) -> None:
        """No message beyond those already taken, and none that comes within the time."""
        self._news.clear()
        if len(self.messages) == self._taken:
            try:
                async with asyncio.timeout(during):
                    await self._news.wait()
            except TimeoutError:
                return
        raise AssertionError(f"expected no message, got {self.messages[self._taken :]}")


async def until(holds: Callable[[], Awaitable[bool]], within: float = 5.0) -> None:
    """Wait until something holds that can only be asked for."""
    deadline = asyncio.get_running_loop().time() + within
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, f"did not come to hold within {within:g} s"
        await asyncio.sleep(0.01)
