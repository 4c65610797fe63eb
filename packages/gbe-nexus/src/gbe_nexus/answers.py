"""`Answers`: the results of a bulk call, under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

T = TypeVar("T")


class Answers(Generic[T]):
    """One result per message of the call, in order, as soon as the last one is there.

    Awaitable any number of times. `then` is for the hot path: its callback runs at the very moment the last result
    arrives (within the reading of the socket), so that what follows from it leaves in the same write.
    """

    __slots__ = ("_callback", "_future", "_results")

    def __init__(self) -> None:
        self._results: list[T] | None = None
        self._callback: Callable[[list[T]], None] | None = None
        self._future: asyncio.Future[None] | None = None

    @property
    def done(self) -> bool:
        """Whether all results are there."""
        return self._results is not None

    def then(self, callback: Callable[[list[T]], None]) -> None:
        """Call `callback` with the results when they are there (now, if they are). At most one; must not raise."""
        if self._results is not None:
            callback(self._results)
        else:
            self._callback = callback

    def settle(self, results: list[T]) -> None:
        """The results are there. For implementations, once."""
        self._results = results
        if self._callback is not None:
            self._callback(results)
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[object, None, list[T]]:
        while self._results is None:
            if self._future is None or self._future.done():
                self._future = asyncio.get_running_loop().create_future()
            # Shielded, since several may wait and one of them may be cancelled.
            yield from asyncio.shield(self._future).__await__()
        return self._results
