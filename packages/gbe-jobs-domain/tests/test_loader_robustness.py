"""Whatever comes in, a definition comes out, or `DefinitionErrors`."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from gbe_jobs_domain.collector import Collector
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.documents import DefinitionErrors, decode_definition, encode_definition, load_document
from gbe_jobs_domain.json_nodes import parse_json
from gbe_jobs_domain.nodes import Unreadable
from gbe_jobs_domain.reader import Reader

sources = st.sampled_from(["x.yaml", "x.json"])
WORDS = """
v name molecule job_type org vars tasks steps task_type operative depends_on input_from params timeout_secs max_retries
retry delay factor max_delay on_lost secret schedule a b a.b rerun fail shell org_x << ${{ ${{vars.a}}
"""
TOKENS = [*"{}[]:,-?&*!|>'\"%@`#~\n\t ", ": ", "- ", "\n  "]
words = st.sampled_from(WORDS.split())
scalars = st.one_of(words, st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=5))
structures = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)
names = st.sampled_from(["a", "b", "c", "d"])
nearly_tasks = st.fixed_dictionaries(
    {"name": names | scalars, "task_type": st.just("x") | scalars},
    optional={
        "depends_on": st.lists(names, max_size=3) | structures,
        "input_from": st.dictionaries(words, names | words, max_size=2) | structures,
        "params": st.dictionaries(words, scalars, max_size=3) | structures,
        "timeout_secs": st.floats() | scalars,
        "max_retries": st.integers(-1, 2000) | scalars,
        "retry": structures,
        "on_lost": words,
    },
)
nearly_jobs = st.fixed_dictionaries(
    {"name": st.just("job") | scalars, "tasks": st.lists(nearly_tasks, max_size=4)},
    optional={"v": st.just(1) | scalars, "org": words, "job_type": words, "vars": structures},
)


def outcome(text: str | bytes, source: str = "x.yaml") -> JobDefinition | None:
    try:
        definition = load_document(text, source=source).definition
    except DefinitionErrors as refused:
        found = refused.errors
    else:
        assert decode_definition(encode_definition(definition)) == definition
        return definition
    assert found
    assert all(error.message and len(str(error)) < 1_000 for error in found)
    return None


@given(st.binary(max_size=300), sources)
def test_any_bytes(data: bytes, source: str) -> None:
    outcome(data, source)


@given(st.text(max_size=200), sources)
def test_any_text(text: str, source: str) -> None:
    outcome(text, source)


@given(st.lists(words | st.sampled_from(TOKENS), max_size=40), sources)
def test_any_heap_of_tokens(tokens: list[str], source: str) -> None:
    outcome("".join(tokens), source)


@given(structures | nearly_jobs)
def test_any_structure(value: Any) -> None:
    outcome(json.dumps(value), "x.json")
    outcome(yaml.dump(value))


@given(st.binary(max_size=300))
def test_any_canonical_bytes(data: bytes) -> None:
    with pytest.raises(DefinitionErrors):
        decode_definition(data)


def long_way(text: str) -> JobDefinition | None:
    collector = Collector("x")
    try:
        definition = Reader(collector, {}, 1 << 20).read(parse_json(text, collector))
    except Unreadable:
        return None
    return None if collector else definition


@given(nearly_jobs)
def test_the_short_way_and_the_long_way_agree(value: Any) -> None:
    text = json.dumps(value)
    assert outcome(text, "x.json") == long_way(text)


@given(nearly_jobs)
def test_json_read_as_yaml_gives_the_same(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assume(text.isprintable())  # YAML has no place for some characters that JSON has one for
    if (as_json := outcome(text, "x.json")) is not None:
        assert outcome("# a comment makes it YAML\n" + text) == as_json
