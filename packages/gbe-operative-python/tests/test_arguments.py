"""From texts to typed arguments, and what is said where they don't fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_operative_python import DeclarationError
from gbe_operative_python.arguments import ArgumentError, Signature, type_text


class Format(Enum):
    PNG = "png"
    JPEG = "jpeg"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Size:
    width: int
    height: int = 600


class Point(msgspec.Struct):
    x: float
    tags: list[str] = []


class Pair(NamedTuple):
    left: int
    right: str


class Row(TypedDict):
    name: str
    count: int


def taking(hint: Any) -> Signature:
    def function(x: Any) -> None: ...

    function.__annotations__["x"] = hint
    return Signature(function)


def converted(hint: Any, text: str) -> Any:
    return taking(hint).arguments({"x": text})["x"]


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "5", "5"),
        (str, "", ""),
        (str, "null", "null"),
        (int, "5", 5),
        (int, "-7", -7),
        (float, "2.5", 2.5),
        (float, "3", 3.0),
        (bool, "true", True),
        (bool, "False", False),
        (bool, "0", False),
        (Decimal, "1.10", Decimal("1.10")),
        (Format, "jpeg", Format.JPEG),
        (Level, "2", Level.HIGH),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
        (date, "2026-01-31", date(2026, 1, 31)),
        (datetime, "2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=timezone.utc)),  # noqa: UP017
        (timedelta, "PT90S", timedelta(seconds=90)),
        (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
        (Path, "/a/b.png", Path("/a/b.png")),
        (bytes, "aGk=", b"hi"),
        (int | None, "null", None),
        (int | None, "7", 7),
        (str | None, "null", None),
        (str | None, "x", "x"),
        (Path | None, "null", None),
        (Path | None, "x", Path("x")),
        (float | int, "5.5", 5.5),
        (int | str, "x", "x"),
        (Annotated[int, msgspec.Meta(ge=1, le=9)], "9", 9),
        (Annotated[str, msgspec.Meta(pattern="^a")], "abc", "abc"),
        (list[int], "[1, 2]", [1, 2]),
        (list[int], '["1", "2"]', [1, 2]),
        (list, "[1, null]", [1, None]),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (set[int], "[1, 1]", {1}),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict[int, str], '{"1": "a"}', {1: "a"}),
        (dict, '{"a": [1]}', {"a": [1]}),
        (list[Path], '["a"]', [Path("a")]),
        (Size, '{"width": 5}', Size(5)),
        (Size, '{"width": "5", "height": 6}', Size(5, 6)),
        (Size | None, "null", None),
        (Point, '{"x": 1, "tags": ["a"]}', Point(1.0, ["a"])),
        (Pair, '[1, "b"]', Pair(1, "b")),
        (Row, '{"name": "a", "count": 2}', {"name": "a", "count": 2}),
        (list[Row], '[{"name": "a", "count": 2}]', [{"name": "a", "count": 2}]),
        (str | list[str], "a", "a"),
        (str | list[str], '["a"]', ["a"]),
        (str | list[str], "7", "7"),
        (int | list[int], "7", 7),
        (Any, '{"a": 1}', {"a": 1}),
        (Any, "7", 7),
        (Any, "plain text", "plain text"),
        (object, "[1]", [1]),
        (object, "plain", "plain"),
    ],
)
def test_texts_become_what_the_annotation_says(hint: Any, text: str, value: Any) -> None:
    found = converted(hint, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "says"),
    [
        (int, "wide", "param 'x': found 'wide', expected int"),
        (int, "", "param 'x': found '', expected int"),
        (int, "5.5", "param 'x': found '5.5', expected int"),
        (bool, "maybe", "param 'x': found 'maybe', expected bool"),
        (int | None, "x", "param 'x': found 'x', expected int | None"),
        (Format, "gif", "param 'x': found 'gif', expected 'png' | 'jpeg'"),
        (Literal["a", "b"], "c", "param 'x': found 'c', expected 'a' | 'b'"),
        (datetime, "tomorrow", "param 'x': found 'tomorrow', expected datetime (Invalid RFC3339 encoded datetime)"),
        (Annotated[int, msgspec.Meta(ge=1)], "0", "param 'x': found '0', expected int >= 1"),
        (Annotated[str, msgspec.Meta(max_length=1)], "ab", "param 'x': found 'ab', expected str of length <= 1"),
        (list[int], "5", "param 'x': found '5', expected list[int]"),
        (list[int], "[1", "param 'x': found '[1', expected list[int] as JSON (Input data was truncated)"),
        (list[int], '[1, "x"]', "param 'x': found '[1, \"x\"]', expected list[int] (Expected int, got str at $[1])"),
        (
            Size,
            '{"height": 1}',
            "param 'x': found '{\"height\": 1}', expected Size (Object missing required field width)",
        ),
        (Size, '{"width": "w"}', "(Expected int, got str at $.width)"),
        (dict[str, int], "[]", "param 'x': found '[]', expected dict[str, int]"),
        (list[int], "[" * 100_000, "expected list[int] as JSON"),
        (Path, "a\0b", "param 'x': found 'a\\x00b', expected Path (a path has no NUL)"),
        (int, "9" * 5_000, "param 'x': found"),
        (str | list[int], '["x"]', "param 'x': found '[\"x\"]', expected str | list[int]"),
    ],
)
def test_what_does_not_fit_is_told_with_what_was_found_and_expected(hint: Any, text: str, says: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        converted(hint, text)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 400


def resize(path: str, width: int = 800, *, sharp: bool = False) -> None: ...


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "missing param: path; it takes path: str, width: int = 800, sharp: bool = False"),
        ({"path": "a", "widht": "5"}, "unknown param 'widht': did you mean 'width'? it takes path: str, width: int"),
        ({"Path": "a"}, "unknown param 'Path': did you mean 'path'?"),
        ({"path": "a", "zzz": "5"}, "unknown param 'zzz'; it takes path"),
    ],
)
def test_params_that_are_missing_or_unknown(params: dict[str, str], says: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Signature(resize).arguments(params)
    assert str(caught.value).startswith(says)


def test_all_that_is_missing_is_named_at_once() -> None:
    def function(a: int, b: str, c: int = 1) -> None: ...

    with pytest.raises(ArgumentError, match=r"^missing params: a, b; it takes a: int, b: str, c: int = 1$"):
        Signature(function).arguments({"c": "2"})


def test_all_that_does_not_fit_is_told_at_once() -> None:
    with pytest.raises(ArgumentError) as caught:
        Signature(resize).arguments({"width": "wide", "sharp": "maybe", "sarp": "1"})
    assert str(caught.value) == (
        "param 'width': found 'wide', expected int; param 'sharp': found 'maybe', expected bool; "
        "unknown param 'sarp'; missing param: path; it takes path: str, width: int = 800, sharp: bool = False"
    )


def test_defaults_are_left_to_the_function() -> None:
    assert Signature(resize).arguments({"path": "a"}) == {"path": "a"}


@dataclass(frozen=True)
class Job:
    size: Size
    level: Level = Level.LOW
    tags: list[str] = field(default_factory=list)
    note: str | None = None


class Batch(msgspec.Struct):
    jobs: dict[str, Job]


def first(value: Any) -> Any:
    return value[0]


def job_a(value: Any) -> Any:
    return value.jobs["a"]


def same(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    ("hint", "text", "found"),
    [
        (Job, '{"size": {"width": 1}}', same),
        (Job | None, '{"size": {"width": 1}}', same),
        (list[Job], '[{"size": {"width": 1}}]', first),
        (Batch, '{"jobs": {"a": {"size": {"width": 1}}}}', job_a),
    ],
)
def test_a_dataclass_has_its_defaults_as_its_class_gives_them(
    hint: Any, text: str, found: Callable[[Any], Any]
) -> None:
    """Else they would be missing from the data of a function that returns it."""
    whole = Job(Size(1))
    job = found(converted(hint, text))
    assert job == whole
    assert vars(job) == vars(whole)
    assert msgspec.json.decode(msgspec.json.encode(job)) == msgspec.json.decode(msgspec.json.encode(whole))


def test_a_function_may_take_the_rest() -> None:
    def function(a: int, **rest: str) -> None: ...

    assert Signature(function).arguments({"a": "1", "b": "2"}) == {"a": 1, "b": "2"}


def test_a_parameter_without_annotation_gets_the_text() -> None:
    def function(a, b=None):  # type: ignore[no-untyped-def]
        ...

    assert Signature(function).arguments({"a": "1", "b": "null"}) == {"a": "1", "b": "null"}


def test_no_error_shows_a_secret() -> None:
    with pytest.raises(ArgumentError) as caught:
        taking(int).arguments({"x": "token-" + "s3cret" * 30}, ["s3cret" * 30])
    assert str(caught.value) == "param 'x': found a secret, expected int"


def early(x: Late) -> None: ...


class Late(msgspec.Struct):
    y: int


def test_annotations_may_name_what_is_defined_later() -> None:
    assert Signature(early).arguments({"x": '{"y": 1}'}) == {"x": Late(1)}


class Opaque: ...


def positional(x: str, /) -> None: ...


def starred(*x: str) -> None: ...


def typed_rest(**x: int) -> None: ...


def opaque(x: Opaque) -> None: ...


def impossible(x: list[int] | set[int]) -> None: ...


def unknown(x: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("function", [positional, starred, typed_rest, opaque, impossible, unknown])
def test_functions_that_params_can_not_be_given_to(function: Callable[..., Any]) -> None:
    with pytest.raises(DeclarationError, match=f"^{function.__qualname__}: "):
        Signature(function)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "int"),
        (list[int] | None, "list[int] | None"),
        (dict[str, list[Size]], "dict[str, list[Size]]"),
        (Literal["a", 1], "'a' | 1"),
        (Annotated[int, msgspec.Meta(ge=1)], "int"),
        (tuple[int, ...], "tuple[int, …]"),
        (Any, "Any"),
    ],
)
def test_types_are_named_as_people_write_them(hint: Any, text: str) -> None:
    assert type_text(hint) == text


HINTS = [int, float, bool, date, Format, Path, list[int], dict[str, int], Size, Point, Any, str | list[str], int | None]


@given(st.sampled_from(HINTS), st.text() | st.from_regex(r"[\[{\"0-9a-z\]},:. -]{0,40}", fullmatch=True))
def test_no_text_does_more_than_not_fit(hint: Any, text: str) -> None:
    try:
        converted(hint, text)
    except ArgumentError as error:
        assert str(error).startswith("param 'x': found ")  # noqa: PT017


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=20))
def test_what_was_json_comes_back(value: Any) -> None:
    assert converted(list[Any], msgspec.json.encode([value]).decode()) == [value]
