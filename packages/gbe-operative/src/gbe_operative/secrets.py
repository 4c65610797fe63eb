"""Secrets of this host: `{secret: name}` as a param's value is looked up here and nowhere else."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

PREFIX = "GBE_SECRET_"


class InsecureSecrets(ValueError):
    """A file or directory of secrets that others may read, or that can't be read."""


class Secrets:
    """From the environment (`GBE_SECRET_<NAME>`, upper case, `-` and `.` as `_`), a TOML file of strings, or a
    directory with one file per secret (a trailing newline is not part of it). Files come before the environment."""

    def __init__(self, environment: Mapping[str, str] | None = None, path: Path | None = None) -> None:
        env = os.environ if environment is None else environment
        self._env = {name: value for name, value in env.items() if name.startswith(PREFIX)}
        self._values: dict[str, str] = {}
        self._directory: Path | None = None
        if path is not None:
            self._open(path)

    def get(self, name: str) -> str | None:
        """The secret, or None. Files of a directory are read each time: secrets rotate."""
        if self._directory is not None:
            file = self._directory / name
            if name not in (".", "..") and file.is_file():
                check_private(file)
                return file.read_text(encoding="utf-8").removesuffix("\n")
        if name in self._values:
            return self._values[name]
        return self._env.get(PREFIX + name.upper().replace("-", "_").replace(".", "_"))

    def _open(self, path: Path) -> None:
        check_private(path)
        if path.is_dir():
            self._directory = path
            return
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InsecureSecrets(f"secrets file {path}: {error}") from error
        wrong = [name for name, value in document.items() if not isinstance(value, str)]
        if wrong:
            raise InsecureSecrets(f"secrets file {path}: not strings: {', '.join(wrong)}")
        self._values = document


def check_private(path: Path) -> None:
    """Raises `InsecureSecrets` where others may use the file or directory, or where there is none."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InsecureSecrets(f"secrets {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise InsecureSecrets(f"secrets {path}: others may use it (mode {stat.S_IMODE(mode):04o}); chmod go= it")
