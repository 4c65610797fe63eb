"""Sequences and mappings whose items are built when they are read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class LazySequence(Sequence[T], Generic[T]):
    """A sequence of `length()` items, each built by `build(index)` whenever it is read."""

    def __init__(self, length: Callable[[], int], build: Callable[[int], T]) -> None:
        self._length = length
        self._build = build

    def __len__(self) -> int:
        return self._length()

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._build(each) for each in range(*index.indices(self._length()))]
        length = self._length()
        if index < 0:
            index += length
        if not 0 <= index < length:
            raise IndexError("no such record")
        return self._build(index)

    def __iter__(self) -> Iterator[T]:
        for index in range(self._length()):
            yield self._build(index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905

    __hash__ = None  # type: ignore[assignment]


class ByTick(Mapping[int, T], Generic[T]):
    """A mapping from ticks to the items of a sequence."""

    def __init__(self, ticks: Sequence[int], items: Sequence[T]) -> None:
        self._ticks = ticks
        self._items = items

    def __len__(self) -> int:
        return len(self._ticks)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ticks)

    def __getitem__(self, tick: int) -> T:
        try:
            return self._items[self._ticks.index(tick)]
        except ValueError:
            raise KeyError(tick) from None
