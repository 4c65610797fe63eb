"""The params that say what is expected, read before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gbe_jobs_domain.outcomes import FailureKind
from gbe_jobs_domain.suggestions import Suggester
from gbe_operative.contract import OperativeError
from gbe_operative_assert.checks import BadExpectation, Expectation, Match, check_expectation

EXIT_CODE: Final = "expect_exit_code"

STREAM_PARAMS: Final = {
    f"expect_{stream}{suffix}": (stream, match)
    for stream in ("stdout", "stderr")
    for suffix, match in (
        ("", Match.EXACT),
        ("_contains", Match.CONTAINS),
        ("_regex", Match.REGEX),
        ("_json", Match.JSON),
    )
}
"""Param to the stream it is about, and how that is compared."""

PATTERN_CHARACTERS: Final = 10_000
"""Of the longest regular expression."""

JSON_CHARACTERS: Final = 4 << 20
"""Of expected JSON."""

_LIMITS: Final = {Match.REGEX: PATTERN_CHARACTERS, Match.JSON: JSON_CHARACTERS}
_PREFIX = "expect"


@dataclass(frozen=True, slots=True)
class Expected:
    """All that a task expects."""

    exit_code: int
    outputs: tuple[Expectation, ...]


def is_expectation(param: str) -> bool:
    """Whether a param says what is expected, or is meant to: it never is an environment variable."""
    return param.startswith(_PREFIX)


def expected_of(params: Mapping[str, str]) -> Expected:
    """What the params expect. Raises `OperativeError` (rejected)."""
    outputs = []
    for param, value in params.items():
        if not is_expectation(param) or param == EXIT_CODE:
            continue
        if param not in STREAM_PARAMS:
            # As an environment variable it would make a test that can't fail.
            hint = Suggester().hint(param, [EXIT_CODE, *STREAM_PARAMS])
            raise _rejected(f"unknown param: {param}; {hint or f'there are {EXIT_CODE}, ' + ', '.join(STREAM_PARAMS)}")
        stream, match = STREAM_PARAMS[param]
        expectation = Expectation(stream, match, value)
        if (limit := _LIMITS.get(match)) is not None and len(value) > limit:
            raise _rejected(f"param {param!r}: {len(value)} characters, the limit is {limit}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what a pattern may mean in a later Python
                check_expectation(expectation)
        except BadExpectation as error:
            raise _rejected(f"param {param!r}: {error}") from error
        outputs.append(expectation)
    order = list(STREAM_PARAMS.values())  # that of the params says nothing: they come sorted
    outputs.sort(key=lambda each: order.index((each.stream, each.match)))
    return Expected(_exit_code(params.get(EXIT_CODE, "0")), tuple(outputs))


def _exit_code(text: str) -> int:
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) <= 3 and int(stripped) <= 255):
        raise _rejected(f"param {EXIT_CODE!r}: expected a number from 0 to 255, got {text[:40]!r}")
    return int(stripped)


def _rejected(message: str) -> OperativeError:
    return OperativeError(message, kind=FailureKind.REJECTED)
