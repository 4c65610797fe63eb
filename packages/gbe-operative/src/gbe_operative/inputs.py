"""The part of resolving params that needs the artifact store."""

from __future__ import annotations

from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.payloads import TaskQueued
from gbe_jobs_domain.subjects import artifact_key
from gbe_nexus import Artifact, ArtifactStore, IntegrityError, NotFound, PayloadTooLarge
from gbe_operative.core.inputs import (
    TEXT,
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
            case Open(param, reference, key, path):
                if key not in fetched:
                    ref = ref_of(await _there(artifacts, param, key))
                    data = await _read(artifacts, ref, reference, limit)
                    # A text is what the field would have been, had it been short enough: a string.
                    is_text = ref.media_type.startswith("text/")
                    fetched[key] = (
                        data.decode("utf-8", "replace") if is_text else value_of(data, ref.media_type, reference)
                    )
                take(inputs, task.job_id, param, fetched[key], path, reference)
            case Present(param, reference, ref):
                value = await _plain_text(artifacts, ref, reference, limit)
                if value is None:
                    _refer(inputs, param, ref)
                else:
                    give(inputs, task.job_id, param, value)
            case LookUp(param, key):
                _refer(inputs, param, ref_of(await _there(artifacts, param, key)))
            case Store(param, content, media_type):
                key = artifact_key(task.job_id, task.task_id, "inputs", param)
                _refer(inputs, param, ref_of(await artifacts.put(key, content, media_type=media_type)))
        inputs.errands.pop(0)


async def _there(artifacts: ArtifactStore, param: str, key: str) -> Artifact:
    artifact = await artifacts.info(key)
    if artifact is None:
        raise InputError(f"param {param!r}: there is no artifact {key!r}")
    return artifact


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


async def _read(artifacts: ArtifactStore, ref: Ref, reference: str, limit: int) -> bytes:
    if ref.size > limit:
        raise InputError(
            f"input {reference!r}: {ref.size} bytes are too large to open (limit {limit} bytes); "
            "take it by reference, with a param whose name ends in _ref"
        )
    try:
        return await artifacts.read(ref.key, limit=limit)
    except (NotFound, IntegrityError, PayloadTooLarge) as error:
        raise InputError(f"input {reference!r}: {error}") from error
