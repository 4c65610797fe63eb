"""The embedded server: a `nats-server` of one's own, with JetStream in a data directory and credentials made for it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from gbe_nexus.connect import ConnectOptions
from gbe_nexus.errors import NexusError, Refused, UnsuitableServer
from gbe_nexus_nats.binary import OLDEST, find_server, parse_version
from gbe_nexus_nats.process import GuardedProcess

HOST = "127.0.0.1"
NO_LIMIT = 1 << 50

# Outside the range from which systems take the ports of outgoing connections (32768 up on Linux). A client that tries
# to reconnect to a port in that range, while the server is down, can be given that very port and then talks to itself.
_PORTS = range(20_000, 32_000)


class ServerError(NexusError):
    """The embedded server could not be started or went away; the text has the reason, where known from its log."""


class PortTaken(ServerError):
    """Another process listens on the wanted port."""


class DataDirectoryInUse(ServerError):
    """Another server runs on the data directory."""


class Credentials(msgspec.Struct, frozen=True):
    """What a server demands; made once per data directory."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


class ClusterSeat(msgspec.Struct, frozen=True):
    """A server's place in a cluster: its own route port and those of all members."""

    name: str
    port: int
    routes: tuple[int, ...]
    secret: str


class EmbeddedServer:
    """A `nats-server` on the loopback interface, run as a child process.

    `data`: its directory (made where it does not exist, mode 0700); None = a temporary one, removed by `stop`.
    `port`: 0 = a free one, kept over restarts of this object. `sync_interval`: how often writes are flushed to the
    disk (`"always"`, `"10s"`); None = the server's default (2 min; an ack survives a crash of the server then, but
    perhaps not one of the machine). `max_file_store`: bytes; None = no limit but the disk. `users`: more users with the
    same password, name to the server's `permissions` block, for example `{"guest": 'publish: {deny: "gbe.>"}'}`.

    All its files are in the data directory: `server.conf` and `credentials.json` (0600: secrets are never on a
    command line), `server.log`, `jetstream/`. The server holds a lock on the directory as long as it lives, dies
    with its parent, and ignores the terminal's Ctrl-C. Usable from any event loop, by one task at a time.
    """

    def __init__(
        self,
        data: Path | str | None = None,
        *,
        port: int = 0,
        sync_interval: str | None = None,
        max_payload: int | None = None,
        max_file_store: int | None = None,
        users: Mapping[str, str] | None = None,
        name: str | None = None,
        executable: Path | None = None,
        seat: ClusterSeat | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._temporary = data is None
        self._data = None if data is None else Path(data).absolute()
        self._wanted_port = port
        self._port = port
        self._sync_interval = sync_interval
        self._max_payload = max_payload
        self._max_file_store = max_file_store
        self._users = dict(users or {})
        self._name = name
        self._executable = executable
        self._seat = seat
        self._credentials = credentials
        self._process: GuardedProcess | None = None
        self._version = ""

    # --- what it is ------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:port`, without any secret."""
        if self._port == 0:
            raise ServerError("the embedded server was not started yet")
        return f"nats://{HOST}:{self._port}"

    @property
    def port(self) -> int:
        """The port; 0 before the first start where none was asked for."""
        return self._port

    @property
    def options(self) -> ConnectOptions:
        """What `connect` needs besides the URL."""
        return self.options_for(None)

    def options_for(self, user: str | None) -> ConnectOptions:
        """The same for one of the other `users`."""
        if self._credentials is None:
            raise ServerError("the embedded server was not started yet")
        return ConnectOptions(
            user=user or self._credentials.user,
            password=self._credentials.password,
            replicas=len(self._seat.routes) if self._seat else 1,
        )

    @property
    def data(self) -> Path:
        """The data directory."""
        if self._data is None:
            raise ServerError("the embedded server was not started yet")
        return self._data

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.data / "server.log"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.code is None else None

    @property
    def running(self) -> bool:
        """Whether the process is there (it may be suspended)."""
        return self.pid is not None

    @property
    def version(self) -> str:
        """The server's version, after the first start."""
        return self._version

    # --- start and stop --------------------------------------------------------------------------

    async def start(self, timeout: float = 10.0) -> None:
        """Start it; returns when it takes connections and JetStream is up. Fine where it runs already.

        Raises `UnsuitableServer` (none found, too old), `PortTaken`, `DataDirectoryInUse`, `ServerError`.
        """
        if self.running:
            return
        executable = self._executable
        if executable is None:
            executable = await asyncio.to_thread(find_server)
        tries = 1 if self._port else 5
        for left in reversed(range(tries)):
            port = self._port or free_port()
            try:
                await self._start(executable, port, timeout)
            except PortTaken:
                if not left:
                    raise
            else:
                self._port = port
                return

    async def stop(self, timeout: float = 10.0) -> None:
        """End it in order (after `timeout` seconds by force) and remove a temporary directory. Twice is fine."""
        await self._end(signal.SIGINT, timeout)
        if self._temporary and self._data is not None:
            await asyncio.to_thread(shutil.rmtree, self._data, ignore_errors=True)
            self._data = self._credentials = None

    async def kill(self) -> None:
        """End it as a crash would: SIGKILL. The data stays."""
        await self._end(signal.SIGKILL, 10.0)

    async def restart(self, timeout: float = 10.0) -> None:
        """Start it again on the same port and data, after ending it in order where it runs."""
        await self._end(signal.SIGINT, timeout)
        await self.start(timeout)

    def suspend(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered from here on."""
        if self._process is not None:
            self._process.suspend()

    def resume(self) -> None:
        """SIGCONT, after `suspend`."""
        if self._process is not None:
            self._process.send(signal.SIGCONT)

    async def wait(self) -> int:
        """Wait for its end, whatever ends it; returns the exit code. For whoever supervises it."""
        if self._process is None:
            raise ServerError("the embedded server was not started yet")
        return await self._process.wait()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- how ---------------------------------------------------------------------------------------

    async def _start(self, executable: Path, port: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        try:
            self._prepare_directory()
            lock = await self._lock(deadline)
            try:
                self._write_config(port)
                log = self.log.open("ab")
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise _directory_error(self.data, error) from error
        log_start = log.tell()
        with log, _closing(lock):  # the process has its own copies of both
            try:
                self._process = GuardedProcess(
                    [str(executable), "--config", str(self.data / "server.conf")],
                    output=log,
                    keep_fd=lock,
                    directory=self.data,
                )
            except OSError as error:
                raise UnsuitableServer(f"{executable} does not run: {error}") from error
        try:
            await self._ready(port, deadline)
        except BaseException as error:
            await self.kill()
            if isinstance(error, _Exited | TimeoutError):
                raise self._start_error(port, log_start, isinstance(error, TimeoutError)) from None
            raise

    async def _end(self, number: signal.Signals, timeout: float) -> None:
        process = self._process
        if process is None or process.code is not None:
            return
        process.send(number)
        process.send(signal.SIGCONT)  # a suspended one would sit on the signal
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            process.send(signal.SIGKILL)
            await process.wait()

    def _prepare_directory(self) -> None:
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="gbe-nats-"))
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._data.chmod(0o700)
        (self._data / "ports").mkdir(exist_ok=True)

    async def _lock(self, deadline: float) -> int:
        """A lock on the data directory. The server inherits it, so it is held exactly as long as that lives."""
        fd = os.open(self.data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # After a crash of `gbe up` its server may need a moment to go; somebody else's stays.
        patience = min(deadline, time.monotonic() + 2.0)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > patience:
                    os.close(fd)
                    raise DataDirectoryInUse(f"{self.data} is in use by another server{_holder(self.data)}") from None
                await asyncio.sleep(0.01)
            except BaseException:
                os.close(fd)
                raise
            else:
                return fd

    def _write_config(self, port: int) -> None:
        if self._credentials is None:
            self._credentials = _make_credentials(self.data / "credentials.json")
        for old in (self.data / "ports").iterdir():  # a killed server leaves its file behind
            old.unlink()
        _write_private(self.data / "server.conf", self._config(port, self._credentials))

    def _config(self, port: int, credentials: Credentials) -> str:
        password = json.dumps(credentials.password)
        users = [f"{{user: {json.dumps(credentials.user)}, password: {password}}}"]
        users += [
            f"{{user: {json.dumps(name)}, password: {password}, permissions: {{{permissions}}}}}"
            for name, permissions in self._users.items()
        ]
        jetstream = [f"store_dir: {json.dumps(str(self.data))}"]
        # Without a number the server takes three quarters of the disk's free space, and refuses to make streams whose
        # limits together are more than that, however little they hold.
        jetstream.append(f"max_file_store: {self._max_file_store or NO_LIMIT}")
        if self._sync_interval is not None:
            jetstream.append(f"sync_interval: {json.dumps(self._sync_interval)}")
        lines = [
            f"listen: {json.dumps(f'{HOST}:{port}')}",
            f"jetstream {{{', '.join(jetstream)}}}",
            f"authorization {{users: [{', '.join(users)}]}}",
            f"ports_file_dir: {json.dumps(str(self.data / 'ports'))}",
            f"pid_file: {json.dumps(str(self.data / 'server.pid'))}",
            f"log_file: {json.dumps(str(self.log))}",
            "log_size_limit: 10MB",
            "logfile_max_num: 3",
        ]
        if self._max_payload is not None:
            lines.append(f"max_payload: {self._max_payload}")
        name = self._seat.name if self._seat else self._name
        if name is not None:
            lines.append(f"server_name: {json.dumps(name)}")
        if self._seat is not None:
            lines.append(_cluster_block(self._seat))
        return "\n".join(lines) + "\n"

    async def _ready(self, port: int, deadline: float) -> None:
        """Wait for the file in which this very process says what it listens on; then for its greeting."""
        assert self._process is not None
        path = self.data / "ports"
        while not any(path.glob(f"*_{self._process.pid}.ports")):
            if self._process.code is not None:
                raise _Exited
            if time.monotonic() > deadline:
                raise TimeoutError
            await asyncio.sleep(0.002)
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            info = await _greeting(port)
        self._version = str(info.get("version", ""))
        if parse_version(self._version) < OLDEST:
            raise UnsuitableServer(f"the server is nats-server {self._version}, needed is {OLDEST[0]}.{OLDEST[1]}")
        if not info.get("jetstream"):
            raise UnsuitableServer("the embedded server came up without JetStream")

    def _start_error(self, port: int, log_start: int, timed_out: bool) -> ServerError:
        said = _last_complaint(self.log, log_start)
        if "address already in use" in said:
            return PortTaken(f"port {port} on {HOST} is taken by another process")
        if timed_out:
            return ServerError(f"nats-server did not get ready in time; last in {self.log}: {said}")
        return ServerError(f"nats-server did not start: {said}")


class _Exited(Exception):
    """The process ended before it was ready."""


def free_port() -> int:
    """A port on the loopback interface that nobody listens on now."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            # As the server does it: what a closed connection left behind does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise PortTaken(f"found no free port from {_PORTS.start} to {_PORTS.stop} on {HOST}")


async def _greeting(port: int) -> dict[str, Any]:
    """What the server says to every connection before anything else."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 20)
    try:
        line = await reader.readline()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    kind, _, body = line.partition(b" ")
    if kind != b"INFO":
        raise Refused(f"no nats-server answers on port {port}")
    return msgspec.json.decode(body, type=dict[str, Any])


def _make_credentials(path: Path) -> Credentials:
    """Those of the data directory; made at its first start."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    except FileNotFoundError:
        pass
    except msgspec.DecodeError as error:
        raise ServerError(f"{path} is damaged ({error}); remove it and new credentials are made") from error
    credentials = Credentials("gbe", secrets.token_urlsafe(24))
    _write_private(path, msgspec.json.encode(credentials).decode())
    return credentials


def _write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    temporary.replace(path)


def _cluster_block(seat: ClusterSeat) -> str:
    routes = ", ".join(f'"nats://route:{seat.secret}@{HOST}:{port}"' for port in seat.routes if port != seat.port)
    return (
        f'cluster {{name: "gbe", listen: "{HOST}:{seat.port}", '
        f'authorization {{user: "route", password: "{seat.secret}"}}, routes: [{routes}]}}'
    )


def _directory_error(path: Path, error: OSError) -> ServerError:
    if error.errno == errno.ENOSPC:
        return ServerError(f"no space left on the disk for the data directory {path}")
    return ServerError(f"the data directory {path} can't be used: {error.strerror or error}")


def _holder(data: Path) -> str:
    try:
        return f" (pid {int((data / 'server.pid').read_text())})"
    except (OSError, ValueError):
        return ""


def _last_complaint(log: Path, start: int) -> str:
    """The last error the server logged since `start`, else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 65_536))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError as error:
        return f"(its log can't be read: {error})"
    for line in reversed(lines):
        for level in ("[FTL] ", "[ERR] "):
            if level in line:
                return line.partition(level)[2]
    return lines[-1] if lines else "(it logged nothing)"


class _closing:
    """Close a descriptor at the end of a block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
