"""Nothing that a task writes moves a cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_overseer.escape import lines_of, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Zürich → 東京 🚀", "Zürich → 東京 🚀"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("a\tb", "a    b"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edef", "abc\\u202edef"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_spells_out_what_is_unsafe(text: str, shown: str) -> None:
    assert one_line(text) == shown


@given(st.text(max_size=200))
def test_is_always_one_printable_line(text: str) -> None:
    shown = one_line(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()


@given(st.text(max_size=200), st.integers(1, 50))
def test_never_gets_wider_than_asked(text: str, width: int) -> None:
    assert len(one_line(text, width)) <= width


def test_a_carriage_return_before_a_newline_belongs_to_the_line_end() -> None:
    assert lines_of("a\r\nb\n") == ["a", "b"]
    assert lines_of("") == []
    assert lines_of("\n") == [""]
