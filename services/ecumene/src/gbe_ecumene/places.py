"""The directory of a `gbe run` that brings everything along, and those that killed ones left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "gbe-run-"
_NAME: Final = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")
"""As `mkdtemp` makes them."""
CONTENTS: Final = frozenset({"data", "logs"})
"""All there is in one; with anything else it is somebody's own."""
SETTLED: Final = 60.0
"""Seconds of age below which a directory is left alone: its run may just be starting, or its processes ending."""
AT_ONCE: Final = 20
"""Directories that one run removes at most: it has something else to do."""


@contextlib.contextmanager
def run_place() -> Iterator[Path]:
    """A directory for one run, held by a lock on it and gone afterwards; so are some of those that nobody holds."""
    place = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: then nobody removes it for us
            fcntl.flock(held, fcntl.LOCK_EX)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(held)
        with contextlib.suppress(OSError):
            remove_abandoned(place.parent)


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove the directories of this user's runs that were killed. Returns those that it removed.

    Abandoned is one whose run and whose server hold no lock any more; the server may outlive the run for a moment.
    What only has such a name, and was not made by a run, stays.
    """
    removed: list[Path] = []
    before = time.time() - SETTLED
    with os.scandir(parent) as entries:
        for entry in entries:
            if len(removed) == AT_ONCE:
                break
            with contextlib.suppress(OSError):
                if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    private = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700
                    if private and found.st_mtime < before and _removed(Path(entry.path)):
                        removed.append(Path(entry.path))
    return removed


def _removed(place: Path) -> bool:
    with contextlib.ExitStack() as stack:
        # Never through a link: what is removed is this very directory.
        locks = [os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY)]
        stack.callback(os.close, locks[0])
        if not CONTENTS.issuperset(os.listdir(locks[0])):
            return False
        with contextlib.suppress(FileNotFoundError):  # killed before its server was there
            locks.append(os.open("data/lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=locks[0]))
            stack.callback(os.close, locks[1])
        try:
            for lock in locks:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(place, ignore_errors=True)
        return True
