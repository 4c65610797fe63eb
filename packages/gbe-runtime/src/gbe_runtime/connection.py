"""Where the bus is: the connection file that `gbe up` leaves for the other commands, and the connecting itself."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gbe_nexus import ConnectOptions, Transport, Unavailable, connect
from gbe_runtime.errors import ConfigurationError
from gbe_runtime.log import register_secret

if TYPE_CHECKING:
    from gbe_runtime.settings import BusSettings

MAX_SIZE = 64 * 1024


class ConnectionFile(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the ecumene of this user on this host, as whoever runs it wrote it down.

    `data_dir`: where its data is; `pid`: who runs it.
    """

    url: str
    user: str | None = None
    password: str | None = None
    data_dir: str = ""
    pid: int = 0

    def __repr__(self) -> str:
        return f"ConnectionFile(url={self.url!r}, user={self.user!r}, data_dir={self.data_dir!r}, pid={self.pid})"

    @property
    def alive(self) -> bool:
        """Whether a process of that number exists (here: in another container, nobody can tell)."""
        if self.pid <= 0:  # those mean groups of processes
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True
        return True

    @staticmethod
    def default_path() -> Path:
        """`$XDG_RUNTIME_DIR/gbe/connection.json`, or `~/.local/state/gbe/connection.json` where there is none."""
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        return (Path(runtime) if runtime else Path.home() / ".local" / "state") / "gbe" / "connection.json"

    def write(self, path: Path | None = None) -> Path:
        """Put it there, whole or not at all, for its owner's eyes only. Returns where it is."""
        path = path or self.default_path()
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
        # O_EXCL: never through a link that somebody else put there.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(self))
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def read(cls, path: Path | None = None) -> ConnectionFile | None:
        """What is there, None where nothing is. Raises `ConfigurationError` where it can't be trusted or read."""
        path = path or cls.default_path()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(f"can't read the connection file {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            # Of the opened file, not of the name: the two may differ a moment later.
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"the connection file {path} is not a regular file")
            if status.st_uid != os.geteuid():
                raise ConfigurationError(
                    f"the connection file {path} belongs to user {status.st_uid}, expected {os.geteuid()}",
                    "name the server with --nats or GBE_NATS_URL",
                )
            if status.st_mode & 0o077:
                raise ConfigurationError(
                    f"the connection file {path} is open to others (mode {status.st_mode & 0o777:04o}, expected 0600)",
                    "its password is no secret any more: remove the file and start `gbe up` again",
                )
            content = file.read(MAX_SIZE + 1)
        try:
            return msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the connection file {path} is damaged: {error}", "remove it and start `gbe up` again"
            ) from error

    @classmethod
    def remove(cls, path: Path | None = None, *, pid: int | None = None) -> None:
        """Take it away; fine where there is none. With `pid`, only one that is of that process."""
        path = path or cls.default_path()
        if pid is not None:
            try:
                found = cls.read(path)
            except ConfigurationError:
                return
            if found is None or found.pid != pid:
                return
        path.unlink(missing_ok=True)


async def connect_bus(settings: BusSettings, *, name: str) -> Transport:
    """Find the bus (flag, `GBE_NATS_URL`, settings file, connection file) and connect to it as `name`.

    Raises `ConfigurationError` where nothing says which bus, and what `gbe_nexus.connect` raises.
    """
    url, options, found = find_bus(settings, name=name)
    try:
        return await connect(url, options)
    except Unavailable as error:
        if found is not None and not found.alive:
            raise Unavailable(
                f"{error}; process {found.pid}, which left the connection file, is gone: start `gbe up` again"
            ) from error
        raise


def find_bus(settings: BusSettings, *, name: str) -> tuple[str, ConnectOptions, ConnectionFile | None]:
    """The URL and options to connect with, and the connection file if they come from it."""
    password = settings.nats_password.get_secret_value() if settings.nats_password else None
    if password:
        register_secret(password)
    options = ConnectOptions(
        name=name,
        timeout=settings.connect_timeout,
        credentials=_readable(settings.nats_creds, "GBE_NATS_CREDS (--nats-creds)"),
        user=settings.nats_user,
        password=password,
        tls_ca=_readable(settings.tls_ca, "GBE_TLS_CA (--tls-ca)"),
        replicas=settings.replicas,
    )
    if settings.nats_url:
        return settings.nats_url, options, None
    path = settings.connection_file or ConnectionFile.default_path()
    found = ConnectionFile.read(path)
    if found is None:
        raise ConfigurationError(
            f"no NATS server is named: no --nats, no GBE_NATS_URL, no connection file at {path}",
            "start `gbe up`, or say e.g. --nats nats://localhost:4222",
        )
    if found.password:
        register_secret(found.password)
    if options.credentials is None and options.user is None:
        options = replace(options, user=found.user, password=found.password)
    return found.url, options, found


def _readable(path: Path | None, where: str) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb"):
            return str(path)
    except OSError as error:
        raise ConfigurationError(f"{where}: can't read {str(path)!r}: {error.strerror}") from error
