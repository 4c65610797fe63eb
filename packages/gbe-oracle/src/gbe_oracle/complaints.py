"""Warnings that an outage would repeat for each job."""

from __future__ import annotations

import logging
import time

log = logging.getLogger("gbe.oracle")

INTERVAL = 5.0
"""Seconds between two warnings of one kind; those between are counted."""


class Complaints:
    """Says each kind of warning once in a while."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._withheld: dict[str, int] = {}

    def say(self, text: str, *args: object) -> None:
        """Log the warning, or count it where its kind (`text`, unformatted) was logged just now."""
        now = time.monotonic()
        if now - self._last.get(text, -INTERVAL) < INTERVAL:
            self._withheld[text] = self._withheld.get(text, 0) + 1
            return
        self._last[text] = now
        withheld = self._withheld.pop(text, 0)
        if withheld:
            log.warning(text + " (and %d more like this)", *args, withheld)
        else:
            log.warning(text, *args)
