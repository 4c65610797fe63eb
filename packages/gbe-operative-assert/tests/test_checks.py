"""Comparing outputs: what is as expected, and how it reads where it is not."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from gbe_operative_assert import checks
from gbe_operative_assert.checks import Expectation, Match, complaints


def complaint(match: Match, value: str, output: bytes) -> str:
    found = complaints([Expectation("stdout", match, value)], {"stdout": output})
    assert len(found) <= 1
    return found[0] if found else ""


@pytest.mark.parametrize(
    ("match", "value", "output"),
    [
        (Match.EXACT, "a", b"a\n"),
        (Match.EXACT, "a\n", b"a"),
        (Match.EXACT, "a\nb\n", b"a\nb\n"),
        (Match.EXACT, "", b""),
        (Match.EXACT, "", b"\n"),
        (Match.EXACT, "ä", "ä".encode()),
        (Match.CONTAINS, "b", b"abc"),
        (Match.CONTAINS, "", b""),
        (Match.CONTAINS, "a\nb", b"x a\nb y"),
        (Match.REGEX, r"^\d+ items$", b"12 items\n"),
        (Match.REGEX, "(?m)^b$", b"a\nb\nc"),
        (Match.JSON, "{}", b'{"a": 1}'),
        (Match.JSON, '{"a": {"b": [1, {"c": null}]}}', b'{"a": {"b": [1.0, {"c": null, "d": 1}], "e": 2}}'),
        (Match.JSON, "1", b"1"),
        (Match.JSON, '"x"', b' "x" \n'),
    ],
)
def test_as_expected(match: Match, value: str, output: bytes) -> None:
    assert complaint(match, value, output) == ""


def test_a_diff() -> None:
    expected = "".join(f"line {number}\n" for number in range(1, 13))
    actual = expected.replace("line 9\n", "line nine\n")
    assert complaint(Match.EXACT, expected, actual.encode()).splitlines() == [
        "stdout is not what was expected",
        "--- expected",
        "+++ actual",
        "@@ -6,7 +6,7 @@",
        " line 6",
        " line 7",
        " line 8",
        "-line 9",
        "+line nine",
        " line 10",
        " line 11",
        " line 12",
    ]


@pytest.mark.parametrize(
    ("value", "output", "says"),
    [
        ("a", b"", ["-a"]),
        ("", b"a\n", ["+a"]),
        ("a", b"a\n\n", [" a", "+"]),
        ("a", b"a\r\n", ["-a", "+a\\r"]),
        ("a", b"a\x1b[31m", ["-a", "+a\\x1b[31m"]),
        ("a", b"\xff", ["-a", "+\\xff"]),
        ("x" * 1000 + "a", b"x" * 1000 + b"b", ["-…" + "x" * 239 + "a", "+…" + "x" * 239 + "b"]),
    ],
)
def test_small_differences(value: str, output: bytes, says: list[str]) -> None:
    assert complaint(Match.EXACT, value, output).splitlines()[4:] == says


@pytest.mark.parametrize(
    ("value", "output", "says"),
    [
        ("a b", b"a b  \n", ["-a b", "+a b\\x20\\x20"]),
        ("caf\u00e9", "cafe\u0301".encode(), ["-caf\\xe9", "+cafe\\u0301"]),
        ("1 000", "1\u00a0000".encode(), ["-1 000", "+1\\xa0000"]),
        ("caf\u00e9", "th\u00e9".encode(), ["-caf\u00e9", "+th\u00e9"]),
    ],
)
def test_what_looks_the_same_is_spelled_out(value: str, output: bytes, says: list[str]) -> None:
    assert complaint(Match.EXACT, value, output).splitlines()[4:] == says


def test_a_long_diff_is_cut_and_says_so() -> None:
    expected = "".join(f"{number}\n" for number in range(100_000))
    actual = "".join(f"{number * (1 if number < 50_000 else 2)}\n" for number in range(100_000))
    found = complaint(Match.EXACT, expected, actual.encode())
    assert "@@ -49998,200 +49998,200 @@" in found, "it begins where the difference is"
    assert found.splitlines()[4:7] == [" 49997", " 49998", " 49999"]
    assert found.splitlines()[-1] == f"… ({len(expected) - 1:,} bytes expected, {len(actual) - 1:,} bytes actual)"
    assert len(found) < 2000


def test_the_others() -> None:
    assert complaint(Match.CONTAINS, "needle", b"hay\nstack\n").splitlines() == [
        "stdout does not contain 'needle'; stdout is:",
        "  hay",
        "  stack",
    ]
    assert complaint(Match.CONTAINS, "needle", b"") == "stdout does not contain 'needle'; stdout is empty"
    assert complaint(Match.REGEX, r"^\d$", b"x" * 5000).splitlines() == [
        r"stdout has no match for '^\d$'; stdout is:",
        "  " + "x" * 240 + "…",
        "  … (5,000 bytes)",
    ]


@pytest.mark.parametrize(
    ("value", "output", "says"),
    [
        ('{"a": 1}', "[1]", ["$: expected an object, got [1]"]),
        ('{"a": {"b": 1}}', '{"a": {"c": 1, "d": 2}}', ['$.a.b: missing; there is "c", "d"']),
        ("[1, 2]", "[1, 3, 4]", ["$: expected 2 items, got 3", "$[1]: expected 2, got 3"]),
        ('{"a b": "x"}', '{"a b": "y"}', ['$["a b"]: expected "x", got "y"']),
        ('{"n": 1}', '{"n": true}', ["$.n: expected 1, got true"]),
        ('{"n": null}', '{"n": 0}', ["$.n: expected null, got 0"]),
        ("[]", "{}", ["$: expected an array, got {}"]),
    ],
)
def test_json_that_lacks_something(value: str, output: str, says: list[str]) -> None:
    first, *rest = complaint(Match.JSON, value, output.encode()).splitlines()
    assert first == "stdout is not the JSON that was expected"
    assert [line.strip() for line in rest] == says


def test_json_that_is_none_or_lacks_much() -> None:
    assert complaint(Match.JSON, "{}", b"oops").startswith("stdout is not one JSON value: Expecting value: line 1")
    assert "NaN is no JSON" in complaint(Match.JSON, "{}", b"NaN")
    assert "not one JSON value" in complaint(Match.JSON, "{}", b"[" * 100_000)
    assert "not one JSON value" in complaint(Match.JSON, "{}", b"9" * 10_000)
    assert "not one JSON value" in complaint(Match.JSON, "{}", b"\xff")
    found = complaint(Match.JSON, json.dumps([1] * 1000), json.dumps([2] * 1000).encode())
    assert found.splitlines()[-1] == "  … 980 more"


def test_what_is_too_large_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OPEN_BYTES", 10)
    assert complaint(Match.REGEX, "x", b"x" * 11) == "stdout has 11 bytes; a pattern is looked for in at most 10"
    assert complaint(Match.JSON, "1", b"1" * 11) == "stdout has 11 bytes; at most 10 are opened as JSON"
    assert complaint(Match.CONTAINS, "x", b"x" * 11) == ""


def test_the_command_and_a_mapped_file(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"line\n" * 100_000 + b"end\n")
    order = {
        "expectations": [
            ["stdout", "contains", "end"],
            ["stdout", "exact", "line\n" * 100_000 + "END"],
            ["stderr", "regex", "^ä$"],
            ["stdout", "regex", "(?s)^.*end$"],
        ],
        "stdout": {"file": str(file)},
        "stderr": {"text": "ä".encode().decode("latin-1")},
    }
    argv = [sys.executable, "-I", "-S", checks.__file__]
    done = subprocess.run(argv, input=json.dumps(order).encode(), capture_output=True, check=True)
    (found,) = json.loads(done.stdout)
    assert found.splitlines()[-2:] == ["-END", "+end"]
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert complaints([Expectation("stdout", Match.CONTAINS, "end")], {"stdout": mapped}) == []
