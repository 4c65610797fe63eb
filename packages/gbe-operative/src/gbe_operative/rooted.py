"""Files that jobs name by path: below one directory of the host, which no path and no link leads out of.

A job's author need not be the host's owner. Whatever a path goes through, what counts is the file that was opened: it
is opened first, without side effects, and asked where it is then. So exchanging a directory for a link between a check
and the use gains nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

_LINUX = sys.platform == "linux"
_NO_EFFECT = os.O_PATH if _LINUX else os.O_RDONLY | os.O_NONBLOCK  # type: ignore[attr-defined,unused-ignore]
_MAX_PATH = 4096
_READ_BYTES = 1 << 20


class PathError(ValueError):
    """A path that can't be used; the text has the path and says why."""


@dataclass(frozen=True, slots=True)
class RootedFile:
    """An open file. `path`: where it really is, without a link on the way. `fd`: for reading; `close` it."""

    fd: int
    path: Path
    size: int

    def read(self, limit: int) -> bytes:
        """The content, from its start. Raises `PathError` where it is more than `limit` bytes, or can't be read."""
        if self.size > limit:
            raise PathError(f"{self.path}: {self.size} bytes are too many (limit {limit} bytes)")
        parts: list[bytes] = []
        at = 0
        try:
            while chunk := os.pread(self.fd, _READ_BYTES, at):
                at += len(chunk)
                if at > limit:
                    raise PathError(f"{self.path}: more than {limit} bytes (the limit)")
                parts.append(chunk)
        except OSError as error:
            raise PathError(f"{self.path}: {error.strerror}") from error
        return b"".join(parts)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)

    def __enter__(self) -> RootedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Root:
    """A directory that paths can't leave. Raises `PathError` where it is none.

    `setting`: what its owner names it by, for messages. A directory of None: there is none, and no path leads anywhere.
    """

    def __init__(self, directory: str | Path | None, setting: str = "") -> None:
        self.setting = setting
        self.path = None if directory is None else Path(os.path.realpath(directory))
        if self.path is not None and not self.path.is_dir():
            raise PathError(f"{directory}: not a directory")

    def __repr__(self) -> str:
        return f"Root({str(self.path)!r})"

    def open(self, path: str) -> RootedFile:
        """Open a regular file for reading; a relative path starts at the root. Blocks. Raises `PathError`."""
        located = self._located(path)
        handle = self._handle(path, located, _NO_EFFECT)
        try:
            status = os.fstat(handle)
            real = self._confined(path, handle)
            if stat.S_ISDIR(status.st_mode):
                raise PathError(f"{_shown(path)}: it is a directory, not a file")
            if not stat.S_ISREG(status.st_mode):
                raise PathError(f"{_shown(path)}: it is not a regular file")
            try:
                # The very file that was looked at, whatever its name leads to by now.
                fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC) if _LINUX else os.dup(handle)
            except OSError as error:
                raise PathError(f"{_shown(path)}: it can't be read: {error.strerror}") from error
        finally:
            os.close(handle)
        return RootedFile(fd, real, status.st_size)

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> Path:
        """Write a file so that at any moment it is wholly the old one or wholly the new one, also after a power cut.

        Its directory is there or is made. A file that exists keeps its mode; a link is replaced, not followed. Returns
        where it is. Blocks. Raises `PathError`.
        """
        located = self._located(path)
        name = os.path.basename(located)
        if name in ("", ".", "..") or path.endswith("/"):
            raise PathError(f"{_shown(path)}: no name of a file")
        parent = self._directory(path, os.path.dirname(located))
        try:
            real = self._confined(path, parent) / name
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    raise PathError(f"{_shown(path)}: it is a directory, not a file")
                if stat.S_ISREG(status.st_mode):
                    mode = stat.S_IMODE(status.st_mode) & 0o777
            _replace(parent, name, content, mode)
        except OSError as error:
            raise PathError(f"{_shown(path)}: it can't be written: {error.strerror}") from error
        finally:
            os.close(parent)
        return real

    # --- how ---

    def _located(self, path: str) -> str:
        """The path as an absolute one, links not looked at."""
        if not path or "\0" in path or len(path) > _MAX_PATH:
            raise PathError(f"{_shown(path)}: no path of a file")
        try:
            os.fsencode(path)
        except UnicodeEncodeError as error:
            raise PathError(f"{_shown(path)}: no path of a file") from error
        if self.path is None:
            raise PathError(f"{_shown(path)}: this host names no directory for such files{self._by_setting}")
        return os.path.join(self.path, path)

    def _handle(self, path: str, located: str, flags: int) -> int:
        try:
            return os.open(located, flags | os.O_CLOEXEC)
        except OSError as error:
            # Of what is outside not even its absence is told.
            if not self._within(Path(os.path.realpath(located))):
                raise self._outside(path) from error
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise PathError(f"{_shown(path)}: there is no such file in {self.path}") from error
            raise PathError(f"{_shown(path)}: it can't be read: {error.strerror}") from error

    def _directory(self, path: str, located: str) -> int:
        """A handle of the directory, which is made where it is missing, step by step within the root."""
        missing: list[str] = []
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        while True:
            try:
                handle = os.open(located, flags)
                break
            except FileNotFoundError:
                located, name = os.path.split(located)
                missing.append(name)
                if not name or name == "..":
                    raise self._outside(path) from None
            except OSError as error:
                raise PathError(f"{_shown(path)}: {located}: {error.strerror}") from error
        try:
            self._confined(path, handle)
            for name in reversed(missing):
                if name in ("", "."):
                    continue
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=handle)
                inner = os.open(name, flags | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = inner
        except OSError as error:
            os.close(handle)
            raise PathError(f"{_shown(path)}: its directory can't be made: {error.strerror}") from error
        except PathError:
            os.close(handle)
            raise
        return handle

    def _confined(self, path: str, handle: int) -> Path:
        """Where the open file is. Raises `PathError` where that is outside."""
        try:
            real = _path_of(handle)
        except OSError as error:
            raise PathError(f"{_shown(path)}: where it is can't be found out: {error.strerror}") from error
        if not self._within(real):
            raise self._outside(path)
        return real

    def _within(self, path: Path) -> bool:
        return self.path is not None and (path == self.path or self.path in path.parents)

    def _outside(self, path: str) -> PathError:
        return PathError(
            f"{_shown(path)}: it is outside of {self.path}, where this host lets tasks reach files{self._by_setting}"
        )

    @property
    def _by_setting(self) -> str:
        return f" ({self.setting})" if self.setting else ""


def _path_of(handle: int) -> Path:
    if _LINUX:
        return Path(os.readlink(f"/proc/self/fd/{handle}"))
    told = fcntl.fcntl(handle, fcntl.F_GETPATH, bytes(1024))  # type: ignore[attr-defined,unused-ignore]
    return Path(os.fsdecode(told.rstrip(b"\0")))


def _replace(parent: int, name: str, content: bytes, mode: int) -> None:
    temporary = f".{name[:100]}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=parent)
    try:
        try:
            with memoryview(content) as view:
                written = 0
                while written < len(view):
                    written += os.write(fd, view[written : written + _READ_BYTES])
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise
    os.fsync(parent)


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else path[:200] + "…")
