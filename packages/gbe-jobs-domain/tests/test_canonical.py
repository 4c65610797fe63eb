"""The canonical form: what is submitted."""

from dataclasses import dataclass

import msgspec
import pytest

from gbe_jobs_domain.canonical import check_definition, decode_definition, encode_definition
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.errors import DefinitionErrors
from gbe_jobs_domain.payloads import RetryPolicy, SecretRef


def test_defaults_are_left_out_and_keys_are_in_order() -> None:
    task = TaskDefinition("a", "x", params={"b": "1", "a": SecretRef("s")}, retry=RetryPolicy(delay=3.0))
    assert encode_definition(JobDefinition("j", "j", [task])) == (
        b'{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x",'
        b'"params":{"a":{"secret":"s"},"b":"1"},"retry":{"delay":3.0}}]}'
    )


def test_equal_definitions_have_equal_bytes() -> None:
    one = JobDefinition("j", "j", [TaskDefinition("a", "x", params={"a": "1", "b": "2"}, max_retries=0)])
    other = JobDefinition("j", "j", [TaskDefinition("a", "x", params={"b": "2", "a": "1"})])
    assert encode_definition(one) == encode_definition(other)
    assert decode_definition(encode_definition(one)) == one == other


@dataclass
class Wrong:
    document: str
    error: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong("", "Input data was truncated"),
        Wrong("[]", "Expected `object`, got `array`"),
        Wrong('{"name":"j","job_type":"a.*","tasks":[]}', "job_type"),
        Wrong('{"name":"j","job_type":"j","tasks":[]}', "tasks: a job needs at least one task"),
        Wrong('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x"}],"v":2}', "v: expected 1"),
        Wrong('{"name":"","job_type":"j","tasks":[{"name":"a","task_type":"x"}]}', "name: a job name can't be blank"),
        Wrong('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","depend_on":[]}]}', "depend_on"),
        Wrong('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","params":{"n":5}}]}', "params"),
        Wrong('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","max_retries":1001}]}', "max_retries"),
        Wrong('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","depends_on":["a"]}]}', "a → a"),
    ],
    ids=lambda wrong: wrong.error,
)
def test_what_is_wrong_is_refused(wrong: Wrong) -> None:
    with pytest.raises(DefinitionErrors) as caught:
        decode_definition(wrong.document.encode())
    assert wrong.error in str(caught.value)
    assert str(caught.value).startswith("definition: ")


def test_all_errors_come_at_once() -> None:
    definition = JobDefinition("\n", "j", [TaskDefinition("a", "x", depends_on=["b", "a"])], v=3)
    with pytest.raises(DefinitionErrors) as caught:
        check_definition(definition)
    assert [error.path for error in caught.value.errors] == [
        "v",
        "name",
        "tasks[0].depends_on[0]",
        "tasks[0].depends_on[1]",
    ]


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(DefinitionErrors):
        decode_definition(b'{"name":' + b"[" * 100_000)


def test_the_model_is_what_msgspec_reads() -> None:
    definition = JobDefinition("j", "j", [TaskDefinition("a", "x")])
    assert msgspec.json.decode(encode_definition(definition), type=JobDefinition) == definition
