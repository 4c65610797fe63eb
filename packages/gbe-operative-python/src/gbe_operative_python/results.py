"""The result of a module that is run as a task: JSON on the descriptor `GBE_RESULT_FD`."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

VARIABLE = "GBE_RESULT_FD"


def write_result(value: Any) -> None:
    """Say what the task's result is; of several calls the last one counts.

    Anything that is JSON: texts, numbers, lists, dicts, None, and dataclasses, dates, `msgspec.Struct`. Where no
    Operative started the module, it is printed. Raises TypeError for what is no JSON.
    """
    encoded = msgspec.json.encode(value)
    number = os.environ.get(VARIABLE, "")
    if not number.isdecimal():
        sys.stdout.write(encoded.decode() + "\n")
        return
    descriptor = int(number)
    # A file, so that nobody has to read while it is written, and a later result replaces an earlier one.
    os.ftruncate(descriptor, 0)
    written = 0
    while written < len(encoded):
        written += os.pwrite(descriptor, encoded[written:], written)
