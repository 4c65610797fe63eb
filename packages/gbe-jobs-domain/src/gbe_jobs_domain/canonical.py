"""The canonical form of a definition: the JSON that travels in a submit."""

from __future__ import annotations

from typing import Any

import msgspec

from gbe_jobs_domain import dag
from gbe_jobs_domain.data_schemas import MAX_SCHEMA_BYTES, SchemaProblem, schema_problems
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.errors import DefinitionError, DefinitionErrors, path_text

_SOURCE = "definition"

_decode = msgspec.json.Decoder(JobDefinition).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def encode_definition(definition: JobDefinition) -> bytes:
    """Canonical JSON: defaults left out, the keys of mappings sorted.

    Equal definitions have equal bytes, as long as seconds are floats, which they are in everything that was loaded.
    """
    return _encode(definition)


def decode_definition(data: bytes) -> JobDefinition:
    """The definition in canonical JSON, checked.

    Raises `DefinitionErrors` (without lines: nobody wrote these bytes by hand).
    """
    try:
        definition = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DefinitionErrors([DefinitionError(_SOURCE, 0, 0, "", str(error))]) from None
    check_definition(definition)
    return definition


def check_definition(definition: JobDefinition) -> None:
    """Check what the types don't say: version, name, graph and schemas.

    Raises `DefinitionErrors`.
    """
    errors: list[DefinitionError] = []
    if definition.v != 1:
        errors.append(DefinitionError(_SOURCE, 0, 0, "v", f"expected 1, the only version there is, not {definition.v}"))
    if problem := dag.job_name_problem(definition.name):
        errors.append(DefinitionError(_SOURCE, 0, 0, "name", problem))
    for name, message, hint in dag.output_problems(definition.output, definition.tasks):
        errors.append(DefinitionError(_SOURCE, 0, 0, f"output.{name}".rstrip("."), message, hint))
    if not dag.is_valid(definition.tasks):
        for found in dag.check(definition.tasks):
            path = ("tasks", found.index, *found.path) if found.index >= 0 else ("tasks",)
            errors.append(DefinitionError(_SOURCE, 0, 0, path_text(path), found.message, found.hint))
    for index, task in enumerate(definition.tasks):
        for key, schema in (("input_schema", task.input_schema), ("output_schema", task.output_schema)):
            for wrong in () if schema is None else _schema_problems(schema):
                place = path_text(("tasks", index, key, *wrong.path))
                errors.append(DefinitionError(_SOURCE, 0, 0, place, wrong.message, wrong.hint))
    if errors:
        raise DefinitionErrors(errors)


def _schema_problems(schema: dict[str, Any]) -> list[SchemaProblem]:
    if (size := len(_encode(schema))) > MAX_SCHEMA_BYTES:
        return [SchemaProblem((), f"a schema of {size:,} bytes, the limit is {MAX_SCHEMA_BYTES:,}")]
    return schema_problems(schema)
