"""What an Operative wrote last of a session, waited for."""

from __future__ import annotations

import asyncio
from typing import Final

from gbe_nexus import NotFound
from gbe_nexus.artifacts import ArtifactStore
from gbe_operative_aether import wire

MAX_OUTCOME: Final = 4 << 20
LOOK_AGAIN: Final = 1.0
"""Seconds after which it is looked for again, since the word that the session ended may be lost."""


async def left_outcome(store: ArtifactStore, key: str, ended: asyncio.Event, wait: float) -> wire.Outcome | None:
    """The outcome under `key`; it may still come within `wait` seconds, until the Operative has `ended`. None where
    there is none. Raises NexusError, and msgspec.DecodeError where it is no outcome.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while True:
        # Looked at before reading: the Operative writes first and ends then, perhaps both while this reads.
        over = ended.is_set()
        try:
            return wire.decode_outcome(await store.read(key, limit=MAX_OUTCOME))
        except NotFound:
            left = until - loop.time()
            if left <= 0 or over:
                return None
        try:
            async with asyncio.timeout(min(left, LOOK_AGAIN)):
                await ended.wait()
        except TimeoutError:
            continue
