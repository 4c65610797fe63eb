"""Counters and gauges of a role. They travel in the load of its heartbeat; there is no server to ask."""

from __future__ import annotations

from collections.abc import Callable


class Counter:
    """Something that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        """Count `amount` more."""
        self.value += amount


class Gauge:
    """Something that goes up and down: set by its owner, or read by a function when somebody looks."""

    __slots__ = ("_read", "_value")

    def __init__(self, read: Callable[[], float] | None = None) -> None:
        self._value: float = 0
        self._read = read

    @property
    def value(self) -> float:
        """The value now."""
        return self._value if self._read is None else self._read()

    def set(self, value: float) -> None:
        """Set it."""
        self._value = value


class Metrics:
    """Name to counter or gauge. The same name gives the same one."""

    def __init__(self) -> None:
        self._all: dict[str, Counter | Gauge] = {}

    def counter(self, name: str) -> Counter:
        """The counter of that name, made on first use."""
        found = self._all.setdefault(name, Counter())
        if not isinstance(found, Counter):
            raise ValueError(f"{name!r} is a gauge")
        return found

    def gauge(self, name: str, read: Callable[[], float] | None = None) -> Gauge:
        """The gauge of that name, made on first use, read by `read` where that is given then."""
        found = self._all.setdefault(name, Gauge(read))
        if not isinstance(found, Gauge):
            raise ValueError(f"{name!r} is a counter")
        return found

    def snapshot(self) -> dict[str, float]:
        """All values now, by name."""
        return {name: metric.value for name, metric in self._all.items()}
