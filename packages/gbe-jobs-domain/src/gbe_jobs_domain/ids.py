"""Identifiers: their shapes, and how they are made.

Everything here may become part of a subject or a key, so nothing with a dot, a wildcard or white space ever
passes. The patterns are checked again when a message is decoded (the types below carry them).
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Annotated, Final

import msgspec

# `$` alone would accept a trailing newline; the look-ahead holds in Python's and in ECMA's dialect.
_END = r"$(?!\n)"

JobId = Annotated[str, msgspec.Meta(pattern=r"^job_[A-Za-z0-9_-]{1,44}" + _END)]
"""`job_` and 1 to 44 of `[A-Za-z0-9_-]`: short enough that a task id made of it stays within 64."""

TaskId = Annotated[str, msgspec.Meta(pattern=r"^task_[A-Za-z0-9_-]{1,59}" + _END)]
OrgId = Annotated[str, msgspec.Meta(pattern=r"^org_[A-Za-z0-9_-]{1,60}" + _END)]
TypeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?" + _END)]
"""A job or task type: 1 to 48 of `[a-z0-9-]`, no dash at an edge."""
TaskName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,128}" + _END)]

JOB_ID: Final = re.compile(r"job_[A-Za-z0-9_-]{1,44}\Z")
TASK_ID: Final = re.compile(r"task_[A-Za-z0-9_-]{1,59}\Z")
ORG_ID: Final = re.compile(r"org_[A-Za-z0-9_-]{1,60}\Z")
TYPE_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?\Z")
TASK_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")

DEFAULT_ORG: Final = "org_default"

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class InvalidId(ValueError):
    """An identifier that doesn't have its shape; the text says what was expected."""


def new_ulid() -> str:
    """A ULID: 48 bits of milliseconds, 80 random ones, 26 characters of Crockford's base 32."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -5, -5))


def ulid_time(ulid: str) -> int:
    """When a ULID was made, in milliseconds since the epoch. Raises `InvalidId`."""
    try:
        number = 0
        for character in ulid[:10]:
            number = number << 5 | _CROCKFORD.index(character)
    except ValueError as error:
        raise InvalidId(f"{ulid[:40]!r} is not a ULID") from error
    return number


def new_job_id() -> str:
    """A fresh `job_{ulid}`."""
    return "job_" + new_ulid()


def task_id(job_id: str, index: int) -> str:
    """`task_{job id without prefix}_{index}`: the index is the task's place in the definition, from 0."""
    return f"task_{job_id[4:]}_{index}"


def task_index(job_id: str, task: str) -> int | None:
    """The index in a task id of that job; None where the id belongs to another job or is malformed."""
    prefix = f"task_{job_id[4:]}_"
    digits = task[len(prefix) :]
    if not task.startswith(prefix) or not digits.isascii() or not digits.isdigit():
        return None
    index = int(digits)
    return index if str(index) == digits else None


def child_job_id(parent_task: str, failed: int) -> str:
    """The id of the child job that attempt `failed + 1` of a molecule task runs: stable over redelivery.

    A digest, since a nested task's id does not fit into a job id.
    """
    digest = hashlib.sha256(f"{parent_task}:{failed}".encode()).hexdigest()
    return f"job_c{digest[:32]}"


def check_job_id(value: str) -> str:
    """`value`, or `InvalidId`."""
    return _check(JOB_ID, value, "a job id is 'job_' and 1 to 44 of letters, digits, '-' and '_'")


def check_org_id(value: str) -> str:
    """`value`, or `InvalidId`."""
    return _check(ORG_ID, value, "an org id is 'org_' and 1 to 60 of letters, digits, '-' and '_'")


def check_type_name(value: str) -> str:
    """`value`, or `InvalidId`."""
    return _check(TYPE_NAME, value, "a type is 1 to 48 of a-z, 0-9 and '-', with no dash at an edge")


def check_task_name(value: str) -> str:
    """`value`, or `InvalidId`."""
    return _check(TASK_NAME, value, "a task name is 1 to 128 of letters, digits, '-' and '_'")


def _check(pattern: re.Pattern[str], value: str, expected: str) -> str:
    if not pattern.match(value):
        shown = value if len(value) <= 80 else value[:77] + "..."
        raise InvalidId(f"{shown!r}: {expected}")
    return value
