"""Bearer tokens and the roles they stand for, from a file that nobody else may read.

[alice]
role = "overseer"
token = "…"          # at least 20 characters; `openssl rand -base64 32` makes one
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Final

from gbe_runtime.errors import ConfigurationError
from gbe_runtime.log import register_secret
from trinity_gate.index import Caller
from trinity_gate.models import Role

MIN_TOKEN: Final = 20
MAX_FILE: Final = 1 << 20

LOCAL: Final = Caller("local", Role.OVERSEER)
"""Who asks where no tokens are set: whoever reaches the loopback port."""

_RANK: Final = {Role.OBSERVER: 0, Role.OPERATOR: 1, Role.OVERSEER: 2}
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


def may(caller: Caller, needed: Role) -> bool:
    """Whether the caller's role includes the needed one."""
    return _RANK[Role(caller.role)] >= _RANK[needed]


class Tokens:
    """Who a token stands for. Kept and compared as digests."""

    def __init__(self, known: dict[str, tuple[str, Role]]) -> None:
        """`known`: token and role by name."""
        self._known = [(_digest(token), Caller(name, role.value)) for name, (token, role) in known.items()]

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Raises `ConfigurationError` where the file can't be trusted or understood."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigurationError(f"can't read the token file {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"the token file {path} is not a regular file")
            if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
                raise ConfigurationError(
                    f"the token file {path} is open to others (mode {status.st_mode & 0o777:04o}, expected 0600)",
                    f"chmod 600 {path}",
                )
            body = file.read(MAX_FILE + 1)
        try:
            document = tomllib.loads(body.decode()) if len(body) <= MAX_FILE else {}
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the token file {path} is not TOML: {error}") from error
        if not document:
            raise ConfigurationError(f"the token file {path} has no tokens", "expected: [name], role = …, token = …")
        problems: list[str] = []
        known: dict[str, tuple[str, Role]] = {}
        for name, entry in document.items():
            problem = _problem(name, entry)
            if problem:
                problems.append(f"{path}: [{name}] {problem}")
            else:
                known[name] = (entry["token"], Role(entry["role"]))
                register_secret(entry["token"])
        if problems:
            raise ConfigurationError(*problems)
        return cls(known)

    def caller(self, token: str) -> Caller | None:
        """Who it stands for; None where nobody. Takes as long whichever it is."""
        given, found = _digest(token), None
        for digest, caller in self._known:
            if hmac.compare_digest(digest, given):
                found = caller
        return found


def _problem(name: str, entry: object) -> str | None:
    if not _NAME.fullmatch(name):
        return "is no name: letters, digits, '.', '_', '-' and '@'"
    if not isinstance(entry, dict):
        return "is not a table with role and token"
    unknown = sorted(set(entry) - {"role", "token"})
    if unknown:
        return f"has unknown keys: {', '.join(unknown)}"
    if entry.get("role") not in list(Role):
        return f"role is {entry.get('role')!r}, expected {', '.join(Role)}"
    token = entry.get("token")
    if not isinstance(token, str) or len(token) < MIN_TOKEN or not _TOKEN.fullmatch(token):
        return f"token is not text of at least {MIN_TOKEN} letters, digits and ._~+/=-"
    return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
