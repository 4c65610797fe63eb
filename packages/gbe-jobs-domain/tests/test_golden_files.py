"""What travels is pinned: a message of each kind, byte for byte."""

import json
from pathlib import Path

import msgspec
import pytest

from gbe_jobs_domain.payloads import TaskDispatch, TaskEndedOpaque, encode
from gbe_jobs_domain.schema import PAYLOADS, protocol_schemas

GOLDEN = Path(__file__).parent / "golden"
every_payload = pytest.mark.parametrize("name", sorted(PAYLOADS))


def test_there_is_one_of_each() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(PAYLOADS)


@every_payload
def test_what_is_read_is_written_again(name: str) -> None:
    data = (GOLDEN / f"{name}.json").read_bytes()
    assert encode(msgspec.json.decode(data, type=PAYLOADS[name][0])) == data


@pytest.mark.parametrize("name", sorted(PAYLOADS.keys() - {"job-definition"}))
def test_unknown_fields_are_ignored(name: str) -> None:
    data = (GOLDEN / f"{name}.json").read_bytes()
    newer = b'{"added_later":{"x":[1]},' + data[1:]
    assert encode(msgspec.json.decode(newer, type=PAYLOADS[name][0])) == data


@every_payload
def test_the_schema_knows_every_field(name: str) -> None:
    schema = protocol_schemas()[name]
    properties = schema["$defs"][PAYLOADS[name][0].__name__]["properties"]
    assert set(json.loads((GOLDEN / f"{name}.json").read_bytes())) <= set(properties)


@pytest.mark.parametrize(("name", "opaque"), [("task-queued", TaskDispatch), ("task-ended", TaskEndedOpaque)])
def test_the_oracle_reads_and_writes_the_same_bytes(name: str, opaque: type[msgspec.Struct]) -> None:
    data = (GOLDEN / f"{name}.json").read_bytes()
    assert encode(msgspec.json.decode(data, type=opaque)) == data
