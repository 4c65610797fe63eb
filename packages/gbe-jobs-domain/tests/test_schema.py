"""The JSON Schemas, and that the repository's copies are current."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain import schema
from gbe_jobs_domain.keys import JOB, MOLECULE, RETRY_KEYS

PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol"


@pytest.mark.parametrize("name", sorted(schema.rendered()))
def test_docs_protocol_is_current(name: str) -> None:
    hint = "run: python -m gbe_jobs_domain.schema docs/protocol"
    assert (PROTOCOL / name).read_text(encoding="utf-8") == schema.rendered()[name], hint


def test_the_command_writes_them(tmp_path: Path) -> None:
    assert schema.main([str(tmp_path / "new" / "folder")]) == 0
    written = {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "new" / "folder").iterdir()}
    assert written == schema.rendered()
    assert schema.main([]) == 2


def test_the_document_schema_has_the_keys_of_both_forms() -> None:
    document = schema.job_document_schema()
    for form, variant, task in zip((JOB, MOLECULE), document["oneOf"], ("task", "step"), strict=True):
        assert set(variant["properties"]) == set(form.keys)
        assert set(document["$defs"][task]["properties"]) == set(form.task_keys)
        assert set(document["$defs"][task]["properties"]["retry"]["properties"]) == set(RETRY_KEYS)


def walk(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict) else []
    return found + [schema for item in inner for schema in walk(item)]


def test_the_document_schema_is_closed_and_explained() -> None:
    document = schema.job_document_schema()
    for part in walk(document):
        if part.get("type") == "object":
            assert "additionalProperties" in part
        for name, described in part.get("properties", {}).items():
            assert "description" in described or name in (*RETRY_KEYS, "secret")


@pytest.mark.parametrize("name", sorted(schema.rendered()))
def test_references_and_patterns_are_sound(name: str) -> None:
    document = json.loads(schema.rendered()[name])
    for part in walk(document):
        if "$ref" in part:
            assert part["$ref"] == "#" or part["$ref"].removeprefix("#/$defs/") in document["$defs"]
        if isinstance(part.get("pattern"), str):
            re.compile(part["pattern"])
