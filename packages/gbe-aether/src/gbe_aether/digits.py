"""Decimal text of many integers at once, into the rows of a byte matrix.

A number stands in a field of whole 4-byte units and does not fill it: the bytes it leaves are NUL,
in the middle of the field as well, and are deleted from the finished text all together. Tables
give the text of up to four digits by their value.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Table = npt.NDArray[np.uint32]

_LIMITS = (10**3, 10**4, 10**7, 10**15, 2**63)
"""Absolute values below these fit into the fields of each class."""

UNITS = (1, 2, 2, 4, 6)
"""How many units of 4 bytes the fields of each class have."""


def field_class(largest: int) -> int:
    """The class of field that holds absolute values up to `largest`; lower ones are faster.

    Raises:
        OverflowError: for what doesn't fit into 64 bits.
    """
    for number, limit in enumerate(_LIMITS):
        if largest < limit:
            return number
    raise OverflowError(f"{largest} does not fit into 64 bits")


def _table(entries: Iterable[str]) -> Table:
    return np.frombuffer(b"".join(entry.encode().ljust(4, b"\0") for entry in entries), np.uint32)


@cache
def _whole() -> Table:
    """-999..999 in one unit; negative numbers index from the end."""
    return _table([*map(str, range(1000)), *map(str, range(-999, 0))])


@cache
def _halves() -> tuple[Table, Table]:
    """-9999..9999 in two units: up to three characters, and the last digit; negative ones from the end."""
    every = [*map(str, range(10**4)), *map(str, range(-(10**4) + 1, 0))]
    return _table(text[:-1] for text in every), _table(text[-1] for text in every)


@cache
def _groups() -> Table:
    """Four digits as the last and only group; from 10,000 on as one after others; from 20,000 on as a leading one."""
    plain = [*map(str, range(10**4))]
    return _table([*plain, *(f"{value:04d}" for value in range(10**4)), "", *plain[1:]])


@cache
def _heads() -> Table:
    """The up to three digits that a number begins with, nothing for 0; from 1000 on with a sign before them."""
    digits = ["", *map(str, range(1, 1000))]
    return _table([*digits, *("-" + text for text in digits)])


def write_numbers(matrix: Table, column: int, numbers: Ints, kind: int) -> None:
    """Write numbers into a field of each row.

    Args:
        matrix: Rows of 4-byte units.
        column: The first unit of the field.
        numbers: One for each row.
        kind: The class of the field (`field_class`), which every number fits.
    """
    if kind == 0:
        matrix[:, column] = _whole()[numbers]
        return
    if kind == 1:
        first, last = _halves()
        matrix[:, column] = first[numbers]
        matrix[:, column + 1] = last[numbers]
        return
    groups, rest = _groups(), np.abs(numbers)
    # From the last group to the first, so that each knows what stands before it.
    for unit in range(UNITS[kind] - 1, 0, -1):
        rest, group = np.divmod(rest, 10**4)
        alone = group if unit == UNITS[kind] - 1 else group + 2 * 10**4
        matrix[:, column + unit] = groups[np.where(rest > 0, group + 10**4, alone)]
    matrix[:, column] = _heads()[rest + 1000 * (numbers < 0)]


class Rows:
    """A text of many rows in which only numbers change.

    Args:
        pieces: The constant texts of each row; a number stands behind each.
        kinds: The class of each of those fields.
    """

    def __init__(self, pieces: Sequence[npt.NDArray[np.bytes_]], kinds: Sequence[int]) -> None:
        self.kinds = tuple(kinds)
        count = len(pieces[0])
        widths = [-(-piece.dtype.itemsize // 4) for piece in pieces]
        fields = [UNITS[kind] for kind in kinds]
        self._buffer = bytearray(4 * count * (sum(widths) + sum(fields)))
        self._units: Table = np.frombuffer(self._buffer, np.uint32).reshape(count, -1)
        characters = np.frombuffer(self._buffer, np.uint8).reshape(count, -1)
        self._columns = []
        start = 0
        for piece, width, field in zip(pieces, widths, fields, strict=True):
            length = piece.dtype.itemsize
            characters[:, 4 * start : 4 * start + length] = piece.view(np.uint8).reshape(count, length)
            self._columns.append(start + width)
            start += width + field

    def fill(self, *numbers: Ints) -> bytearray:
        """The text with these numbers in it."""
        for column, each, kind in zip(self._columns, numbers, self.kinds, strict=True):
            write_numbers(self._units, column, each, kind)
        return self._buffer.translate(None, b"\0")


class NumberRows:
    """Rows whose fields grow with the numbers, and shrink when they have long been too wide."""

    _PATIENCE = 64

    def __init__(self, pieces: Sequence[npt.NDArray[np.bytes_]]) -> None:
        self._pieces = pieces
        self._rows: Rows | None = None
        self._idle = 0

    def fill(self, columns: Sequence[Ints], largest: Sequence[int]) -> bytearray:
        """The text with these numbers in it; `largest` are the largest absolute values of the columns."""
        kinds = tuple(map(field_class, largest))
        rows = self._rows
        if rows is None or any(map(int.__gt__, kinds, rows.kinds)):
            wanted = kinds if rows is None else tuple(map(max, kinds, rows.kinds))
            self._rows = rows = Rows(self._pieces, wanted)
            self._idle = 0
        elif kinds == rows.kinds:
            self._idle = 0
        else:
            self._idle += 1
            if self._idle >= self._PATIENCE:
                self._rows = rows = Rows(self._pieces, kinds)
                self._idle = 0
        return rows.fill(*columns)


def texts(each: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """Constant texts as a piece of rows."""
    return np.array([text.encode() for text in each], dtype=np.bytes_)


def largest_of(numbers: Ints) -> int:
    """The largest absolute value; 0 of none."""
    if not len(numbers):
        return 0
    return max(int(numbers.max()), -int(numbers.min()))


def z_sum_of(numbers: Ints) -> int:
    """The sum of `press.z` over numbers: 8 bits for each, and 8 more for each further group of 7 bits."""
    absolute = np.abs(numbers)
    largest = int(absolute.max()) if len(absolute) else 0
    groups = len(numbers)
    limit = 64
    while largest >= limit:
        groups += int(np.count_nonzero(absolute >= limit))
        limit <<= 7
    return 8 * groups
