"""The outcome of a session that was stopped: it comes a little later than the stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gbe_jobs_domain.edges import ARTIFACT_STORE
from gbe_nexus import connect
from gbe_nexus.artifacts import ArtifactStore
from gbe_operative_aether import wire
from trinity_gate.outcomes import left_outcome

OUTCOME = wire.Outcome(
    wire.SessionResult.CANCELLED, 1, 8, wire.SessionReport(wire.SessionState.FINISHING, tick=1, ticks_total=8)
)


class Slow:
    """A store in which something happens between a read's looking and its answer."""

    def __init__(self, store: ArtifactStore, meanwhile: Any) -> None:
        self._store = store
        self._meanwhile = [meanwhile]

    async def read(self, key: str, *, limit: int) -> bytes:
        try:
            return await self._store.read(key, limit=limit)
        finally:
            while self._meanwhile:
                await self._meanwhile.pop()()


@pytest.mark.parametrize("writes", [True, False])
async def test_a_session_that_ends_while_it_is_looked_for(writes: bool) -> None:
    bus = await connect("memory://")
    store: Any = await bus.artifact_store(ARTIFACT_STORE)
    ended = asyncio.Event()

    async def end() -> None:
        if writes:
            await store.put("outcome", wire.encode_outcome(OUTCOME))
        ended.set()

    found = await left_outcome(Slow(store, end), "outcome", ended, wait=60.0)  # type: ignore[arg-type]  # it only reads
    assert found == (OUTCOME if writes else None)
    await bus.close()


async def test_nothing_is_waited_for_where_nothing_can_come() -> None:
    bus = await connect("memory://")
    store = await bus.artifact_store(ARTIFACT_STORE)
    over = asyncio.Event()
    over.set()
    assert await left_outcome(store, "outcome", over, wait=60.0) is None
    assert await left_outcome(store, "outcome", asyncio.Event(), wait=0.0) is None
    await bus.close()
