"""Private working directories: one per attempt, below one per worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from gbe_runtime.private_directory import PrivateDirectory


class WorkDirs:
    """Makes and removes them."""

    def __init__(self, parent: Path | None) -> None:
        self._parent = parent
        self._own: PrivateDirectory | None = None
        self._count = 0

    @property
    def root(self) -> Path:
        """The worker's own directory, for nobody else; made at first access."""
        return self._private().path

    def make(self, task_id: str, attempt: int) -> Path:
        """A new directory."""
        self._count += 1
        return self._private().make(f"{task_id}-{attempt}-{self._count}")

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
        if self._own is not None:
            await self.remove(self._own.path)
            self._own.let_go()
            self._own = None

    def _private(self) -> PrivateDirectory:
        if self._own is None:
            self._own = PrivateDirectory("gbe-operative-", self._parent)
        return self._own


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():  # directories without write permission in it, perhaps
        for directory, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(directory, 0o700)
        shutil.rmtree(path, ignore_errors=True)
