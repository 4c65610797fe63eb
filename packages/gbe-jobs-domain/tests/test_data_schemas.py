"""Schemas of data: in documents, in files, in the canonical form, and matched against values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gbe_jobs_domain.canonical import decode_definition, encode_definition
from gbe_jobs_domain.dag import check_outline
from gbe_jobs_domain.data_schemas import (
    MAX_MESSAGE,
    MAX_SCHEMA_BYTES,
    InvalidSchema,
    Matcher,
    UnboundedSchema,
    pointer,
    schema_problems,
)
from gbe_jobs_domain.definitions import JobDefinition, JobOutline, TaskDefinition
from gbe_jobs_domain.documents import DefinitionErrors, load_document, load_file

PRICES: dict[str, Any] = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/item"}}},
    "$defs": {"item": {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}},
}
YAML = """
name: shop
tasks:
  - name: fetch
    task_type: shell
    params: {command: cat order.json}
    output_schema:
      type: object
      properties:
        items: {type: array, items: {$ref: '#/$defs/item'}}
      $defs:
        item: {type: object, properties: {price: {type: number}}, required: [price]}
  - name: add
    task_type: shell
    depends_on: [fetch]
    input_from: {ITEMS: fetch.items}
    params: {command: sum}
    input_schema: {properties: {ITEMS: {minItems: 1}, command: {const: sum}}, maxProperties: 0x10}
"""


def task(**schemas: Any) -> str:
    return json.dumps({"name": "job", "tasks": [{"name": "a", "task_type": "shell", **schemas}]})


def complaints(text: str, **options: Any) -> list[str]:
    with pytest.raises(DefinitionErrors) as caught:
        load_document(text, source="job.json", **options)
    return [error.message for error in caught.value.errors]


def test_schemas_are_written_into_the_document() -> None:
    fetch, add = load_document(YAML, source="job.yaml").definition.tasks
    assert fetch.output_schema == PRICES
    assert fetch.input_schema is None
    assert add.input_schema == {
        "properties": {"ITEMS": {"minItems": 1}, "command": {"const": "sum"}},
        "maxProperties": 16,
    }


def test_the_canonical_form_carries_them_sorted() -> None:
    definition = load_document(YAML, source="job.yaml").definition
    encoded = encode_definition(definition)
    assert b'"output_schema":{"$defs":{"item":{"properties":' in encoded
    assert decode_definition(encoded) == definition


def test_json_gives_the_same_as_yaml() -> None:
    definition = load_document(YAML, source="job.yaml").definition
    tasks = msgspec.to_builtins(definition.tasks)
    assert load_document(json.dumps({"name": "shop", "tasks": tasks}), source="job.json").definition == definition


def test_a_schema_in_a_file_is_put_into_the_definition(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "order.json").write_text(json.dumps(PRICES, indent=4))
    (tmp_path / "schemas" / "one.yaml").write_text("# at least one\nminItems: 1\n")
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: shop\ntasks:\n"
        "  - {name: a, task_type: x, output_schema: schemas/order.json, input_schema: schemas/one.yaml}\n"
        "  - {name: b, task_type: x, output_schema: ./schemas/../schemas/order.json}\n"
    )
    first, second = load_file(job).tasks
    assert first.output_schema == second.output_schema == PRICES
    assert first.output_schema is second.output_schema, "read, checked and kept once"
    assert first.input_schema == {"minItems": 1}


def test_a_file_outside_of_the_folder_is_not_read_through_a_link_either(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"type": "object"}')
    inside = tmp_path / "jobs"
    inside.mkdir()
    (inside / "link.json").symlink_to(tmp_path / "secret.json")
    assert complaints(task(output_schema="link.json"), folder=inside) == [
        "'link.json' is not within the document's folder"
    ]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert complaints(task(output_schema="pipe"), folder=tmp_path) == ["'pipe' can't be read: it is no file"]


def test_a_schema_has_a_size(tmp_path: Path) -> None:
    large = {"const": "x" * MAX_SCHEMA_BYTES}
    says = f"a schema of {MAX_SCHEMA_BYTES + 12:,} bytes, the limit is 65,536"
    assert complaints(task(output_schema=large)) == [says]
    (tmp_path / "large.json").write_text(json.dumps(large))
    assert complaints(task(output_schema="large.json"), folder=tmp_path) == [says]
    (tmp_path / "larger.json").write_text(" " * 5 * MAX_SCHEMA_BYTES)
    assert complaints(task(output_schema="larger.json"), folder=tmp_path) == ["larger than 262,144 bytes"]


def test_a_file_named_often_makes_no_definition_without_end(tmp_path: Path) -> None:
    """A small document could name a large schema a hundred thousand times."""
    (tmp_path / "large.json").write_text(json.dumps({"const": "x" * 60_000}))
    tasks = [{"name": f"t{i}", "task_type": "x", "output_schema": "large.json"} for i in range(1_000)]
    found = complaints(json.dumps({"name": "job", "tasks": tasks}), folder=tmp_path, max_bytes=1 << 20)
    assert found[0] == "the schemas make the definition larger than 1,048,576 bytes"


def test_there_are_so_many_different_ones_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gbe_jobs_domain.schema_files.MAX_SCHEMAS", 3)
    tasks = [{"name": f"t{i}", "task_type": "x", "output_schema": {"const": i // 2}} for i in range(6)]
    load_document(json.dumps({"name": "job", "tasks": tasks}), source="job.json")
    tasks.append({"name": "z", "task_type": "x", "output_schema": {"const": 99}})
    assert complaints(json.dumps({"name": "job", "tasks": tasks})) == ["more than 3 different schemas in one job"]


def test_definitions_off_the_bus_are_checked_too() -> None:
    definition = JobDefinition("job", "job", [TaskDefinition("a", "x", output_schema={"type": "objct"})])
    with pytest.raises(DefinitionErrors, match=r"tasks\[0\]\.output_schema\.type: 'objct' is not a type"):
        decode_definition(encode_definition(definition))
    large = JobDefinition("job", "job", [TaskDefinition("a", "x", input_schema={"const": "x" * MAX_SCHEMA_BYTES})])
    with pytest.raises(DefinitionErrors, match="a schema of 65,548 bytes, the limit is 65,536"):
        decode_definition(encode_definition(large))


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (b"[]", "tasks[0].output_schema: expected a JSON Schema, which is an object"),
        (b'{"const":"' + b"x" * MAX_SCHEMA_BYTES + b'"}', "tasks[0].output_schema: a schema of 65,548 bytes"),
        (b'{"type":"objct"}', None),
    ],
)
def test_the_oracle_only_looks_at_the_outside(schema: bytes, says: str | None) -> None:
    body = b'{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","output_schema":%b}]}' % schema
    problem = check_outline(msgspec.json.decode(body, type=JobOutline))
    assert problem == says if says is None else (problem or "").startswith(says)


# --- within molecules ---


def molecule_in(folder: Path, **step: Any) -> Path:
    """A molecule in a folder of its own below the job's, with a schema beside it; returns the job's file."""
    (folder / "parts").mkdir()
    (folder / "parts" / "order.json").write_text(json.dumps(PRICES))
    steps = [{"name": "fetch", "operative": "shell", "params": {"command": "true"}, **step}]
    (folder / "parts" / "inner.yaml").write_text(json.dumps({"molecule": "inner", "steps": steps}))
    job = folder / "job.yaml"
    job.write_text("name: j\ntasks: [{name: m, task_type: molecule, params: {molecule_path: parts/inner.yaml}}]\n")
    return job


def test_a_molecule_takes_its_files_along(tmp_path: Path) -> None:
    """It runs where they are not; its own folder is where they are looked for."""
    (task_,) = load_file(molecule_in(tmp_path, output_schema="order.json")).tasks
    text = task_.params["molecule"]
    assert isinstance(text, str)
    (inner,) = load_document(text, source="sent").definition.tasks
    assert inner.output_schema == PRICES


def test_a_mistake_in_a_molecules_schema_has_its_place(tmp_path: Path) -> None:
    with pytest.raises(DefinitionErrors) as caught:
        load_file(molecule_in(tmp_path, output_schema={"type": "objct"}))
    assert "parts/inner.yaml:1:" in str(caught.value)
    assert "steps[0].output_schema.type: 'objct' is not a type" in str(caught.value)


@pytest.mark.parametrize(("mode", "allowed"), [(None, False), ("bus", False), ("local", True)])
def test_what_nobody_would_check_is_refused(mode: str | None, allowed: bool) -> None:
    """The end of a molecule on the bus is the Oracle's to report, and that opens no data."""
    inner = {"molecule": "m", "steps": [{"name": "a", "operative": "shell"}]}
    params = {"molecule": inner} if mode is None else {"molecule": inner, "mode": mode}
    tasks = [{"name": "m", "task_type": "molecule", "params": params, "output_schema": {"type": "object"}}]
    text = json.dumps({"name": "job", "tasks": tasks})
    if allowed:
        load_document(text, source="job.json")
    else:
        assert complaints(text) == [
            "the data of a molecule is put together when its last step is over, and not checked"
        ]


# --- what a schema may be ---


@pytest.mark.parametrize(
    "schema",
    [
        {},
        PRICES,
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.org/x", "$ref": "#"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#"},
        {"$defs": {"a b/c~d": {"$anchor": "here"}}, "anyOf": [{"$ref": "#here"}, {"$ref": "#/$defs/a%20b~1c~0d"}]},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"const": 1}, "$id": {}}},
        {"const": {"$ref": "http://example.org"}, "enum": [{"pattern": "("}], "default": {"$id": 1}},
        {"allOf": [{"$ref": "#/allOf/1"}, True]},
        {"x-unknown": {"anything": [1]}, "examples": [{"$ref": 3}]},
    ],
)
def test_these_are_schemas(schema: dict[str, Any]) -> None:
    assert schema_problems(schema) == []
    Matcher(schema)


def test_an_invalid_one_matches_nothing() -> None:
    with pytest.raises(InvalidSchema, match="at #/properties/a~1b/type: 'int' is not a type"):
        Matcher({"properties": {"a/b": {"type": "int"}}})
    assert pointer(("items", 3, "a~b")) == "#/items/3/a~0b"


def test_a_schema_with_a_hundred_mistakes_tells_some() -> None:
    assert len(schema_problems({"properties": {f"p{i}": {"type": "int"} for i in range(100)}})) == 20


# --- values ---


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        (PRICES, {"items": [{"price": 1}, {"price": 2.5}]}, None),
        (
            PRICES,
            {"items": [{"price": 1}, {"price": 2}, {"price": 3}, {"price": "abc"}]},
            "at $.items[3].price: 'abc' is not of type 'number'",
        ),
        (PRICES, {"items": [{}]}, "at $.items[0]: 'price' is a required property"),
        (PRICES, None, "at $: None is not of type 'object'"),
        ({"properties": {"a b": {"type": "string"}}}, {"a b": 1}, "at $['a b']: 1 is not of type 'string'"),
        ({"type": "integer"}, 3.0, None),
        ({"type": "string", "format": "date"}, "no date", None),
    ],
)
def test_the_first_violation(schema: dict[str, Any], value: Any, says: str | None) -> None:
    found = Matcher(schema).first_violation(value)
    assert (None if found is None else str(found)) == says


def test_a_violation_does_not_quote_a_megabyte() -> None:
    found = Matcher({"maxLength": 3}).first_violation("x" * 1_000_000)
    assert found is not None
    assert len(found.message) <= MAX_MESSAGE
    assert found.message.endswith("is too long")


def test_a_schema_that_goes_in_circles_ends() -> None:
    with pytest.raises(UnboundedSchema):
        Matcher({"$ref": "#"}).first_violation(1)


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the check for references away, there would still be nobody to fetch one."""
    monkeypatch.setattr("gbe_jobs_domain.data_schemas._beyond_the_structure", lambda schema: ())
    fetched: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *arguments, **options: fetched.append(arguments))
    monkeypatch.setattr("socket.socket.connect", lambda *arguments: fetched.append(arguments))
    matcher = Matcher({"$ref": "http://127.0.0.1:9/x.json"})
    with pytest.raises(Exception, match="Unresolvable"):
        matcher.first_violation(1)
    assert fetched == []


def test_documents_without_schemas_do_not_import_jsonschema() -> None:
    program = (
        "import sys; from gbe_jobs_domain.documents import load_document;"
        "load_document('name: j\\ntasks: [{name: a, task_type: x}]', source='x');"
        "sys.exit('jsonschema' in sys.modules or 'referencing' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
