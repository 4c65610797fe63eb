"""Where the params of a task come from: static ones, secrets, and `input_from`.

What needs the artifact store is planned here and done by `gbe_operative.inputs`.

A reference is `task` or `task.path`: split at the first dot; the path's parts are keys or array indices. Strings go in
raw, other values as compact JSON. A param whose name ends in `_ref` gets a reference (`store://bucket/key`): of an edge
that is a reference, that; of a string that is a `store://` URI, that; of any other value, one to a copy that is stored
first. A field and the same name with `_ref` are two forms of one value, of which data has whichever suits its size:
`fetch.body_ref` is a reference to a stored copy where there is only `body`, and `fetch.body.items.0` opens what
`body_ref` refers to where there is only that.

What is stored of an array of lines is text (what `stdin_ref` is used for most: `ls` into `sort`), of a string
itself, of anything else JSON. An inline value that became a reference on its way, for its size, is opened and stored
like that too: what a command reads does not depend on how much it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from gbe_jobs_domain import paths
from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline, Ref
from gbe_jobs_domain.ids import JOB_ID
from gbe_jobs_domain.payloads import SecretRef, TaskQueued

SCHEME = "store://"
REF = "_ref"
JSON = paths.JSON
TEXT = "text/plain"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class InputError(ValueError):
    """The params can't be made; the text names the param or the reference. Another attempt would not help."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """The value at `path` in what `ref` refers to (the whole where the path is empty)."""

    param: str
    reference: str
    ref: Ref
    path: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """The param gets that reference, if what it refers to is still what was handed on."""

    param: str
    reference: str
    ref: Ref


@dataclass(frozen=True, slots=True)
class Store:
    """Store the content and give the param the reference."""

    param: str
    content: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class LookUp:
    """The param refers to the artifact with that key: it must be there. `owner`: the other job whose it is, which must
    be a child of this one."""

    param: str
    key: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Open:
    """The value at `path` in the artifact with that key, which a field of the data refers to."""

    param: str
    reference: str
    key: str
    path: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """The param gets a reference to the value in `ref`, as a command would like to read it."""

    param: str
    reference: str
    ref: Ref


Errand = Fetch | Confirm | Store | LookUp | Open | Present


@dataclass(slots=True)
class Inputs:
    """Params as far as they are made, and what is left to do for the others.

    `values`: what came along edges, as the values they were there, where somebody wants to check them.
    """

    params: dict[str, str]
    refs: dict[str, Ref] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    errands: list[Errand] = field(default_factory=list)
    values: dict[str, Any] | None = None


def plan_inputs(task: TaskQueued, secret: Callable[[str], str | None]) -> Inputs:
    """All params that can be made at once, and the errands for the others. Raises `InputError`."""
    params: dict[str, str] = {}
    inputs = Inputs(params, values={} if declared(task.input_schema) else None)
    references = task.input_from
    for name, value in task.params.items():
        if name in references:
            continue
        if isinstance(value, SecretRef):
            revealed = secret(value.secret)
            if revealed is None:
                raise InputError(f"param {name!r}: this Operative has no secret {value.secret!r}")
            params[name] = revealed
            inputs.secrets.append(revealed)
        elif name.endswith(REF) and value.startswith(SCHEME):
            inputs.errands.append(LookUp(name, own_key(name, value, task.job_id)))
        else:
            params[name] = value
    if references:
        _plan_references(task, inputs)
    return inputs


def _plan_references(task: TaskQueued, inputs: Inputs) -> None:
    decoded: dict[str, Any] = {}
    for param, reference in task.input_from.items():
        upstream, _, path = reference.partition(".")
        edge = task.inputs.get(upstream)
        if edge is None:
            raise InputError(f"param {param!r}: {reference!r}: task {upstream!r} has no data")
        if isinstance(edge, Ref):
            if edge.store != ARTIFACT_STORE:
                raise InputError(f"param {param!r}: {reference!r}: no artifact store {edge.store!r}")
            if param.endswith(REF) and not path:
                if edge.media_type == JSON:
                    inputs.errands.append(Present(param, reference, edge))
                else:
                    inputs.errands.append(Confirm(param, reference, edge))
            else:
                inputs.errands.append(Fetch(param, reference, edge, path))
            continue
        if upstream not in decoded:
            decoded[upstream] = _decode_edge(edge, reference)
        take(inputs, task.job_id, param, decoded[upstream], path, reference)


def take(inputs: Inputs, job_id: str, param: str, value: Any, path: str, reference: str) -> None:
    """Make the param of what is at `path` of the value, in either form. Raises `InputError`."""
    wants_ref = param.endswith(REF)
    parts = path.split(".") if path else []
    for index, name in enumerate(parts):
        part, rest = name, parts[index + 1 :]
        if isinstance(value, dict) and part not in value:
            uri = value.get(part + REF)
            if isinstance(uri, str) and uri.startswith(SCHEME):
                if rest or not wants_ref:
                    key, owner = _key_and_owner(param, uri, job_id)
                    inputs.errands.append(Open(param, reference, key, ".".join(rest), owner))
                    return
                part += REF
            elif wants_ref and not rest and part.endswith(REF) and part.removesuffix(REF) in value:
                part = part.removesuffix(REF)
        value = _step(value, part, reference)
    give(inputs, job_id, param, value)


def give(inputs: Inputs, job_id: str, param: str, value: Any) -> None:
    """Make the param of a value, or plan the errand that makes it."""
    if param.endswith(REF) and isinstance(value, str) and value.startswith(SCHEME):
        inputs.errands.append(LookUp(param, *_key_and_owner(param, value, job_id)))
        return
    if inputs.values is not None:
        inputs.values[param] = value
    if param.endswith(REF):
        inputs.errands.append(Store(param, *content_of(value)))
    else:
        inputs.params[param] = text_of(value)


def declared(schema: Raw | None) -> bytes | None:
    """A schema that a task declares."""
    return None if schema is None or bytes(schema) == b"null" else bytes(schema)


def _key_and_owner(param: str, uri: str, job_id: str) -> tuple[str, str]:
    """The key in a URI that came along an edge, and the other job it belongs to, if any: one that this job ran as a
    molecule hands references on."""
    owner = uri[len(SCHEME) :].removeprefix(ARTIFACT_STORE + "/").partition("/")[0]
    if owner == job_id or not JOB_ID.match(owner):
        return own_key(param, uri, job_id), ""
    return own_key(param, uri, owner), owner


def own_key(param: str, uri: str, job_id: str) -> str:
    """The key in a `store://bucket/key` that somebody wrote, if this job may read it. Raises `InputError`."""
    bucket, _, key = uri[len(SCHEME) :].partition("/")
    if bucket != ARTIFACT_STORE:
        raise InputError(f"param {param!r}: {SCHEME} reaches only {SCHEME}{ARTIFACT_STORE}/, not {uri!r}")
    if not key.startswith(job_id + "/") or ".." in key.split("/"):
        raise InputError(f"param {param!r}: {uri!r} is not of this job (keys start with {job_id}/)")
    return key


def _step(value: Any, part: str, reference: str) -> Any:
    try:
        return paths.step(value, part)
    except paths.PathError as error:
        raise InputError(f"input {reference!r}: {error}") from None


def text_of(value: Any) -> str:
    """A string as it is, anything else as compact JSON."""
    return value if isinstance(value, str) else _encode(value).decode()


def content_of(value: Any) -> tuple[bytes, str]:
    """What is stored of a value, and its media type."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace"), TEXT
    if isinstance(value, list) and value and all(isinstance(item, str) and "\n" not in item for item in value):
        return "".join(f"{item}\n" for item in value).encode("utf-8", "replace"), TEXT
    return _encode(value), JSON


def value_of(data: bytes, media_type: str, reference: str) -> Any:
    """The value an artifact holds: JSON, or the lines of a text. Raises `InputError`."""
    try:
        return paths.opened(data, media_type)
    except paths.PathError as error:
        raise InputError(f"input {reference!r}: {error}") from error


def _decode_edge(edge: Inline, reference: str) -> Any:
    try:
        return _decode(edge.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"input {reference!r}: the data is not JSON: {error}") from error
