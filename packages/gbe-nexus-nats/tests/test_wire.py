"""Nothing a user writes reaches the wire unchecked."""

from __future__ import annotations

import pytest

from gbe_nexus import Refused
from gbe_nexus_nats.wire import (
    api_name,
    header_block,
    literal_subject,
    parse_headers,
    publish_frame,
    status_of,
    subject_pattern,
)

BAD = ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x 0", "a\tb", "a\0", "\x7f", "x" * 2000, "\ud800"]


@pytest.mark.parametrize("subject", [*BAD, "a.*", "a.>", ">", "a*"])
def test_bad_subjects(subject: str) -> None:
    with pytest.raises(Refused):
        literal_subject(subject)


@pytest.mark.parametrize("subject", [*BAD, "a.>.b", "a*", "a.>x"])
def test_bad_patterns(subject: str) -> None:
    with pytest.raises(Refused):
        subject_pattern(subject)


@pytest.mark.parametrize("subject", [">", "*", "a.*.b", "a.>", "*.*", "a", "ä.ö"])
def test_good_patterns(subject: str) -> None:
    assert subject_pattern(subject) == subject.encode()


@pytest.mark.parametrize("name", [*BAD, "a.b", "a*", "a>", "a/b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(Refused):
        api_name(name)


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\0", "\ud800"])
def test_bad_header_values(value: str) -> None:
    with pytest.raises(Refused):
        header_block(value, None)
    with pytest.raises(Refused):
        header_block(None, {"A": value})


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\n", "ä"])
def test_bad_header_names(name: str) -> None:
    with pytest.raises(Refused):
        header_block(None, {name: "x"})


def test_headers_come_back() -> None:
    block = header_block("id-1", {"traceparent": "00-ab", "Ünicode".replace("Ü", "U"): "wert: ä"})
    assert parse_headers(block) == {"Nats-Msg-Id": "id-1", "traceparent": "00-ab", "Unicode": "wert: ä"}
    assert header_block(None, None) == b""


def test_frames() -> None:
    assert publish_frame(b"a", b"", b"", b"xy") == b"PUB a  2\r\nxy\r\n"
    assert publish_frame(b"a", b"r", b"HEAD", b"xy") == b"HPUB a r 4 6\r\nHEADxy\r\n"


def test_statuses() -> None:
    assert status_of(b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n") == (408, "Request Timeout")
    assert status_of(b"NATS/1.0 503\r\n\r\n") == (503, "")
    assert status_of(b"NATS/1.0\r\nA: b\r\n\r\n") == (0, "")
    assert status_of(None) == (0, "")
