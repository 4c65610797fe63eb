"""`MoleculeRegistry`: molecules that are kept under a name, in versions.

A bucket of the state store: `name/{name}` is the index of one molecule, `document/{sha256}` a document. A version never
changes; the same bytes are the same version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from gbe_jobs_domain import subjects
from gbe_jobs_domain.documents import load_document
from gbe_jobs_domain.molecules import (
    MoleculeIndex,
    MoleculeVersion,
    TooManyVersions,
    document_key,
    index_key,
    parse_reference,
    references,
    registered,
)
from gbe_nexus import Conflict, StateStore, Transport, now_ms
from gbe_overseer.errors import OverseerError

TRIES = 20
"""Writers of one molecule at the same time whom one meets at most."""

_index = msgspec.json.Decoder(MoleculeIndex).decode


class RegistryError(OverseerError):
    """What the registry can't do; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a molecule. `existed`: these bytes had it before."""

    name: str
    version: MoleculeVersion
    existed: bool = False

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version.version}"


class MoleculeRegistry:
    """The molecules of one bus."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    @classmethod
    async def on(cls, transport: Transport) -> MoleculeRegistry:
        """The registry of that bus; made where there is none."""
        return cls(await transport.state_store(subjects.MOLECULES_BUCKET))

    async def put(self, name: str, text: bytes, title: str = "") -> Registered:
        """Keep a document as the latest version of a molecule. Raises `RegistryError`."""
        parsed = parse_reference(name)
        if parsed is None or parsed[1]:
            raise RegistryError(f"{name!r} is no name for a molecule: 1 to 64 of letters, digits, '-' and '_'")
        sha256 = hashlib.sha256(text).hexdigest()
        await self._store.put(document_key(sha256), text)
        for _ in range(TRIES):
            entry = await self._store.get(index_key(name))
            before = MoleculeIndex() if entry is None else _decoded(entry.value, name)
            try:
                after = registered(before, sha256, len(text), title, now_ms())
            except TooManyVersions as error:
                raise RegistryError(f"{name}: {error}") from None
            version = after.find()
            assert version is not None
            await self._refuse_a_circle(f"{name}@{version.version}", name, text)
            if after == before:
                return Registered(name, version, existed=True)
            value = msgspec.json.encode(after)
            try:
                if entry is None:
                    await self._store.create(index_key(name), value)
                else:
                    await self._store.swap(index_key(name), value, entry.revision)
            except Conflict:
                continue
            return Registered(name, version, existed=len(after.versions) == len(before.versions))
        raise RegistryError(f"{name}: too many others write it at this moment; try again")

    async def list(self) -> dict[str, MoleculeIndex]:
        """All molecules by name."""
        found: dict[str, MoleculeIndex] = {}
        prefix = index_key("")
        for key in await self._store.keys(prefix):
            entry = await self._store.get(key)
            if entry is not None:
                name = key.removeprefix(prefix)
                found[name] = _decoded(entry.value, name)
        return found

    async def index(self, name: str) -> MoleculeIndex:
        """The versions of one. Raises `RegistryError` where there is none."""
        entry = await self._store.get(index_key(name)) if parse_reference(name) == (name, 0) else None
        if entry is None:
            raise RegistryError(f"no molecule {name!r} is registered")
        return _decoded(entry.value, name)

    async def show(self, reference: str) -> tuple[Registered, bytes]:
        """A version and its document. Raises `RegistryError`."""
        parsed = parse_reference(reference)
        if parsed is None:
            raise RegistryError(f"{reference!r}: a registered molecule is 'name' or 'name@version'")
        name, number = parsed
        index = await self.index(name)
        version = index.find(number)
        if version is None:
            raise RegistryError(f"no molecule {reference} is registered; the latest is {name}@{index.latest}")
        document = await self._store.get(document_key(version.sha256))
        if document is None or hashlib.sha256(document.value).hexdigest() != version.sha256:
            raise RegistryError(f"the document of {name}@{version.version} is missing or damaged; put it again")
        return Registered(name, version), document.value

    async def _refuse_a_circle(self, reference: str, name: str, text: bytes) -> None:
        """Whether the molecule leads back to itself, by what is registered now."""
        ways: list[tuple[bytes, tuple[str, ...]]] = [(text, (reference,))]
        seen = {reference}
        while ways:
            document, way = ways.pop()
            for named in references(load_document(document, source=way[-1]).definition):
                found = reference
                if named != name:
                    try:
                        version, document_there = await self.show(named)
                    except RegistryError:
                        continue  # it may come later
                    found = version.reference
                if found == reference:
                    raise RegistryError("cyclic molecules: " + " → ".join((*way, reference)))
                if found not in seen:
                    seen.add(found)
                    ways.append((document_there, (*way, found)))


def _decoded(value: bytes, name: str) -> MoleculeIndex:
    try:
        return _index(value)
    except msgspec.DecodeError as error:
        raise RegistryError(f"the registry's entry for {name!r} can't be read: {error}") from error
