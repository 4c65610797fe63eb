"""The log: readable, one record per line, without secrets."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from gbe_runtime import log as log_module
from gbe_runtime import register_secret, setup_logging
from gbe_runtime.log import LogFormat, mask

log = logging.getLogger("gbe_test")

Read = Callable[[], str]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    secrets = set(log_module._secrets), log_module._secret_pattern
    yield
    logging.captureWarnings(False)
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    log_module._secrets, log_module._secret_pattern = secrets


def set_up(format: LogFormat, level: str = "info") -> Read:
    stream = io.StringIO()
    setup_logging(format, level, "oracle", stream)
    return stream.getvalue


def test_text_is_a_line_with_time_level_role_logger_and_extras() -> None:
    read = set_up("text")
    log.info("job %s is over", "job_1", extra={"tasks": 3, "name_of_it": "a b"})
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO oracle gbe_test: job job_1 is over tasks=3 name_of_it="a b"\n',
        read(),
    )


def test_json_is_an_object_per_line() -> None:
    read = set_up("json")
    log.warning("two\nlines\x1b[31m", extra={"tasks": 3, "where": {"a": [1, object]}})
    [line] = read().splitlines()
    record = json.loads(line)
    assert (record["level"], record["role"], record["logger"]) == ("warning", "oracle", "gbe_test")
    assert record["message"] == "two\nlines\x1b[31m"
    assert record["tasks"] == 3
    assert "\x1b" not in line


def test_the_level_is_held() -> None:
    read = set_up("text", "warning")
    log.info("quiet")
    assert read() == ""


@pytest.mark.parametrize("text", ["a\nFAKE INFO line", "a\x1b]0;title\x07", "a\r", "a\x9b31m", "a\u202eb", "a\ud800"])
def test_nothing_in_a_message_breaks_the_line_or_the_terminal(text: str) -> None:
    read = set_up("text")
    log.info("%s", text)
    [line] = read().split("\n")[:-1]
    assert line.isprintable()


def test_a_traceback_can_not_be_mistaken_for_log_lines() -> None:
    read = set_up("text")
    try:
        raise ValueError("x\n2026-01-01T00:00:00.000Z INFO oracle fake\x1b[0m")
    except ValueError:
        log.exception("went wrong")
    first, *rest = read().splitlines()
    assert first.endswith("went wrong")
    assert rest
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("format", ["text", "json"])
def test_secrets_are_masked_wherever_they_are(format: LogFormat) -> None:
    register_secret('pa"ss w/ord')
    register_secret("pa")
    read = set_up(format)
    try:
        raise ValueError('because of pa"ss w/ord')
    except ValueError:
        log.exception('in the text pa"ss w/ord, as argument %s', 'pa"ss w/ord', extra={"deep": {"er": ['pa"ss w/ord']}})
    log.info("in a URL: nats://gbe:pa%%22ss%%20w%%2Ford@host")
    assert "ss w/ord" not in read()
    assert "%22ss" not in read()
    assert "***" in read()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nats://gbe:secret@host:4222", "nats://gbe:***@host:4222"),
        ("nats://token@host", "nats://***@host"),
        ("nats://a:b@h1,nats://c:d@h2", "nats://a:***@h1,nats://c:***@h2"),
        ("nats://a:p@ss@h1", "nats://a:***@h1"),
        ("nats://host:4222/ mail me@example.org", "nats://host:4222/ mail me@example.org"),
        ("store://bucket/key", "store://bucket/key"),
    ],
)
def test_passwords_of_urls_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_an_empty_secret_masks_nothing() -> None:
    register_secret("")
    assert mask("abc") == "abc"


def test_a_wrong_placeholder_loses_nothing() -> None:
    read = set_up("text")
    log.info("%d tasks", "three")
    assert "'three'" in read()


def test_warnings_are_logged_and_setting_up_twice_writes_once() -> None:
    set_up("text")
    read = set_up("json")
    log.info("once")
    assert len(read().splitlines()) == 1
    assert logging.getLogger("py.warnings").handlers is not None
    assert sys.stderr is not None
