"""JSON Schemas that a task declares for its data: `output_schema`, `input_schema`.

Whether a schema is one, and within the limits, and whether a value matches it. Nothing is ever fetched: references go
to places within the schema itself. What is hostile may still take for ever to match (a pattern that backtracks,
references that double): whoever matches values does so where it can be ended.

`jsonschema` (the extra `schemas`) is imported by the first use, since most processes never see a schema.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gbe_jobs_domain.errors import PathPart, quoted
from gbe_jobs_domain.suggestions import Suggester

MAX_SCHEMA_BYTES: Final = 64 * 1024
"""Of one schema, as the JSON that travels."""
MAX_SCHEMAS: Final = 1_000
"""Different ones in one job."""
MAX_PATTERN: Final = 1_000
"""Characters of a regular expression."""
MAX_PROBLEMS: Final = 20
"""Told of one schema."""
MAX_MESSAGE: Final = 300
"""Characters of what is wrong with a value: it may quote all of it."""

DIALECTS: Final = {
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
}
"""What `$schema` may be; without it, it is the first of these."""

_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
# The values of these are data, whatever keys they have; of those, names of our own choice.
_DATA: Final = frozenset({"const", "default", "enum", "examples"})
_NAMES: Final = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """What is wrong with a schema, at `path` within it."""

    path: tuple[PathPart, ...]
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with a value. `path` as JSONPath has it: `$.items[3].price`; `keyword`: what of the schema."""

    path: str
    message: str
    keyword: str = ""

    def __str__(self) -> str:
        return f"at {self.path}: {self.message}"


class InvalidSchema(ValueError):
    """It is no schema; the text says the first reason, and where."""


class UnboundedSchema(ValueError):
    """It refers to itself without end."""


def schema_problems(schema: Schema) -> list[SchemaProblem]:
    """Everything that is wrong with a schema; nothing for one that can be used."""
    dialect = schema.get("$schema", next(iter(DIALECTS)))
    if not isinstance(dialect, str) or dialect.removesuffix("#") not in DIALECTS:
        return [
            SchemaProblem(
                ("$schema",), f"{_shown(dialect)} is not known here", f"expected one of {', '.join(DIALECTS)}"
            )
        ]
    found = [*_structural(schema, dialect), *_beyond_the_structure(schema)]
    return list(dict.fromkeys(found))[:MAX_PROBLEMS]


class Matcher:
    """A schema, ready to look at values. Raises `InvalidSchema`."""

    def __init__(self, schema: Schema) -> None:
        if problems := schema_problems(schema):
            first = problems[0]
            raise InvalidSchema(f"at {pointer(first.path)}: {first.message}")
        from referencing import Registry

        # An empty registry that retrieves nothing: whatever the schema refers to is in it.
        dialect = schema.get("$schema", next(iter(DIALECTS)))
        self._validator = _validator_class(dialect)(schema, registry=Registry())

    def first_violation(self, value: Any) -> Violation | None:
        """The first thing that is wrong with the value; None where it matches. Raises `UnboundedSchema`."""
        try:
            error = next(self._validator.iter_errors(value), None)
            return (
                None
                if error is None
                else Violation(_short(error.json_path), _short(error.message), str(error.validator))
            )
        except RecursionError:
            raise UnboundedSchema("the schema refers to itself without end, or the data is nested too deeply") from None


def pointer(path: tuple[PathPart, ...]) -> str:
    """A place in a schema as a JSON Pointer (RFC 6901) in a fragment: `#/properties/price`."""
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _validator_class(dialect: str) -> Any:
    import jsonschema

    return getattr(jsonschema, DIALECTS[dialect.removesuffix("#")])


def _structural(schema: Schema, dialect: str) -> Iterator[SchemaProblem]:
    """What the dialect's own schema says."""
    validator = _validator_class(dialect)
    for count, error in enumerate(validator(validator.META_SCHEMA).iter_errors(schema)):
        if count >= 10 * MAX_PROBLEMS:  # the same one is told by each vocabulary
            return
        path = tuple(error.absolute_path)
        if path and path[-1] == "type" and error.validator == "anyOf":
            value = error.instance
            hint = Suggester().hint(value, _TYPES) if isinstance(value, str) else ""
            message = f"{_shown(value)} is not a type, or a list of different types"
            yield SchemaProblem(path, message, hint or f"types are {', '.join(_TYPES)}")
        else:
            yield SchemaProblem(path, _short(error.message))


def _beyond_the_structure(schema: Schema) -> Iterator[SchemaProblem]:
    """References, identifiers and regular expressions."""
    anchors: set[str] = set()
    references: list[tuple[tuple[PathPart, ...], str]] = []
    todo: list[tuple[Any, tuple[PathPart, ...], bool]] = [(schema, (), False)]
    while todo:
        value, path, names = todo.pop()
        if isinstance(value, list):
            todo += [(item, (*path, index), False) for index, item in enumerate(value)]
            continue
        if not isinstance(value, dict):
            continue
        for key, item in value.items():
            at = (*path, key)
            if names:
                todo.append((item, at, False))
            elif key in _REFERENCES and isinstance(item, str):
                references.append((at, item))
            elif key in ("$anchor", "$dynamicAnchor") and isinstance(item, str):
                anchors.add(item)
            elif key == "$id" and path:
                yield SchemaProblem(at, "a schema within a schema has no $id of its own here", "use $defs and $anchor")
            elif key == "pattern" and isinstance(item, str):
                yield from _pattern_problem(item, at)
            elif key not in _DATA:
                if key == "patternProperties" and isinstance(item, dict):
                    for pattern in item:
                        yield from _pattern_problem(pattern, (*at, pattern))
                todo.append((item, at, key in _NAMES))
    for at, reference in references:
        if not reference.startswith("#"):
            message = f"{quoted(reference)} is outside of the schema, and nothing is fetched"
            yield SchemaProblem(at, message, "copy it into $defs and refer to '#/$defs/…'")
        elif not _leads_somewhere(schema, reference[1:], anchors):
            yield SchemaProblem(at, f"{quoted(reference)} leads nowhere in this schema")


def _pattern_problem(pattern: str, path: tuple[PathPart, ...]) -> Iterator[SchemaProblem]:
    if len(pattern) > MAX_PATTERN:
        yield SchemaProblem(path, f"a pattern has at most {MAX_PATTERN:,} characters, this one has {len(pattern):,}")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        yield SchemaProblem(path, f"{quoted(pattern)} is no regular expression: {error}")


def _leads_somewhere(schema: Schema, fragment: str, anchors: set[str]) -> bool:
    if not fragment.startswith("/"):
        return not fragment or fragment in anchors
    from urllib.parse import unquote

    value: Any = schema
    for part in unquote(fragment[1:]).split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False
    return isinstance(value, dict | bool)


def _shown(value: object) -> str:
    return quoted(value) if isinstance(value, str) else _short(repr(value))


def _short(text: str) -> str:
    if len(text) <= MAX_MESSAGE:
        return text
    half = MAX_MESSAGE // 2 - 2
    return f"{text[:half]} … {text[-half:]}"
