"""A directory of a process's own among the temporary files, that cleaners of those leave alone or that comes back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from pathlib import Path


class PrivateDirectory:
    """A new directory below `parent` (default: the system's for temporary files), for nobody else (0700).

    A process that lives for weeks must not depend on what a cleaner of temporary files thinks of it. So it is locked,
    which systemd's cleaner respects (tmpfiles.d(5): a BSD file lock), and made again at the same path by `make` where
    something removed it all the same. Raises OSError where it can't be made.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute()
        self._lock = -1
        self._hold()

    def make(self, name: str) -> Path:
        """A new directory in it. Raises OSError, also where its place is somebody else's by now."""
        path = self.path / name
        if not self.path.is_dir():
            self._make_again()
        if os.lstat(self.path).st_uid != os.geteuid():
            raise PermissionError(f"{self.path} was removed, and is somebody else's now")
        path.mkdir(0o700)
        return path

    def _make_again(self) -> None:
        missing = [self.path]
        while not (above := missing[-1].parent).is_dir():
            missing.append(above)
        found = above.stat()
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX and found.st_uid != os.geteuid():
            raise PermissionError(f"{self.path} was removed, and anybody could make it now: {above} is open to all")
        for each in reversed(missing):
            each.mkdir(0o700)
        self._hold()

    def let_go(self) -> None:
        """Give up the lock; the directory is its owner's to remove."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _hold(self) -> None:
        self.let_go()
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
