"""Edge data: how deep a value is nested."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_jobs_domain import paths
from gbe_jobs_domain.edges import MAX_NESTING, nested_deeper


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(
    st.recursive(
        st.none() | st.text(alphabet='[]{}"\\\n\0ä'),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='[{"\\'), inner, max_size=4),
        max_leaves=60,
    )
)
def test_as_the_value_is(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1).encode()
    found = depth(value)
    assert not nested_deeper(text, found)
    deep = b"[" * 40 + text + b"]" * 40  # more than what is found level by level
    assert (nested_deeper(deep, found + 40), nested_deeper(deep, found + 39)) == (False, True)
    assert not found or nested_deeper(text, found - 1)


@pytest.mark.parametrize(
    ("text", "is_deeper"),
    [
        (b"[" * MAX_NESTING + b"]" * MAX_NESTING, False),
        (b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1), True),
        (b'{"a":' * 500 + b"1" + b"}" * 500, True),
        (b"[" + b"[]," * 5_000 + b"{}]", False),
        (b'["' + b"[" * 5_000 + b'"]', False),
        (b"[" * MAX_NESTING + b"[]," * 5_000 + b"1" + b"]" * MAX_NESTING, True),
        (b"[" * (MAX_NESTING - 1) + b"[]," * 5_000 + b"1" + b"]" * (MAX_NESTING - 1), False),
    ],
)
def test_the_limit(text: bytes, is_deeper: bool) -> None:
    assert nested_deeper(text) is is_deeper


@pytest.mark.parametrize("index", ["2", "00000000000000000002", "9" * 5_000])
def test_an_index_beyond_the_end(index: str) -> None:
    with pytest.raises(paths.PathError, match=r"no index [029]{1,18}; the array has 2 items"):
        paths.step([1, 2], index)
