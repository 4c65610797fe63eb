"""Decimal text of many integers at once, into the rows of a byte matrix.

A number stands in a field of whole 8-byte words and does not fill it: the bytes it leaves are NUL,
in the middle of the field as well, and are deleted from the finished text all together. Tables
give the text of four digits by their value.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_LIMITS = (10**4, 10**7, 10**15, 2**63)
"""Absolute values below these fit into fields of 1, 1, 2 and 3 words."""

WORDS = (1, 1, 2, 3)


def field_class(largest: int) -> int:
    """The class of field that holds absolute values up to `largest`: the first is the fastest.

    Raises:
        OverflowError: for what doesn't fit into 64 bits.
    """
    for number, limit in enumerate(_LIMITS):
        if largest < limit:
            return number
    raise OverflowError(f"{largest} does not fit into 64 bits")


def _table(texts: Sequence[str], dtype: type[np.unsignedinteger[npt.NBitBase]]) -> npt.NDArray[np.uint64]:
    width = np.dtype(dtype).itemsize
    return np.frombuffer(b"".join(text.encode().ljust(width, b"\0") for text in texts), dtype)  # type: ignore[return-value]


_small: npt.NDArray[np.uint64] | None = None
_groups: npt.NDArray[np.uint64] | None = None
_heads: npt.NDArray[np.uint64] | None = None


def _small_table() -> npt.NDArray[np.uint64]:
    """Text of -9999..9999 in a word each; negative numbers index from the end."""
    global _small  # noqa: PLW0603 - made on first use
    if _small is None:
        _small = _table([*map(str, range(10**4)), *map(str, range(-(10**4) + 1, 0))], np.uint64)
    return _small


def _group_tables() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Text of four digits in half a word: as the last and only group, after others, as a leading one.

    The second table is of the head of a number: up to three digits, and with 1000 added, the sign
    before them.
    """
    global _groups, _heads  # noqa: PLW0603 - made on first use
    if _groups is None or _heads is None:
        plain = [str(value) for value in range(10**4)]
        padded = [f"{value:04d}" for value in range(10**4)]
        _groups = _table([*plain, *padded, "", *plain[1:]], np.uint32)
        head = ["", *plain[1:1000]]
        _heads = _table([*head, *("-" + text for text in head)], np.uint32)
    return _groups, _heads


def write_numbers(matrix: Bytes, offset: int, numbers: Ints, kind: int) -> None:
    """Write numbers into a field of each row.

    Args:
        matrix: Rows of bytes, contiguous; their length is a multiple of 8.
        offset: Where the field begins in a row; a multiple of 8.
        numbers: One for each row.
        kind: The class of the field (`field_class`), which every number fits.
    """
    if kind == 0:
        matrix.view(np.uint64)[:, offset // 8] = _small_table()[numbers]
        return
    groups, heads = _group_tables()
    halves = matrix.view(np.uint32)
    column = offset // 4 + 2 * WORDS[kind] - 1
    negative = numbers < 0
    rest = np.abs(numbers)
    # From the last group to the first, so that each knows what stands before it.
    first = column - 2 * WORDS[kind] + 1
    last = column
    while column > first:
        rest, group = np.divmod(rest, 10**4)
        index = np.where(rest > 0, group + 10**4, group if column == last else group + 2 * 10**4)
        halves[:, column] = groups[index]
        column -= 1
    halves[:, first] = heads[rest + 1000 * negative]


class Rows:
    """A text of many rows in which only numbers change.

    Args:
        pieces: The constant texts of each row; a number stands behind each.
        kinds: The class of each of those fields.
    """

    def __init__(self, pieces: Sequence[npt.NDArray[np.bytes_]], kinds: Sequence[int]) -> None:
        self.kinds = tuple(kinds)
        count = len(pieces[0])
        widths = [-(-piece.dtype.itemsize // 8) * 8 for piece in pieces]
        fields = [8 * WORDS[kind] for kind in kinds]
        self._buffer = bytearray(count * (sum(widths) + sum(fields)))
        self._matrix: Bytes = np.frombuffer(self._buffer, np.uint8).reshape(count, -1)
        self._offsets = []
        start = 0
        for piece, width, field in zip(pieces, widths, fields, strict=True):
            length = piece.dtype.itemsize
            self._matrix[:, start : start + length] = piece.view(np.uint8).reshape(count, length)
            self._offsets.append(start + width)
            start += width + field

    def fill(self, *columns: Ints) -> bytes:
        """The text with these numbers in it."""
        for offset, column, kind in zip(self._offsets, columns, self.kinds, strict=True):
            write_numbers(self._matrix, offset, column, kind)
        return bytes(self._buffer.translate(None, b"\0"))


class NumberRows:
    """Rows whose fields grow with the numbers, and shrink when they have long been too wide."""

    _PATIENCE = 64

    def __init__(self, pieces: Sequence[npt.NDArray[np.bytes_]]) -> None:
        self._pieces = pieces
        self._rows: Rows | None = None
        self._idle = 0

    def fill(self, columns: Sequence[Ints], largest: Sequence[int]) -> bytes:
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
