"""Notes that nobody takes away go by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gbe_jobs_domain.payloads import TaskNote
from gbe_nexus import StateStore
from gbe_nexus_memory import connect
from gbe_operative import notes
from gbe_operative.notes import Noted, Notes


@pytest.fixture
async def store() -> AsyncIterator[StateStore]:
    transport = await connect("memory://")
    yield await transport.state_store("notes")
    await transport.close()


async def test_a_note_has_an_end(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the first and those after it: the server may bring either of them back."""
    lives: list[float] = []
    create, swap = store.create, store.swap

    async def noting_create(key: str, value: bytes, *, ttl: float = 0) -> int:
        lives.append(ttl)
        return await create(key, value, ttl=ttl)

    async def noting_swap(key: str, value: bytes, revision: int, *, ttl: float = 0) -> int:
        lives.append(ttl)
        return await swap(key, value, revision, ttl=ttl)

    monkeypatch.setattr(store, "create", noting_create)
    monkeypatch.setattr(store, "swap", noting_swap)
    kept = Notes(store)
    first = await kept.write("task_1_0", Noted(), TaskNote(failed=1))
    second = await kept.write("task_1_0", first, TaskNote(failed=2))
    assert lives == [notes.LIFE, notes.LIFE]
    assert await kept.read("task_1_0") == second
    await kept.remove("task_1_0")
    assert await kept.read("task_1_0") == Noted()
