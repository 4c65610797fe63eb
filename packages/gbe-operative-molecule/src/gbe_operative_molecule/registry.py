"""Reading registered molecules (`gbe molecule put` writes them)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from gbe_jobs_domain.molecules import MoleculeIndex, choice_key, document_key, index_key, parse_reference
from gbe_nexus import Conflict, StateStore

CHOICE_LIFE = 7 * 86_400.0
"""Seconds for which it is remembered which version a task runs, should its message be delivered once more."""

_index = msgspec.json.Decoder(MoleculeIndex).decode


class NotRegistered(LookupError):
    """There is no such molecule; the text says what there is."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered molecule: `name@version`, and its document."""

    reference: str
    text: bytes


class Registry:
    """The bucket of molecules."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def find(self, reference: str, child: str) -> Registered:
        """The molecule that a task refers to, whose work the job `child` is to be.

        What the latest version is, is decided once per child: a task that is delivered again goes on with what it
        began. Raises `NotRegistered`, and `NexusError`.
        """
        parsed = parse_reference(reference)
        if parsed is None:
            raise NotRegistered(f"{reference[:80]!r}: a registered molecule is 'name' or 'name@version'")
        name, version = parsed
        entry = await self._store.get(index_key(name))
        if entry is None:
            raise NotRegistered(f"no molecule {name!r} is registered; gbe molecule put FILE --name {name}")
        try:
            index = _index(entry.value)
        except msgspec.DecodeError as error:
            raise NotRegistered(f"the registry's entry for {name!r} can't be read: {error}") from error
        if not version:
            version = await self._chosen(child, index.latest)
        found = index.find(version)
        if found is None:
            raise NotRegistered(f"no molecule {name}@{version} is registered; the latest is {name}@{index.latest}")
        document = await self._store.get(document_key(found.sha256))
        if document is None or hashlib.sha256(document.value).hexdigest() != found.sha256:
            raise NotRegistered(f"the document of {name}@{version} is missing or damaged; put it again")
        return Registered(f"{name}@{version}", document.value)

    async def _chosen(self, child: str, latest: int) -> int:
        key = choice_key(child)
        try:
            await self._store.create(key, str(latest).encode(), ttl=CHOICE_LIFE)
        except Conflict:
            entry = await self._store.get(key)
            if entry is not None and entry.value.isdigit():
                return int(entry.value)
        return latest
