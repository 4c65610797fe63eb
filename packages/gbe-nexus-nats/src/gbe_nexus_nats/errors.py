"""What the server's refusals mean in the words of the contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gbe_nexus.errors import (
    Conflict,
    NexusError,
    NotFound,
    Refused,
    StreamConflict,
    StreamFull,
    Unavailable,
    UnsuitableServer,
)

WRONG_LAST_SEQUENCE = 10071
WRONG_LAST_SEQUENCE_CONSTANT = 10164
"""On a cluster: another append with the same expectation is still under way."""
MESSAGE_TOO_LARGE = 10054
STORE_FAILED = 10077
NO_MESSAGE = 10037
NO_SEQUENCE = 10043
CONSUMER_NOT_FOUND = 10014
STREAM_NOT_FOUND = 10059
STREAM_NAME_IN_USE = 10058
SUBJECTS_OVERLAP = 10065

CONFLICTS = frozenset({WRONG_LAST_SEQUENCE, WRONG_LAST_SEQUENCE_CONSTANT})
CONSUMER_EXISTS = frozenset({10013, 10105, 10148})
"""A consumer of that name is there with other settings."""

_JETSTREAM_OFF = frozenset({10039, 10076})
_RESOURCES = frozenset({10002, 10023, 10028, 10047})
# Elections, a server on its way up, a duplicate of a message that is still being stored: gone a moment later.
_TRANSIENT = frozenset({10004, 10005, 10007, 10008, 10009, 10041, 10158})
_LAST_SEQUENCE = re.compile(r"wrong last sequence: (\d+)")
_FULL = re.compile(r"maximum|exceeded|insufficient|no space", re.IGNORECASE)


class ServerRefusal(Exception):
    """An answer `{"error": {...}}`, with what the contract makes of it."""

    def __init__(self, error: Mapping[str, Any], context: str) -> None:
        self.status = int(error.get("code", 0))
        self.code = int(error.get("err_code", 0))
        self.description = str(error.get("description", "no description"))
        super().__init__(f"{context}: {self.description} ({self.code or self.status})")

    @property
    def transient(self) -> bool:
        """Whether the same request is likely to succeed in a moment."""
        if self.code in _JETSTREAM_OFF or self.code in _RESOURCES:
            return False
        if self.code == STORE_FAILED:
            return not self.full
        return self.code in _TRANSIENT or self.status == 503

    @property
    def full(self) -> bool:
        """Whether a limit of the stream or of its host is reached."""
        return self.code in _RESOURCES or (self.code == STORE_FAILED and bool(_FULL.search(self.description)))

    def mapped(self) -> NexusError:
        """The contract's error."""
        text = str(self)
        if self.code in CONFLICTS:
            found = _LAST_SEQUENCE.search(self.description)
            return Conflict(text, int(found[1]) if found else None)
        if self.code in (NO_MESSAGE, NO_SEQUENCE, CONSUMER_NOT_FOUND, STREAM_NOT_FOUND) or self.status == 404:
            return NotFound(text)
        if self.code in (STREAM_NAME_IN_USE, SUBJECTS_OVERLAP):
            return StreamConflict(text)
        if self.code in _JETSTREAM_OFF:
            return UnsuitableServer(text)
        if self.full:
            return StreamFull(text)
        if self.transient:
            return Unavailable(text)
        return Refused(text)
