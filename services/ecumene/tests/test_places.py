"""The directory of a run, and those of runs that were killed."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from gbe_ecumene.places import AT_ONCE, PREFIX, remove_abandoned, run_place


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left(parent: Path) -> Path:
    """As a killed run leaves it, long ago."""
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    (place / "data").mkdir()
    (place / "data" / "lock").touch()
    os.utime(place, (1, 1))
    return place


def test_a_place_is_gone_afterwards_and_so_is_what_killed_runs_left(temporary: Path) -> None:
    old = left(temporary)
    with run_place() as place:
        assert place.parent == temporary
        assert old.exists(), "nothing waits for this at the start"
    assert list(temporary.iterdir()) == []


def test_what_is_held_stays(temporary: Path) -> None:
    with run_place() as place:
        os.utime(place, (1, 1))  # a long one
        assert remove_abandoned(temporary) == []
    served = left(temporary)
    with (served / "data" / "lock").open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its server outlives it for a moment
        assert remove_abandoned(temporary) == []
    assert remove_abandoned(temporary) == [served]


def test_what_is_new_or_nobodys_stays(temporary: Path) -> None:
    starting = left(temporary)
    os.utime(starting)
    (temporary / "gbe-other").mkdir()
    own = left(temporary)
    (own / "results.csv").touch()
    named = left(temporary).rename(temporary / f"{PREFIX}results")
    shown = left(temporary)
    shown.chmod(0o755)
    for mine in (own, named, shown):
        os.utime(mine, (1, 1))
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    link = temporary / f"{PREFIX}linklink"
    link.symlink_to(elsewhere)
    os.utime(link, (1, 1), follow_symlinks=False)
    (temporary / f"{PREFIX}filefile").touch()
    os.utime(temporary / f"{PREFIX}filefile", (1, 1))
    before = sorted(temporary.iterdir())
    assert remove_abandoned(temporary) == []
    assert sorted(temporary.iterdir()) == before


def test_one_that_was_killed_before_its_server_came(temporary: Path) -> None:
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=temporary))
    os.utime(place, (1, 1))
    assert remove_abandoned(temporary) == [place]


def test_many_are_removed_by_and_by(temporary: Path) -> None:
    for _ in range(AT_ONCE + 5):
        left(temporary)
    assert len(remove_abandoned(temporary)) == AT_ONCE
    assert len(remove_abandoned(temporary)) == 5
