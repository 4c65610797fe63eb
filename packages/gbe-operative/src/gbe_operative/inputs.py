"""The part of resolving params that needs the artifact store."""

from __future__ import annotations

import hashlib

from msgspec import DecodeError, Raw, Struct, json

from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.paths import Text
from gbe_jobs_domain.payloads import TaskQueued
from gbe_jobs_domain.records import ParentRecord
from gbe_jobs_domain.subjects import artifact_key, parent_key
from gbe_nexus import Artifact, ArtifactStore, IntegrityError, NotFound, PayloadTooLarge
from gbe_operative.core.inputs import (
    TEXT,
    Confirm,
    Fetch,
    InputError,
    Inputs,
    LookUp,
    Open,
    Present,
    Store,
    content_of,
    give,
    take,
    value_of,
)

MAX_DEPTH = 64
"""Jobs within jobs that are followed; an Operative that nests molecules allows far fewer."""

_parent = json.Decoder(ParentRecord).decode


class _Properties(Struct):
    properties: dict[str, Raw] = {}


_properties = json.Decoder(_Properties)


def ref_of(artifact: Artifact, items: int | None = None) -> Ref:
    """A stored artifact as edge data."""
    return Ref(ARTIFACT_STORE, artifact.key, artifact.size, artifact.sha256, artifact.media_type, items)


async def run_errands(inputs: Inputs, task: TaskQueued, artifacts: ArtifactStore, limit: int) -> None:
    """Make the params that were left. Raises `InputError`, or a `NexusError` where asking again may help."""
    fetched: dict[str, object] = {}
    while inputs.errands:
        match inputs.errands[0]:
            case Fetch(param, reference, ref, path):
                if ref.key not in fetched:
                    fetched[ref.key] = value_of(
                        await _read(artifacts, ref, reference, limit), ref.media_type, reference
                    )
                take(inputs, task.job_id, param, fetched[ref.key], path, reference)
            case Open(param, reference, key, path, owner):
                if key not in fetched:
                    ref = ref_of(await _there(artifacts, param, key, owner, task.job_id))
                    fetched[key] = _field_of(await _read(artifacts, ref, reference, limit), ref, reference)
                take(inputs, task.job_id, param, fetched[key], path, reference)
            case Present(param, reference, ref):
                value = await _plain_text(artifacts, ref, reference, limit)
                if value is None:
                    await _confirm(artifacts, ref, reference)
                    _refer(inputs, param, ref)
                else:
                    give(inputs, task.job_id, param, value)
            case Confirm(param, reference, ref):
                await _confirm(artifacts, ref, reference)
                _refer(inputs, param, ref)
            case LookUp(param, key, owner):
                _refer(inputs, param, ref_of(await _there(artifacts, param, key, owner, task.job_id)))
            case Store(param, content, media_type):
                key = artifact_key(task.job_id, task.task_id, "inputs", param)
                _refer(inputs, param, ref_of(await artifacts.put(key, content, media_type=media_type)))
        inputs.errands.pop(0)


def _field_of(data: bytes, ref: Ref, reference: str) -> object:
    """What a field of some data would have been, had it been short enough: of a text, a string."""
    if ref.media_type.startswith("text/") or ref.media_type.endswith("charset=utf-8"):
        return Text(data.decode("utf-8", "replace"))
    return value_of(data, ref.media_type, reference)


async def _there(artifacts: ArtifactStore, param: str, key: str, owner: str, job_id: str) -> Artifact:
    if owner and not await _is_child(artifacts, owner, job_id):
        raise InputError(f"param {param!r}: {key!r} is not of this job, nor of one that it ran as a molecule")
    artifact = await artifacts.info(key)
    if artifact is None:
        raise InputError(f"param {param!r}: there is no artifact {key!r}")
    return artifact


async def _is_child(artifacts: ArtifactStore, job_id: str, of: str) -> bool:
    """Whether the job is a child of the other, or a child's child: of those that handed references on, it is known."""
    for _ in range(MAX_DEPTH):
        try:
            found = _parent(await artifacts.read(parent_key(job_id), limit=4096))
        except (NotFound, IntegrityError, PayloadTooLarge, DecodeError):
            return False
        job_id = found.job_id
        if job_id == of:
            return True
    return False


def _refer(inputs: Inputs, param: str, ref: Ref) -> None:
    inputs.params[param] = ref.uri
    inputs.refs[param] = ref


async def _plain_text(artifacts: ArtifactStore, ref: Ref, reference: str, limit: int) -> object | None:
    """The string or the lines that the JSON artifact is; None where it is something else, or too large to open."""
    if ref.size > limit:
        return None
    if ref.items is None:  # not known to be an array: its first byte tells whether it is a string
        first = b""
        async for chunk in artifacts.get(ref.key):
            first = chunk.lstrip()[:1]
            break
        if first != b'"':
            return None
    value = value_of(await _read(artifacts, ref, reference, limit), ref.media_type, reference)
    return value if content_of(value)[1] == TEXT else None


async def _confirm(artifacts: ArtifactStore, ref: Ref, reference: str) -> None:
    """See that an artifact is there, and is the one that was handed on: whoever reads it checks only its own digest."""
    found = await artifacts.info(ref.key)
    if found is None:
        raise InputError(f"input {reference!r}: there is no artifact {ref.uri} (any more)")
    if found.sha256 != ref.sha256:
        raise InputError(_another(ref, reference, found.sha256))


def _another(ref: Ref, reference: str, sha256: str) -> str:
    return (
        f"input {reference!r}: {ref.uri} is not what was handed on: "
        f"its sha256 is {sha256[:16]}…, that of what was handed on {ref.sha256[:16]}…"
    )


async def wanted_values(
    schema: bytes, inputs: Inputs, task: TaskQueued, artifacts: ArtifactStore, limit: int
) -> dict[str, object]:
    """The params as a schema sees them: strings, and what came along edges as the values they were there.

    A reference is opened where the schema's `properties` name its param, else it counts as itself. Raises `InputError`,
    or a `NexusError` where asking again may help.
    """
    values: dict[str, object] = {**inputs.params, **(inputs.values or {})}
    named = _named(schema)
    for param, reference in task.input_from.items():
        ref = inputs.refs.get(param)
        if ref is not None and param in named and param not in (inputs.values or {}):
            data = await _read(artifacts, ref, reference, limit)
            is_field = "." in reference
            values[param] = _field_of(data, ref, reference) if is_field else value_of(data, ref.media_type, reference)
    return values


def _named(schema: bytes) -> dict[str, Raw]:
    try:
        return _properties.decode(schema).properties
    except DecodeError:  # no schema, then; whoever checks with it says so
        return {}


async def _read(artifacts: ArtifactStore, ref: Ref, reference: str, limit: int) -> bytes:
    if ref.size > limit:
        raise InputError(
            f"input {reference!r}: {ref.size} bytes are too large to open (limit {limit} bytes); "
            "take it by reference, with a param whose name ends in _ref"
        )
    try:
        data = await artifacts.read(ref.key, limit=limit)
    except (NotFound, IntegrityError, PayloadTooLarge) as error:
        raise InputError(f"input {reference!r}: {error}") from error
    if (sha256 := hashlib.sha256(data).hexdigest()) != ref.sha256:
        raise InputError(_another(ref, reference, sha256))
    return data
