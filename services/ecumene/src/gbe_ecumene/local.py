"""`LocalEcumene`: a server, an Oracle and an Operative as processes of this host, kept running."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from gbe_nexus import NexusError
from gbe_nexus_nats.server import EmbeddedServer, ServerError
from gbe_runtime.backoff import retry_delay
from gbe_runtime.errors import ChildFailed, ConfigurationError
from gbe_runtime.lifecycle import Role
from gbe_runtime.supervisor import ChildSpec, OnEvent, ProcessSupervisor

log = logging.getLogger(__name__)

GRACE = 20.0
"""Seconds from TERM to KILL: an Operative gives running tasks some of it, before it hands them back."""

LEASE = 10.0
"""Seconds after which a task of a dead Operative is given out again (a site's default is 30)."""


class LocalEcumene(Role):
    """Started, all its processes are ready; whichever dies is started again, the server on its port and data.

    `data`: where the server keeps everything; None = a temporary directory, gone at the stop. `handles`: what the
    Operative serves (empty: none is started), `app` its `--app`. `logs`: a directory for the children's logs, else
    stderr. `stop_grace`: seconds the Operative gives running tasks at a stop; None = as its settings say.
    `operative_variables`: what its environment has besides.
    """

    name: ClassVar[str] = "ecumene"

    def __init__(
        self,
        *,
        data: Path | None = None,
        handles: str = "",
        app: str | None = None,
        port: int = 0,
        logs: Path | None = None,
        stop_grace: float | None = None,
        operative_variables: Mapping[str, str] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        super().__init__()
        self.server = EmbeddedServer(data, port=port)
        self.server_ready = asyncio.Event()
        """Set when the server takes connections, while the other processes are still starting."""
        self._handles = handles
        self._app = app
        self._logs = logs
        self._stop_grace = stop_grace
        self._operative_variables = dict(operative_variables or {})
        self._on_event = on_event
        self._supervisor: ProcessSupervisor | None = None

    @property
    def pids(self) -> dict[str, int]:
        """The processes that live, by name."""
        found = dict(self._supervisor.pids) if self._supervisor else {}
        if self.server.pid is not None:
            found["server"] = self.server.pid
        return found

    async def _start(self) -> None:
        self.on_stop(self.server.stop)
        try:
            await self.server.start()
        except ServerError as error:
            raise ConfigurationError(str(error)) from error
        self.server_ready.set()
        self.spawn(self._keep_server(), "keep the server")
        self._supervisor = supervisor = ProcessSupervisor(self._children(), on_event=self._on_event, grace=GRACE)
        self.on_stop(supervisor.stop)
        try:
            await supervisor.start()
        except ChildFailed as error:
            self._repeat_last_words(error.name)
            raise
        self.spawn(supervisor.wait(), "keep the processes")

    def _children(self) -> list[ChildSpec]:
        options = self.server.options
        # By the environment, never on a command line: that everybody on the host can read. What is empty is unset.
        environment = {
            "GBE_NATS_URL": self.server.url,
            "GBE_NATS_USER": options.user or "",
            "GBE_NATS_PASSWORD": options.password or "",
            "GBE_NATS_CREDS": "",
            "GBE_TLS_CA": "",
            "GBE_REPLICAS": "1",
        }
        children = [
            ChildSpec("oracle", (sys.executable, "-m", "gbe_oracle"), environment, log_file=self._log("oracle"))
        ]
        if self._handles:
            # Whoever dies here is started again at once, so what it held need not wait for long.
            own = {"GBE_APP": "", "GBE_ACK_WAIT": os.environ.get("GBE_ACK_WAIT") or f"{LEASE:g}"}
            if self._stop_grace is not None:
                own["GBE_STOP_GRACE"] = f"{self._stop_grace:g}"
            app = () if self._app is None else ("--app", self._app)
            command = (sys.executable, "-m", "gbe_operative.command", "--handles", self._handles, *app)
            variables = environment | self._operative_variables | own
            children.append(ChildSpec("operative", command, variables, log_file=self._log("operative")))
        return children

    def _log(self, name: str) -> Path | None:
        return None if self._logs is None else self._logs / f"{name}.log"

    def _repeat_last_words(self, name: str) -> None:
        """A child that could not start said why in its log, which may be gone in a moment."""
        path = self._log(name)
        if path is not None and path.exists():
            sys.stderr.write(path.read_text(errors="backslashreplace")[-4096:])

    async def _keep_server(self) -> None:
        deaths = 0
        while True:
            born = asyncio.get_running_loop().time()
            code = await self.server.wait()
            deaths = 1 if asyncio.get_running_loop().time() - born > 10.0 else deaths + 1
            self._tell("died", f"exit code {code}" if code >= 0 else f"killed by signal {-code}")
            while not self.server.running:
                await asyncio.sleep(retry_delay(deaths, 0.1, 2.0, 15.0, lambda: 1.0))
                try:
                    await self.server.start()
                except NexusError as error:
                    deaths += 1
                    log.error("the server can't be started again: %s", error)
            self._tell("ready", f"pid {self.server.pid}")

    def _tell(self, event: str, detail: str) -> None:
        log.warning("server %s: %s", event, detail)
