"""The process that processes which render are forked from, with Jinja imported: a rendering takes 5 ms, not 100.

Descriptor 3 is the control socket (`messages`). A forked process renders one template under limits of memory and
time, and ends: no template sees anything of another. When the control socket is closed, all end.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Never

from gbe_operative_template.messages import CANCEL, ENDED, READY, RECORD, RENDER, TIMEOUT, Answer, Order
from gbe_operative_template.rendering import environment, render

CONTROL_FD = 3

_CHUNK = 1 << 20


class ForkServer:
    """One thread, since it forks."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._deadlines: dict[int, float] = {}
        self._late: set[int] = set()

    def run(self) -> None:
        """Until the control socket is closed."""
        wake, wake_end = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._say(READY, 0, 0)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self._milliseconds())}
            if wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            self._reap()
            if self._control.fileno() in ready and not self._listen():
                break
            self._kill_late()
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL)

    def _milliseconds(self) -> float | None:
        if not self._deadlines:
            return None
        return max(0.0, min(self._deadlines.values()) - time.monotonic()) * 1000 + 1

    def _listen(self) -> bool:
        """Take one record; False where there will be no more."""
        record, fds, _, _ = socket.recv_fds(self._control, RECORD.size, 1)
        while record and len(record) < RECORD.size:
            more = self._control.recv(RECORD.size - len(record))
            if not more:
                return False
            record += more
        if not record:
            return False
        kind, number, seconds = RECORD.unpack(record)
        if kind == RENDER and fds:
            self._fork(number, seconds, fds[0])
        elif kind == CANCEL and number in self._pids:
            os.kill(self._pids[number], signal.SIGKILL)
        return True

    def _fork(self, number: int, seconds: float, fd: int) -> None:
        try:
            pid = os.fork()
        except OSError:
            os.close(fd)
            self._say(ENDED, number, -signal.SIGKILL)
            return
        if pid == 0:
            _render_and_exit(self._control, fd, seconds)
        os.close(fd)
        self._pids[number], self._numbers[pid] = pid, number
        self._deadlines[pid] = time.monotonic() + seconds

    def _kill_late(self) -> None:
        now = time.monotonic()
        for pid, deadline in list(self._deadlines.items()):
            if deadline <= now:
                del self._deadlines[pid]
                self._late.add(pid)
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._numbers.pop(pid)
            del self._pids[number]
            self._deadlines.pop(pid, None)
            late = pid in self._late
            self._late.discard(pid)
            self._say(TIMEOUT if late else ENDED, number, os.waitstatus_to_exitcode(status))

    def _say(self, kind: bytes, number: int, value: float) -> None:
        with contextlib.suppress(OSError):  # then the control socket is closed, and that is heard next
            self._control.sendall(RECORD.pack(kind, number, value))


def _render_and_exit(control: socket.socket, fd: int, seconds: float) -> Never:
    """The forked process."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        with socket.socket(fileno=fd) as wire:
            order: Order = json.loads(_received(wire))
            _limit(order["memory"], seconds)
            try:
                answer = render(order)
            except MemoryError:
                answer = _too_much_memory(order)
            wire.sendall(json.dumps(answer).encode())
        code = 0
    except MemoryError:
        code = 2
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)


def _too_much_memory(order: Order) -> Answer:
    return {"error": f"{order['name']}: it takes more than {order['memory'] >> 20} MiB of memory", "kind": "failed"}


def _received(wire: socket.socket) -> bytes:
    parts = []
    while part := wire.recv(_CHUNK):
        parts.append(part)
    return b"".join(parts)


def _limit(memory: int, seconds: float) -> None:
    """So much memory more than now, and no more time at work than it has by the clock."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds_at_work = int(seconds) + 2
    _lower(resource.RLIMIT_CPU, seconds_at_work)
    try:
        with open("/proc/self/statm", "rb") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return  # no Linux: the time limit alone
    _lower(resource.RLIMIT_AS, now + memory)


def _lower(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    wanted = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (wanted, wanted))


def main() -> None:
    """Serve descriptor 3."""
    # What every template needs is done once, and none of it is copied at a fork by the garbage collector's marks.
    environment().from_string("{% for i in [1] %}{{ i|upper }}{% endfor %}").render()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=CONTROL_FD) as control:
        ForkServer(control).run()


if __name__ == "__main__":
    main()
