"""What a molecule hands on: its `output`, or the map of all results by task name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from gbe_jobs_domain.definitions import Output, output_references
from gbe_jobs_domain.edges import EdgeData, Inline, Ref, inline
from gbe_jobs_domain.paths import PathError, walk

REF = "_ref"

_encode = msgspec.json.Encoder().encode


class ToBeRead(Exception):
    """The output has a path into something in the artifact store."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(ref.uri)
        self.ref = ref


class NoSuchOutput(ValueError):
    """The output refers to what isn't there; the text names the reference."""


def handed_on(
    output: Output, names: Iterable[str], edges: Mapping[str, EdgeData], read: Mapping[str, object]
) -> EdgeData:
    """The data of the task that a molecule is. `names`: of its tasks, `edges`: what those that have data hand on.

    A whole result that is a reference stays one where it is the only output; in a mapping it is under its name with
    `_ref`, as a `store://` URI, so that `input_from` opens it where it is named without.
    `read`: what is in artifacts that the output has paths into, by key; a `PathError` for one that can't be read.
    Raises `ToBeRead` for one that is not among them, and `NoSuchOutput`.
    """
    if output is None:
        values: dict[str, object] = {}
        for name in names:
            _put(values, name, edges.get(name))
        return Inline(msgspec.Raw(_encode(values)))
    found: dict[str, object] = {}
    for name, reference in output_references(output).items():
        task, _, path = reference.partition(".")
        edge = edges.get(task)
        try:
            if edge is None:
                raise PathError(f"step {task!r} has no data")
            if isinstance(edge, Inline):
                found[name] = walk(edge.decoded(), path)
            elif path:
                found[name] = walk(_opened(edge, read), path)
            elif isinstance(output, str):
                return edge
            else:
                _put(found, name, edge)
        except PathError as error:
            raise NoSuchOutput(f"output {reference!r}: {error}") from None
    return inline(found[""] if isinstance(output, str) else found)


def _put(values: dict[str, object], name: str, edge: EdgeData | None) -> None:
    """A whole result under its name."""
    if isinstance(edge, Ref):
        values[name + REF] = edge.uri
    else:
        values[name] = None if edge is None else edge.value


def _opened(ref: Ref, read: Mapping[str, object]) -> object:
    if ref.key not in read:
        raise ToBeRead(ref)
    value = read[ref.key]
    if isinstance(value, PathError):
        raise value
    return value
