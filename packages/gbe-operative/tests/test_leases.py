"""Leases of a worker that was stopped (SIGSTOP, a host that slept)."""

from __future__ import annotations

import pytest

from gbe_operative import leases
from gbe_operative.leases import Leases


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(leases, "clock", made)
    return made


def test_a_beat_on_time_raises_no_doubt(clock: Clock) -> None:
    happened: list[str] = []
    held = Leases(6.0, lambda: happened.append("beat"), lambda: happened.append("stall"))
    clock.now += 2.0
    held.beat()
    assert happened == ["beat"]
    assert not held.stalled


def test_a_beat_that_comes_first_after_a_stop_says_so(clock: Clock) -> None:
    """The loop serves timers before sockets. A beat that only set the clock anew would have the messages that waited
    in the socket all the while, and are somebody else's by now, taken for fresh ones."""
    happened: list[str] = []
    held = Leases(6.0, lambda: happened.append("beat"), lambda: happened.append("stall"))
    clock.now += 20.0
    assert held.stalled
    held.beat()
    assert happened == ["stall", "beat"]
    assert not held.stalled
