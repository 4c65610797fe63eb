"""The guardian: a small process which cleans up after a worker that was killed.

The runner starts this file as a script with a bare interpreter (about 10 ms), so it imports next to nothing. It holds
the read end of a pipe of the worker, and the worker's pidfd. When either says that the worker is gone without a
goodbye, the guardian ends what the worker's commands left: SIGTERM, a third of a second, SIGKILL; then it removes the
directories it was told of. It finds the processes in three ways, for each alone has a hole:

- by group and session: the worker notes the groups in a table in shared memory, at the cost of a store;
- by the marker in their environment, on Linux: this covers a command killed between its start and the note, and
  descendants which left their session;
- again and again for a second, for a process may be between fork and exec when it is looked for.

The functions for finding and signalling are the runner's too. Records on the pipe: a byte (+ add a directory, - forget
it, Q goodbye), the length of the path (4 bytes, big-endian), the path.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

MARKER = "GBE_GUARDIAN"
"""The variable which marks a command and its descendants; its value is `<token of the runner>.<number>.`."""

TABLE_SLOTS = 4096
"""Groups which the table in shared memory holds, 8 bytes each, 0 for none; those beyond are found by the marker."""

ADD, FORGET, GOODBYE = b"+", b"-", b"Q"

_TABLE_FD = 3
_GRACE = 0.3
_STEP = 0.02
_KILL_AFTER = (0.0, 0.05, 0.1, 0.2, 0.4, 0.4)
_LINUX = sys.platform == "linux"


def record(kind: bytes, path: bytes = b"") -> bytes:
    """One record for the pipe."""
    return kind + len(path).to_bytes(4, "big") + path


def find(groups: frozenset[int], marker: bytes) -> list[int]:
    """The live processes (no zombies) in one of the groups or sessions, or with the marker in their environment.

    Empty where there is no /proc.
    """
    if not _LINUX:
        return []
    own = os.getpid()
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [pid for pid in pids if pid != own and _belongs(pid, groups, marker)]


def _belongs(pid: int, groups: frozenset[int], marker: bytes) -> bool:
    try:
        if os.getpgid(pid) in groups or os.getsid(pid) in groups:
            with open(f"/proc/{pid}/stat", "rb") as file:
                return file.read().rpartition(b") ")[2][:1] not in b"ZX"
        with open(f"/proc/{pid}/environ", "rb") as file:
            return marker in file.read()
    except OSError:  # gone, or another user's
        return False


def send(groups: frozenset[int], marker: bytes, number: int) -> None:
    """Send a signal, once, to the groups and to all else that `find` finds."""
    for group in groups:
        try:
            os.killpg(group, number)
        except OSError:
            continue
    send_to_strays(groups, marker, number)


def send_to_strays(groups: frozenset[int], marker: bytes, number: int) -> None:
    """Send a signal to what `find` finds outside of the groups."""
    for pid in find(groups, marker):
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # The handle pins the process; looking again makes sure that it pins the right one.
            if os.getpgid(pid) not in groups and _belongs(pid, groups, marker):
                signal.pidfd_send_signal(handle, number)
        except OSError:
            pass
        finally:
            os.close(handle)


def terminate_all(groups: frozenset[int], marker: bytes, grace: float) -> None:
    """SIGTERM, wait until all are gone or `grace` seconds are over, SIGKILL. Blocks."""
    end = time.monotonic() + grace
    send(groups, marker, signal.SIGTERM)
    send(groups, marker, signal.SIGCONT)
    while time.monotonic() < end and (find(groups, marker) or not _LINUX):
        time.sleep(_STEP)
    send(groups, marker, signal.SIGKILL)


def remove_tree(path: bytes) -> None:
    """Remove a directory with all in it, or a file; what cannot be removed stays. Follows no link."""
    if not path.startswith(b"/") or path.strip(b"/.") == b"":
        return
    try:
        with os.scandir(path) as entries:
            names = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in names:
            if is_directory:
                os.chmod(name, 0o700)
                remove_tree(name)
            else:
                os.unlink(name)
        os.rmdir(path)
    except NotADirectoryError:
        os.unlink(path)
    except OSError:
        return


class _Pipe:
    """The records from the worker."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = b""
        self.paths: set[bytes] = set()
        self.goodbye = False
        os.set_blocking(fd, False)

    def read(self) -> bool:
        """Takes in what is there; False when the worker has closed the pipe."""
        while True:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._data += data
            self._parse()

    def _parse(self) -> None:
        while len(self._data) >= 5:
            kind, end = self._data[:1], 5 + int.from_bytes(self._data[1:5], "big")
            if len(self._data) < end:
                return
            path, self._data = self._data[5:end], self._data[end:]
            if kind == ADD:
                self.paths.add(path)
            elif kind == FORGET:
                self.paths.discard(path)
            elif kind == GOODBYE:
                self.goodbye = True


def _wait_for_end(worker: int, pipe: _Pipe) -> None:
    """Returns when the worker has said goodbye or is gone."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    handle = -1
    # The pipe alone would not do: a child which the worker forked without exec holds a copy of its end.
    if hasattr(os, "pidfd_open"):
        try:
            handle = os.pidfd_open(worker)
        except OSError:
            pipe.read()
            return
        poll.register(handle, select.POLLIN)
    while not pipe.goodbye:
        ready = [fd for fd, _ in poll.poll(None if handle >= 0 else 500)]
        gone = handle in ready if handle >= 0 else os.getppid() != worker
        if not pipe.read() or gone:
            return


def _groups() -> frozenset[int]:
    table = os.pread(_TABLE_FD, TABLE_SLOTS * 8, 0)
    return frozenset(memoryview(table).cast("q")) - {0}


def main() -> None:
    worker, marker = int(sys.argv[1]), sys.argv[2].encode()
    pipe = _Pipe(0)
    _wait_for_end(worker, pipe)
    if pipe.goodbye:
        return
    groups = _groups()
    terminate_all(groups, marker, _GRACE)
    for delay in _KILL_AFTER:
        time.sleep(delay)
        send(groups, marker, signal.SIGKILL)
    for path in pipe.paths:
        remove_tree(path)


if __name__ == "__main__":
    main()
