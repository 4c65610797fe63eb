"""A process of its own that matches data against schemas: `python -m gbe_operative.schema_child`.

Schemas come from whoever wrote the job. One whose regular expression backtracks, or whose references double at each
step, never ends, and nothing in a process ends a regular expression but the end of the process. So it is done here,
with a clock that kills this process, whatever it is in. `gbe_operative.schema_checks` is the other side.

Requests on stdin: `>BdII`: what is asked, seconds, bytes of the schema and of the value, then these. Answers on stdout:
`>I` and an `Answer` in JSON. It ends when stdin does.
"""

from __future__ import annotations

import signal
import struct
import sys
from collections import OrderedDict
from enum import IntEnum
from typing import BinaryIO

import msgspec

from gbe_jobs_domain.data_schemas import InvalidSchema, Matcher, UnboundedSchema

HEADER = struct.Struct(">BdII")
LENGTH = struct.Struct(">I")

MEMORY = 2 << 30
"""Bytes of address space: small values of JSON are large ones here."""

KEPT = 32
"""Schemas that are kept ready."""


class Ask(IntEnum):
    """What is asked: is it a schema; does the value match it, and the same without quoting the value."""

    SCHEMA = 0
    MATCH = 1
    MATCH_DISCREETLY = 2


class Answer(msgspec.Struct):
    """`kind`: `fine`, `invalid` (the schema), `violated`, or `failed` (it could not be found out)."""

    kind: str
    text: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def main() -> int:
    """Answer until nobody asks."""
    _bounded()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    matchers: OrderedDict[bytes, Matcher] = OrderedDict()
    while len(header := _read(requests, HEADER.size)) == HEADER.size:
        ask, seconds, schema_size, value_size = HEADER.unpack(header)
        schema, value = _read(requests, schema_size), _read(requests, value_size)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        answer = _encode(_answer(matchers, Ask(ask), schema, value))
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()
    return 0


def _bounded() -> None:
    """Die of the clock, not of the terminal's Ctrl-C, which is the worker's; and take no more memory than that."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # the clock is what counts
        return


def _read(stream: BinaryIO, size: int) -> bytes:
    return stream.read(size) if size else b""


def _answer(matchers: OrderedDict[bytes, Matcher], ask: Ask, schema: bytes, value: bytes) -> Answer:
    try:
        matcher = matchers.get(schema)
        if matcher is None:
            found = _decode(schema)
            if not isinstance(found, dict):
                return Answer("invalid", "it is no object")
            matcher = matchers[schema] = Matcher(found)
            if len(matchers) > KEPT:
                matchers.popitem(last=False)
        if ask is Ask.SCHEMA:
            return Answer("fine")
        violation = matcher.first_violation(_decode(value))
        if violation is None:
            return Answer("fine")
        if ask is Ask.MATCH_DISCREETLY:
            return Answer("violated", f"at {violation.path}: {violation.keyword!r} is not met")
        return Answer("violated", str(violation))
    except InvalidSchema as error:
        return Answer("invalid", str(error))
    except UnboundedSchema as error:
        return Answer("failed", str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Answer("failed", f"it is not JSON: {error}")
    except RecursionError:
        return Answer("failed", "it is nested too deeply")
    except MemoryError:
        matchers.clear()
        return Answer("failed", f"it would take more than {MEMORY:,} bytes of memory")
    except Exception as error:  # a library's own trouble with foreign input is not to end in silence
        return Answer("failed", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
