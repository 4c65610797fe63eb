"""What is exported of a run: the bundle that its Operative left, else what this service knows itself.

A session whose Operative died, or that did not a single tick, leaves no bundle. Its export then has the run, its log,
and its inputs, from which `gbe-aether run` computes the same again (`inputs/run_config.json`); `manifest.json` says
that it is not a bundle, why, and how.
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
from typing import Any, BinaryIO, Final

import msgspec

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.ids import task_id
from gbe_nexus import NexusError, NotFound, Unavailable
from gbe_operative_aether import wire
from gbe_overseer.client import JobClient
from gbe_overseer.errors import OverseerError
from trinity_gate.errors import unavailable
from trinity_gate.files import encode_document
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


@dataclass(frozen=True, slots=True)
class Definition:
    """A job's definition where the bus keeps it: as it is, or as a reference."""

    body: msgspec.Raw | None
    ref: Ref | None


async def documents_of(client: JobClient, job_id: str, definition: Definition) -> tuple[str, bytes]:
    """The job's name, and its session's documents as one JSON object.

    Raises `NexusError`, `OverseerError`, `msgspec.DecodeError`, `ValueError`, `IndexError`.
    """
    body = await client.fetch(definition.ref) if definition.ref else bytes(definition.body or b"")
    found = _definition.decode(body)
    documents = wire.documents_in({name: str(value) for name, value in found.tasks[0].params.items()})
    if documents is not None:
        return found.name, wire.encode_documents(documents)
    store = await client.transport.artifact_store(ARTIFACT_STORE)
    return found.name, await store.read(wire.documents_key(job_id), limit=MAX_DOCUMENTS)


async def inputs(client: JobClient, job_id: str) -> bytes | None:
    """The session's documents as one JSON object, as long as the bus has the job's definition."""
    try:
        summary = await client.summary(job_id)
        if summary is None:
            return None
        return (await documents_of(client, job_id, Definition(summary.definition, summary.definition_ref)))[1]
    except (NotFound, NexusError, OverseerError, msgspec.DecodeError, ValueError, IndexError):
        return None


async def written(folder: Path, detail: RunDetail, documents: bytes | None, log: Iterable[bytes]) -> Export:
    """An export of what is known here. Its file has no name any more: it is gone however the reading ends."""
    path = folder / f"export-{os.urandom(6).hex()}.zip"
    try:
        await asyncio.to_thread(_write, path, detail, documents, log)
        file = await asyncio.to_thread(path.open, "rb")
    finally:
        path.unlink(missing_ok=True)
    return Export(_read(file), os.fstat(file.fileno()).st_size)


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
            for name, text in _files_of(documents).items():
                add(f"inputs/{name}", [text])
        add("logs.jsonl", _lines(log))
        about = {
            "format": FORMAT,
            "run_id": detail.run.run_id,
            "status": detail.run.state,
            "why": _why(detail),
            "again": _again(detail, documents),
            "log": detail.log.model_dump(),
            "members": members,
        }
        archive.writestr("manifest.json", json.dumps(about, indent=2))


def _files_of(documents: bytes) -> dict[str, bytes]:
    """The inputs as `gbe-aether run` takes them: a run config, and the documents that it names, beside it."""
    found = json.loads(documents)
    run_config = {key: value for key, value in found["run_config"].items() if not key.endswith("_path")}
    texts: dict[str, bytes] = {}
    for name in ("topology", "profile", "pfna"):
        if found.get(name) is not None:
            run_config[f"{name}_path"] = f"{name}.json"
            texts[f"{name}.json"] = encode_document(found[name])
    return {"run_config.json": encode_document(run_config), **texts}


def _why(detail: RunDetail) -> str:
    run = detail.run
    if run.state == "completed":
        return "the bundle that the session left is no longer kept"
    done = f"after {run.ticks_completed} of {run.ticks_total} ticks"
    if run.state == "fault":
        return f"the run failed {done} and left no bundle: {run.fault_reason}"
    return f"the run was stopped {done}, before its results could be made: {run.stop_reason}"


def _again(detail: RunDetail, documents: bytes | None) -> str:
    run = detail.run
    if documents is None:
        return "its inputs are no longer kept"
    ticks = f" --ticks {run.ticks_completed}" if run.state != "completed" and run.ticks_completed else ""
    return f"gbe-aether run inputs/run_config.json{ticks} --export again.zip"


def _lines(log: Iterable[bytes]) -> Iterator[bytes]:
    for line in log:
        yield line + b"\n"


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
