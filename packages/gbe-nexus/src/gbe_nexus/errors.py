"""Every error the Nexus contracts raise, under one root.

`retryable` tells a caller whether the same call may succeed later without a change of its arguments.
"""

from __future__ import annotations


class NexusError(Exception):
    """Root of the transport's and the stores' errors."""

    retryable = False


class Unavailable(NexusError):
    """The server did not answer in time or is not reachable: the outcome of the call is unknown."""

    retryable = True


class Refused(NexusError):
    """The server answered with a refusal that sending the same again will not change."""


class PermissionDenied(Refused):
    """The credentials in use may not do this, or were not accepted at all."""


class UnsuitableServer(Refused):
    """The server can't carry an ecumene: JetStream is off, or its version is too old."""


class ClosedError(NexusError):
    """The transport or store was closed."""


class PayloadTooLarge(Refused):
    """A message is larger than the server takes. Sizes in bytes, encoded."""

    def __init__(self, size: int, limit: int, what: str = "payload") -> None:
        super().__init__(f"{what} too large: {size} bytes, the limit is {limit}")
        self.size = size
        self.limit = limit


class StreamFull(NexusError):
    """A stream with `discard: new` has reached a limit; room appears when its messages are consumed.

    An implementation may try again for about a second before it says so.
    """

    retryable = True


class StreamConflict(Refused):
    """A stream or bucket of that name exists with settings that differ in a way that matters."""


class NotFound(NexusError):
    """No stream, key, artifact or entry of that name."""


class Conflict(NexusError):
    """Compare-and-swap missed: somebody else wrote first.

    `current` is the last revision or sequence where the implementation knows it.
    """

    def __init__(self, message: str, current: int | None = None) -> None:
        super().__init__(message)
        self.current = current


class IntegrityError(NexusError):
    """Stored bytes do not match their digest."""


class UnknownTransport(NexusError):
    """No installed distributable serves this URL scheme, or the one that does is broken."""
