"""Private working directories: one per attempt, below one per worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path


class WorkDirs:
    """Makes and removes them."""

    def __init__(self, parent: Path | None) -> None:
        self._parent = parent
        self._root: Path | None = None
        self._count = 0

    @property
    def root(self) -> Path:
        """The worker's own directory, for nobody else; made at first access."""
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="gbe-operative-", dir=self._parent))
        return self._root

    def make(self, task_id: str, attempt: int) -> Path:
        """A new directory."""
        self._count += 1
        path = self.root / f"{task_id}-{attempt}-{self._count}"
        path.mkdir(0o700)
        return path

    async def remove(self, path: Path) -> None:
        """Remove it with whatever the task left in it."""
        try:
            os.rmdir(path)  # most leave nothing
        except FileNotFoundError:
            return
        except OSError:
            await asyncio.to_thread(_remove_tree, path)

    async def close(self) -> None:
        """Remove everything."""
        if self._root is not None:
            await self.remove(self._root)
            self._root = None


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():  # directories without write permission in it, perhaps
        for directory, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(directory, 0o700)
        shutil.rmtree(path, ignore_errors=True)
