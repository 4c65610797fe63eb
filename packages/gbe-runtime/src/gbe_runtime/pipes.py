"""The two inherited pipes between a supervisor and its children: "I am ready", and "I am still here"."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

log = logging.getLogger(__name__)


def take_descriptor(variable: str) -> int | None:
    """The inherited descriptor that an environment variable names, None where there is none.

    Taken: neither the variable nor the descriptor reaches the processes that this one starts.
    """
    text = os.environ.pop(variable, "")
    if not text:
        return None
    try:
        descriptor = int(text)
        if descriptor <= 2:
            raise ValueError("the standard streams serve something else")
        os.set_inheritable(descriptor, False)
    except (ValueError, OSError) as error:
        log.warning("%s=%r is ignored: %s", variable, text, error)
        return None
    return descriptor


def announce_ready(descriptor: int | None) -> None:
    """Tell whoever waits for it that the role runs."""
    if descriptor is None:
        return
    with contextlib.suppress(OSError):  # nobody waits any more
        os.write(descriptor, b"ready\n")
    with contextlib.suppress(OSError):
        os.close(descriptor)


class ParentPipe:
    """Calls `gone` when the parent process is gone: the kernel closed its end of the pipe."""

    def __init__(self, descriptor: int | None, gone: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._gone = gone

    def __enter__(self) -> None:
        if self._descriptor is None:
            return
        try:
            os.set_blocking(self._descriptor, False)
            asyncio.get_running_loop().add_reader(self._descriptor, self._readable)
        except OSError as error:  # a regular file, say
            log.warning("GBE_PARENT_FD is ignored: %s", error)
            self._close()

    def __exit__(self, *exc: object) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._close()

    def _readable(self) -> None:
        assert self._descriptor is not None
        try:
            if os.read(self._descriptor, 4096):
                return  # nothing is said through this pipe; only its end counts
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("reading GBE_PARENT_FD: %s", error)
        asyncio.get_running_loop().remove_reader(self._descriptor)
        log.warning("the process that supervises this one is gone: stopping")
        self._gone()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
