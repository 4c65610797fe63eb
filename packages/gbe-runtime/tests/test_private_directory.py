"""A cleaner of temporary files and a process that lives for weeks."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

import pytest

from gbe_runtime.private_directory import PrivateDirectory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_ours_alone_and_locked_as_long_as_it_is_held(tmp_path: Path) -> None:
    own = PrivateDirectory("gbe-", tmp_path)
    made = own.make("a")
    assert (made, mode(own.path), mode(made)) == (own.path / "a", 0o700, 0o700)
    cleaner = os.open(own.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        own.let_go()
        fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(cleaner)


def test_removed_it_comes_back_at_its_place_with_what_lies_above_it(tmp_path: Path) -> None:
    outer = PrivateDirectory("outer-", tmp_path)
    inner = PrivateDirectory("inner-", outer.path)
    inner.make("1")
    shutil.rmtree(outer.path)
    assert inner.make("2") == inner.path / "2"
    assert outer.make("3") == outer.path / "3"
    assert {mode(outer.path), mode(inner.path)} == {0o700}
    with pytest.raises(FileExistsError):
        outer.make("3")
    outer.let_go()
    inner.let_go()


def test_it_does_not_come_back_where_anybody_could_put_another(tmp_path: Path) -> None:
    """Not refused as long as it is there: sticky or not is then the matter of who chose the place."""
    own = PrivateDirectory("gbe-", tmp_path)
    shutil.rmtree(own.path)
    tmp_path.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, -1)
        with pytest.raises(PermissionError, match="is open to all"):
            own.make("a")
        own.path.mkdir()
        os.chown(own.path, 12345, -1)
        with pytest.raises(PermissionError, match="somebody else's now"):
            own.make("a")
        os.chown(tmp_path, 0, -1)
    else:  # one's own, however open, is one's own
        assert own.make("a").is_dir()
    own.let_go()
