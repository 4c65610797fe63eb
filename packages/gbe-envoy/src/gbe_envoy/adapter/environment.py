"""The environment of a command: an allow-list of the host's variables, the params, and what the caller adds."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from gbe_envoy.adapter.errors import ParamError

VALUE_BYTES = 96 * 1024
"""The largest value of a param, in bytes. Linux takes 128 KiB in one `NAME=value`."""

TOTAL_BYTES = 1024 * 1024
"""The largest environment, in bytes, with 16 bytes counted for each variable. Linux takes 2 MiB with the arguments."""

DEFAULT_ALLOW: Collection[str] = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TERM",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""What commands inherit from the host; a trailing `*` stands for any rest. All else, secrets above all, stays."""

PROTECTED: Collection[str] = (
    # which programs and libraries run
    "PATH",
    "LD_*",
    "DYLD_*",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "LOCPATH",
    "NLSPATH",
    # how shells read what they are given
    "IFS",
    "ENV",
    "BASH_ENV",
    "BASH_FUNC_*",
    "BASHOPTS",
    "SHELLOPTS",
    "CDPATH",
    "PS4",
    "PROMPT_COMMAND",
    # who and where
    "HOME",
    "SHELL",
    "USER",
    "LOGNAME",
    "PWD",
    "OLDPWD",
    # what interpreters and tools load or run on start
    "PYTHON*",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PERL5*",
    "PERLLIB",
    "RUBY*",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "GIT_*",
    # ours
    "GBE_*",
)
"""What a param may not be called (`path` may be: case counts); a trailing `*` stands for any rest."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PER_VARIABLE = 16  # the pointer to it, the "=" and the NUL


class _Names:
    """A list of names, some of them prefixes."""

    def __init__(self, names: Collection[str]) -> None:
        self._whole = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self._whole or name.startswith(self._prefixes)


_PROTECTED = _Names(PROTECTED)
_DEFAULT_ALLOW = _Names(DEFAULT_ALLOW)


def build_environment(
    params: Mapping[str, str],
    *,
    base: Mapping[str, str],
    allow: Collection[str] = DEFAULT_ALLOW,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The whole environment of a command.

    Of `base` (the host's environment) what `allow` names, then `params`, then `extra` (the caller's own variables, such
    as `GBE_TASK_ID`: trusted, hence under no rule but the total size). Raises ParamError for a param which cannot be a
    variable: a protected name, a name no shell could read, a NUL, too large.
    """
    allowed = _DEFAULT_ALLOW if allow is DEFAULT_ALLOW else _Names(allow)
    environment = {name: value for name, value in base.items() if name in allowed}
    for name, value in params.items():
        _check(name, value)
        environment[name] = value
    if extra:
        environment.update(extra)
    _check_total(environment, params)
    return environment


def _check(name: str, value: str) -> None:
    if not _NAME.match(name):
        raise ParamError(name, "cannot be an environment variable: a name has letters, digits and _ only")
    if name in _PROTECTED:
        raise ParamError(name, "is a protected environment variable and cannot be set by a param")
    if "\0" in value:
        raise ParamError(name, f"contains a NUL byte, which no environment variable can; use {name}_ref")
    size = _size(name, value)
    if size > VALUE_BYTES:
        raise ParamError(
            name, f"{size} bytes are too large for an environment variable (limit {VALUE_BYTES} bytes); use {name}_ref"
        )


def _size(name: str, value: str) -> int:
    if value.isascii():
        return len(value)
    try:
        # As the operating system will get it: the host's undecodable bytes come as lone surrogates.
        return len(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise ParamError(name, f"cannot be encoded as UTF-8: {error}") from error


def _check_total(environment: Mapping[str, str], params: Mapping[str, str]) -> None:
    # Characters first: only an environment near the limit needs to be encoded to be measured.
    total = sum(len(name) + len(value) + _PER_VARIABLE for name, value in environment.items())
    if total * 4 <= TOTAL_BYTES:
        return
    total = sum(len(name) + _size(name, value) + _PER_VARIABLE for name, value in environment.items())
    if total > TOTAL_BYTES:
        largest = max(params, key=lambda name: len(params[name]), default="")
        raise ParamError(
            largest,
            f"the environment is {total} bytes (limit {TOTAL_BYTES} bytes), this the largest param; use {largest}_ref"
            if largest
            else f"the environment is {total} bytes (limit {TOTAL_BYTES} bytes) without any param",
        )
