"""Errors in what a transport calls back."""

from __future__ import annotations

import logging
from types import TracebackType

from gbe_nexus import ClosedError
from gbe_oracle.sending import Spawn

log = logging.getLogger("gbe.oracle")


class Loudly:
    """For what a transport calls back: there an error would be logged and its commit never end. Better the role
    fails, and whoever runs next heals what is missing."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        if error is None:
            return False
        if isinstance(error, ClosedError):
            log.debug("the bus was closed in the middle of it: %s", error)
            return True
        if isinstance(error, Exception):
            self._spawn(_raise(error))
            return True
        return False


async def _raise(error: Exception) -> None:
    raise error
