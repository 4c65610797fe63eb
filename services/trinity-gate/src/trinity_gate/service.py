"""`GateService`: everything started in order and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gbe_ecumene.local import LocalEcumene
from gbe_nexus import Transport, connect, now_ms
from gbe_operative_aether.wire import TASK_TYPE
from gbe_overseer.client import JobClient
from gbe_runtime.connection import connect_bus
from gbe_runtime.errors import ConfigurationError
from gbe_runtime.lifecycle import Role
from trinity_gate.base import GovernanceBase
from trinity_gate.errors import DamagedFile
from trinity_gate.gate import Gate
from trinity_gate.hub import Hub
from trinity_gate.index import REBUILD, Index
from trinity_gate.runlog import LogFiles
from trinity_gate.runs import Runs, RunSettings
from trinity_gate.scenarios import Scenarios
from trinity_gate.security import HEADERS, allowed_hosts
from trinity_gate.settings import GateSettings, default_data
from trinity_gate.tokens import Tokens

log = logging.getLogger(__name__)

SLOTS = 2
"""Sessions at once: the run, and one that was stopped and still stores its results."""

STOP_REASON = "the service was stopped"
STOP_PATIENCE = 15.0
"""Seconds the results of a run are waited for that is cancelled at the stop."""

MAX_HEAD = 32 * 1024
"""Bytes of a request's line and headers."""

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may hold Python's lock while another one waits (Python's own default is ten times that)."""

GRACEFUL = 3
"""Seconds requests under way are given at the stop."""


class GateService(Role):
    """The Operator Service. With `nats_url` or `connection_file` it joins that ecumene, else it brings one along and
    takes it down again."""

    name: ClassVar[str] = "trinity-gate"

    def __init__(self, settings: GateSettings) -> None:
        super().__init__()
        self._settings = settings
        self._data = (settings.data or default_data()).expanduser().absolute()
        self._runs: Runs | None = None
        self._server: _Server | None = None
        self.ecumene: LocalEcumene | None = None
        self.url = ""
        """Where the page is, when it is started."""

    async def _start(self) -> None:
        # A log that is being built must not keep requests waiting for Python's lock at every turn of the loop.
        sys.setswitchinterval(SWITCH_INTERVAL)
        settings = self._settings
        tokens = None if settings.tokens is None else Tokens.read(settings.tokens)
        _check_exposure(settings.host, tokens)
        listener = _listener(settings.host, settings.port)
        self.on_stop(_closing(listener.close))
        self._lock_data()
        # All of it takes a moment; and what is wrong with the files is said at once.
        bus = asyncio.ensure_future(self._bus())
        try:
            store = await self._store()
            make_app = await asyncio.to_thread(_load_app)
        except BaseException:
            bus.cancel()
            await asyncio.wait({bus})
            raise
        gate = await self._gate(await bus, store)
        hosts = allowed_hosts(settings.host, settings.allow_host)
        await self._serve(make_app(gate, hosts=hosts, tokens=tokens), listener)

    def _lock_data(self) -> None:
        """One service per directory."""
        try:
            self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"--data {self._data}: {error.strerror}") from error
        self.on_stop(_closing(lambda: os.close(descriptor)))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"another trinity-gate uses {self._data}: stop it, or say --data DIR") from None

    async def _bus(self) -> Transport:
        settings = self._settings
        if settings.nats_url or settings.connection_file:
            transport = await connect_bus(settings, name=self.name)
        else:
            self.ecumene = ecumene = LocalEcumene(
                data=self._data / "bus", handles=f"{TASK_TYPE}={TASK_TYPE}:{SLOTS}", stop_grace=0.5
            )
            self.on_stop(ecumene.stop)
            await ecumene.start()
            self.spawn(ecumene.wait(), "keep the ecumene")
            transport = await connect(ecumene.server.url, ecumene.server.options)
        self.on_stop(transport.close)
        return transport

    async def _store(self) -> _Store:
        """Everything that is in the data directory. Raises `ConfigurationError`."""
        try:
            return await self._open_store()
        except OSError as error:  # not its owner's, read-only, full
            raise ConfigurationError(
                f"--data {self._data}: {error.filename or 'its files'} can't be used: {error.strerror or error}"
            ) from error

    async def _open_store(self) -> _Store:
        used = (self._data / "logs").exists()
        index = await self._index(used=used)
        files = LogFiles(self._data / "logs")
        await asyncio.to_thread(files.prepare)
        self.on_stop(files.close)
        temporary = self._data / "tmp"
        await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        base = GovernanceBase(index)
        scenarios = Scenarios(self._data / "library", base.layer)
        try:
            await base.load()
            await scenarios.load()
        except DamagedFile as error:
            raise ConfigurationError(
                str(error), "put it right, or move it away (moving the whole library away gives the shipped one again)"
            ) from error
        return _Store(index, files, temporary, base, scenarios)

    async def _gate(self, transport: Transport, store: _Store) -> Gate:
        settings = self._settings
        hub, client = Hub(), JobClient(transport)
        run_settings = RunSettings(
            queue_patience=settings.queue_patience,
            lost_after=settings.lost_after,
            log_bytes=settings.log_bytes,
            log_runs=settings.log_runs,
        )
        self._runs = runs = Runs(client, store.index, store.files, hub, self.spawn, run_settings)
        gate = Gate(
            index=store.index,
            base=store.base,
            scenarios=store.scenarios,
            runs=runs,
            hub=hub,
            client=client,
            metrics=self.metrics,
            temporary=store.temporary,
        )
        await gate.start()
        if runs.rebuilt is not None:
            _say(f"{runs.rebuilt} runs were found on the bus and taken into the index")
        return gate

    async def _index(self, *, used: bool) -> Index:
        """`used`: the directory is not a new one, so an index that begins anew has lost something."""
        index = Index(self._data / "gate.sqlite")
        self.on_stop(index.database.close)
        try:
            await index.database.open(now_ms())
        except DamagedFile as error:
            raise ConfigurationError(str(error)) from error
        aside = index.database.set_aside
        if index.database.begun and used:
            await index.choose(REBUILD, True if aside is None else aside.name)
        elif isinstance(unread := await index.choice(REBUILD), str):
            aside = self._data / unread  # a start before this one was killed in the middle
        else:
            return index
        governance = False
        if aside is None:
            text = "the index is missing and begins anew"
        else:
            found = await index.salvage(aside)
            text = f"the index was damaged and is set aside as {aside.name}"
            text += f"; read from it: {found.runs} runs, {found.audit} entries of the audit"
            governance = found.governance
        if not governance:
            text += "; the governance base and the active scenario are those of a first start: look at them"
        _say(text)
        return index

    async def _serve(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,  # of h11: httptools would take a head of any size
            h11_max_incomplete_event_size=MAX_HEAD,
            ws=_WebSocketProtocol,
            ws_max_size=64 * 1024,
            lifespan="off",
            log_config=None,
            log_level="warning",  # below that it logs addresses with their query
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=GRACEFUL,
        )
        self._server = server = _Server(config)
        self.spawn(server.serve([listener]), "serve HTTP")
        await server.ready.wait()
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}/"
        print(f"Trinity Gate: {self.url} (data in {self._data})", flush=True)

    async def _stop(self) -> None:
        """Nobody is served any more; then the run goes the way of the ecumene: with ours, or on in another's."""
        if self._server is not None:
            self._server.should_exit = True
            await self._server.over.wait()
        if self._runs is not None and self.ecumene is not None:
            await self._runs.stop_all(STOP_REASON, STOP_PATIENCE)


@dataclass(frozen=True, slots=True)
class _Store:
    """What is kept in the data directory."""

    index: Index
    files: LogFiles
    temporary: Path
    base: GovernanceBase
    scenarios: Scenarios


class _Protocol(H11Protocol):
    """What is no HTTP never reaches the application; it is answered in the shape of all other errors all the same."""

    def send_400_response(self, msg: str) -> None:
        body = b'{"error":{"code":"bad_http","message":"this is not an HTTP request","field":null}}'
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *HEADERS,
        ]
        cycle = getattr(self, "cycle", None)  # None before the first request
        if cycle is None or cycle.response_complete or not cycle.response_started:
            head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + body)
        self.transport.close()


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    """One that is refused by an HTTP response was answered: uvicorn 0.54 takes it for a fault and logs each as one."""

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


class _Server(uvicorn.Server):
    """Signals are the role's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.over = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self.over.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _say(text: str) -> None:
    """What whoever started it has to know, beside the log."""
    print(f"trinity-gate: {text}", file=sys.stderr, flush=True)


def _load_app() -> Callable[..., ASGIApp]:
    """FastAPI takes half a second to import, while the ecumene starts."""
    from trinity_gate.app import make_app

    return make_app


def _check_exposure(host: str, tokens: Tokens | None) -> None:
    if tokens is not None:
        return
    try:
        inside = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        inside = host == "localhost"
    if not inside:
        raise ConfigurationError(
            f"--host {host} is reachable from elsewhere, where everybody could do everything",
            "say who may do what with --tokens FILE, or listen on 127.0.0.1",
        )


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"--host {host}: {error.strerror}") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(1024)
        found.setblocking(False)
    except OSError as error:
        found.close()
        raise ConfigurationError(
            f"can't listen on {host} port {port}: {error.strerror}; choose another --port"
        ) from error
    return found


def _closing(close: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def release() -> None:
        close()

    return release
