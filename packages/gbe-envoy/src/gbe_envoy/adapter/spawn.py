"""Starting a process: `posix_spawn` through ctypes.

`os.posix_spawn` would do, but it cannot set the child's working directory, which every attempt needs, and doing that
with a shell in between costs a second `exec` (half of the time of a short command). The C library has file actions
for it, and one for closing what must not leak; called directly it costs no more than `os.posix_spawn`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from gbe_envoy.adapter.errors import CommandError

_DARWIN = sys.platform == "darwin"
_SETSIGDEF = 0x04
_SETSIGMASK = 0x08
_SETSID = 0x400 if _DARWIN else 0x80
_CLOEXEC_DEFAULT = 0x4000 if _DARWIN else 0
# Larger than any C library's posix_spawnattr_t, posix_spawn_file_actions_t and sigset_t.
_ATTR_BYTES, _ACTIONS_BYTES, _SIGSET_BYTES = 1024, 512, 256

_ENCODING = sys.getfilesystemencoding()

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where executables are looked for when the child's environment has no PATH."""


class _CLibrary:
    """The C library's spawn functions, and the attributes which all children share."""

    def __init__(self) -> None:
        # CDLL releases the GIL during a call: other threads (a lease renewal, say) go on while the child execs.
        self.spawning = ctypes.CDLL(None)
        # PyDLL keeps it: for the calls that only fill a structure.
        self.filling = ctypes.PyDLL(None)
        self.add_chdir = getattr(self.filling, "posix_spawn_file_actions_addchdir_np", None)
        self.add_closefrom = getattr(self.filling, "posix_spawn_file_actions_addclosefrom_np", None)
        self.attributes = self.make_attributes(())

    def make_attributes(self, blocked: Collection[int]) -> ctypes.Array[ctypes.c_char]:
        """Attributes for children which start with these signals blocked."""
        attributes = ctypes.create_string_buffer(_ATTR_BYTES)
        signals = ctypes.create_string_buffer(_SIGSET_BYTES)
        library = self.filling
        library.posix_spawnattr_init(attributes)
        library.sigemptyset(signals)
        for number in blocked:
            library.sigaddset(signals, int(number))
        library.posix_spawnattr_setsigmask(attributes, signals)
        # Python ignores SIGPIPE, and a worker under nohup ignores SIGHUP: neither is the command's business.
        library.sigfillset(signals)
        library.posix_spawnattr_setsigdefault(attributes, signals)
        flags = _SETSID | _SETSIGDEF | _SETSIGMASK | _CLOEXEC_DEFAULT
        library.posix_spawnattr_setflags(attributes, ctypes.c_short(flags))
        return attributes


@lru_cache(maxsize=1)
def _library() -> _CLibrary:
    return _CLibrary()


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str | None,
    fds: Sequence[int],
    blocked: Collection[int] = (),
) -> int:
    """Start a process in a session and process group of its own; returns its pid, which is also its group's id.

    `fds[n]` becomes the child's descriptor n; the child has no others. Its signals are the defaults, and none but
    `blocked` is blocked.
    Raises CommandError when it cannot be started.
    """
    if not argv or not argv[0]:
        raise CommandError("cannot run an empty command")
    library = _library()
    path = env.get("PATH", DEFAULT_PATH)
    if cwd is not None and library.add_chdir is None:
        argv = _through_shell(argv, cwd)
        inner_cwd = None
    else:
        inner_cwd = cwd
    executable = find_executable(argv[0], path)
    try:
        # Encoding all at once costs a fraction of doing it one by one.
        arguments = "\0".join(argv).encode(_ENCODING, "surrogateescape").split(b"\0")
        variables = "\0".join([f"{name}={value}" for name, value in env.items()])
        environment = variables.encode(_ENCODING, "surrogateescape").split(b"\0") if env else []
        directory = None if inner_cwd is None else os.fsencode(inner_cwd)
    except UnicodeEncodeError as error:
        raise CommandError(f"cannot run {argv[0]!r}: an argument or variable cannot be encoded: {error}") from error
    if len(arguments) != len(argv) or len(environment) != len(env):
        raise CommandError(f"cannot run {argv[0]!r}: {_where_nul(env)} contains a NUL byte")
    # A descriptor below the targets would be overwritten before it is used (a worker with its stdin closed).
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(fds)) if fd < len(fds) else fd for fd in fds]
    actions = ctypes.create_string_buffer(_ACTIONS_BYTES)
    filling = library.filling
    filling.posix_spawn_file_actions_init(actions)
    try:
        for target, fd in enumerate(moved):
            filling.posix_spawn_file_actions_adddup2(actions, fd, target)
        if library.add_closefrom is not None:
            library.add_closefrom(actions, len(fds))
        if directory is not None and library.add_chdir is not None:
            library.add_chdir(actions, directory)
        pid = ctypes.c_int()
        code: int = library.spawning.posix_spawn(
            ctypes.byref(pid),
            os.fsencode(executable),
            actions,
            library.make_attributes(blocked) if blocked else library.attributes,
            (ctypes.c_char_p * (len(arguments) + 1))(*arguments),
            (ctypes.c_char_p * (len(environment) + 1))(*environment),
        )
    finally:
        filling.posix_spawn_file_actions_destroy(actions)
        for fd, original in zip(moved, fds, strict=True):
            if fd != original:
                os.close(fd)
    if code:
        find_executable.cache_clear()
        if code == errno.ENOENT and find_executable(argv[0], path) != executable:
            return spawn(argv, env, inner_cwd, fds, blocked)  # it has moved since it was looked up
        raise CommandError(_explain(code, executable, arguments, environment, cwd))
    return pid.value


def _through_shell(argv: Sequence[str], cwd: str) -> list[str]:
    """The same command behind a `cd`, for C libraries without `addchdir_np` (glibc before 2.29): one `exec` more."""
    return ["/bin/sh", "-c", 'cd -- "$0" && exec "$@"', cwd, *argv]


@lru_cache(maxsize=256)
def find_executable(name: str, path: str) -> str:
    """The file to execute for `name`, looked up in `path` as the child would; relative entries are left out.

    Raises CommandError when there is none.
    """
    if "/" in name:
        return name
    forbidden = None
    for directory in path.split(":"):
        if not directory.startswith("/"):
            continue
        candidate = f"{directory}/{name}"
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            forbidden = candidate
    if forbidden is not None:
        raise CommandError(f"cannot run {name!r}: {forbidden} is not executable")
    raise CommandError(f"cannot run {name!r}: no such executable in PATH ({path})")


def _where_nul(env: Mapping[str, str]) -> str:
    guilty = next((name for name, value in env.items() if "\0" in name or "\0" in value), None)
    return "an argument" if guilty is None else f"the variable {guilty!r}"


def _explain(
    code: int, executable: str, arguments: Sequence[bytes], variables: Sequence[bytes], cwd: str | None
) -> str:
    start = f"cannot run {executable!r}: "
    if code == errno.E2BIG:
        longest = max([*arguments, *variables], key=len)
        name, equals, _ = longest.partition(b"=")
        what = f"the variable {os.fsdecode(name)}" if equals and longest in variables else "an argument"
        sizes = f"arguments {sum(map(len, arguments))} bytes, environment {sum(map(len, variables))} bytes"
        return (
            f"{start}arguments and environment are too large for the system: {sizes}; "
            f"the longest is {what} with {len(longest)} bytes (the system takes about 128 KiB in one and 2 MiB in all)"
        )
    if cwd is not None and not os.path.isdir(cwd):
        return f"{start}the working directory {cwd} is not there"
    if cwd is not None and not os.access(cwd, os.X_OK):
        return f"{start}the working directory {cwd} may not be entered"
    located = os.path.join(cwd or "", executable)
    if code == errno.ENOENT and os.path.exists(located):
        return f"{start}the interpreter named in its first line is not there"
    if code == errno.EACCES and os.path.isdir(located):
        return f"{start}it is a directory"
    if code == errno.EACCES:
        return f"{start}it is not executable"
    if code == errno.ENOEXEC:
        return f"{start}it is neither a program nor a script with a #! line"
    if code == errno.EAGAIN:
        return f"{start}the system's limit of processes is reached"
    return f"{start}{os.strerror(code)}"
