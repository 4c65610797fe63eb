"""What an HTTP answer says about another attempt. For the Operatives that talk HTTP, whatever client they use."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LATER = frozenset({408, 425, 429})
"""Request timeout, too early, too many requests: the client's errors that time heals."""

NEVER = frozenset({501, 505})
"""Not implemented, HTTP version not supported: the server's errors that it does not heal."""

_LONGEST = 12
"""Digits of a number of seconds; more are no time anybody means."""


def worth_another(status: int) -> bool:
    """Whether a request that was answered so may succeed later, unchanged (RFC 9110, 15.5 and 15.6; RFC 6585, 4;
    RFC 8470, 5.2)."""
    return status in LATER or (status >= 500 and status not in NEVER)


def retry_after(text: str | None, now: datetime | None = None) -> float:
    """The seconds that a `Retry-After` asks for, in either of its forms (RFC 9110, 10.2.3); 0 where it makes no sense.

    `now` has a time zone; None = the present.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:_LONGEST])
    try:
        when = parsedate_to_datetime(text)
        if when.tzinfo is None:  # "-0000": UTC, without saying where it was sent from
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
