"""What a command's output is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gbe_operative_command.outcome import data_of, lines_of, media_type_of


@pytest.mark.parametrize(
    "stdout", [b"{", b"[1", b"hello", b"\xff\xfe", b'"\\ud800"', b"[" * 10_000, b"NaN", b"{} {}", b"'x'"]
)
def test_what_is_not_json_is_lines(stdout: bytes) -> None:
    lines = lines_of(stdout)
    assert data_of(stdout, lines).decoded() == lines


@pytest.mark.parametrize(
    ("content", "media_type"),
    [(b' {"a":1}\n', "application/json"), (b"[1", "text/plain"), (b"", "text/plain"), (b"7", "text/plain")],
)
def test_media_types(tmp_path: Path, content: bytes, media_type: str) -> None:
    file = tmp_path / "out"
    file.write_bytes(content)
    assert media_type_of(file) == media_type
