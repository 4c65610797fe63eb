"""What is exported of a run: the bundle that its Operative left, else what this service knows itself.

A session whose Operative died, or that did not a single tick, leaves no bundle. Its export then has the run, its log,
and its inputs, from which `gbe-aether run` computes the same again; `manifest.json` says that it is no bundle, and why.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE
from gbe_jobs_domain.ids import task_id
from gbe_nexus import NexusError, NotFound, Unavailable
from gbe_operative_aether import wire
from gbe_overseer.client import JobClient
from gbe_overseer.errors import OverseerError
from trinity_gate.errors import unavailable
from trinity_gate.models import RunDetail

FORMAT: Final = "trinity-gate-export/1"

CHUNK: Final = 256 * 1024
MAX_DOCUMENTS: Final = 64 << 20

_definition = msgspec.json.Decoder(JobDefinition)


@dataclass(frozen=True, slots=True)
class Export:
    """A zip: its bytes, and how many they are."""

    chunks: AsyncIterator[bytes]
    size: int


async def bundle(client: JobClient, job_id: str) -> Export | None:
    """The bundle that the Operative left, None where there is none. Raises 503."""
    key = wire.bundle_key(job_id, task_id(job_id, 0))
    try:
        store = await client.transport.artifact_store(ARTIFACT_STORE)
        found = await store.info(key)
    except Unavailable as error:
        raise unavailable("bus_unavailable", f"the export can't be read now: {error}") from error
    return None if found is None else Export(store.get(key), found.size)


async def inputs(client: JobClient, job_id: str) -> bytes | None:
    """The session's documents as one JSON object, as long as the bus has the job's definition."""
    try:
        summary = await client.summary(job_id)
        if summary is None:
            return None
        body = (
            await client.fetch(summary.definition_ref) if summary.definition_ref else bytes(summary.definition or b"")
        )
        params = {name: str(value) for name, value in _definition.decode(body).tasks[0].params.items()}
        documents = wire.documents_in(params)
        if documents is not None:
            return wire.encode_documents(documents)
        store = await client.transport.artifact_store(ARTIFACT_STORE)
        return await store.read(wire.documents_key(job_id), limit=MAX_DOCUMENTS)
    except (NotFound, NexusError, OverseerError, msgspec.DecodeError, ValueError, IndexError):
        return None


async def written(folder: Path, detail: RunDetail, documents: bytes | None, log: Iterable[bytes]) -> Export:
    """An export of what is known here. The file is gone when it was read."""
    path = folder / f"export-{os.urandom(6).hex()}.zip"
    try:
        await asyncio.to_thread(_write, path, detail, documents, log)
        size = (await asyncio.to_thread(path.stat)).st_size
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Export(_read(path), size)


def _write(path: Path, detail: RunDetail, documents: bytes | None, log: Iterable[bytes]) -> None:
    members: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:

        def add(name: str, pieces: Iterable[bytes]) -> None:
            hasher, size = hashlib.sha256(), 0
            with archive.open(name, "w", force_zip64=True) as member:
                for piece in pieces:
                    hasher.update(piece)
                    size += len(piece)
                    member.write(piece)
            members[name] = {"sha256": hasher.hexdigest(), "size": size}

        add("run.json", [detail.model_dump_json(indent=2).encode()])
        if documents is not None:
            add("inputs.json", [documents])
        add("logs.jsonl", _lines(log))
        about = {
            "format": FORMAT,
            "run_id": detail.run.run_id,
            "status": detail.run.state,
            "why": "the session left no bundle; its inputs give the same results again",
            "members": members,
        }
        archive.writestr("manifest.json", json.dumps(about, indent=2))


def _lines(log: Iterable[bytes]) -> Iterator[bytes]:
    for line in log:
        yield line + b"\n"


async def _read(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        path.unlink()
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
