"""`gbe up`: the ecumene of this host, until it is stopped."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gbe_ecumene.handles import all_handles, types_of
from gbe_ecumene.local import LocalEcumene
from gbe_runtime.command import run_role
from gbe_runtime.connection import ConnectionFile
from gbe_runtime.errors import ConfigurationError
from gbe_runtime.lifecycle import Role
from gbe_runtime.log import setup_logging
from gbe_runtime.settings import BusSettings

OWN_CONNECTION_FILE = "connection.json"
"""In the data directory: how to reach this very ecumene, whatever else runs on the host."""


def serve(settings: BusSettings, data: Path | None, handles: str | None, port: int, app: str | None = None) -> int:
    """Run it until TERM or INT. Returns the exit code."""
    setup_logging(settings.log_format, settings.log_level, "up")
    place = (data or default_data()).expanduser().absolute()
    served = all_handles(handles, types_of(app))

    async def make() -> Role:
        return HostEcumene(place, served, port, settings.connection_file, app)

    return run_role(make, name="gbe up")


def default_data() -> Path:
    """`$XDG_DATA_HOME/gbe`, or `~/.local/share/gbe`."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "gbe"


class HostEcumene(LocalEcumene):
    """A `LocalEcumene` that other commands of this user find, by the connection file."""

    def __init__(
        self, data: Path, handles: str, port: int, connection_file: Path | None, app: str | None = None
    ) -> None:
        super().__init__(data=data, handles=handles, port=port, app=app)
        self._handled = handles
        self._connection_file = connection_file or ConnectionFile.default_path()

    async def _start(self) -> None:
        await super()._start()
        self.on_stop(self._withdraw)
        options = self.server.options
        found = ConnectionFile(
            url=self.server.url,
            user=options.user,
            password=options.password,
            data_dir=str(self.server.data),
            pid=os.getpid(),
        )
        own = found.write(self.server.data / OWN_CONNECTION_FILE)
        hint = ""
        if self._somebody_else() is None:
            found.write(self._connection_file)
        else:
            hint = f"; another one is what commands find by themselves: say GBE_CONNECTION_FILE={own} for this one"
        print(
            f"gbe: the ecumene is up at {self.server.url}, data in {self.server.data}, "
            f"serving {self._handled or 'nothing'}{hint}",
            file=sys.stderr,
            flush=True,
        )

    def _somebody_else(self) -> ConnectionFile | None:
        """The ecumene that the connection file leads to, where it runs and is not this one."""
        try:
            other = ConnectionFile.read(self._connection_file)
        except ConfigurationError:  # not to be trusted or damaged: replaced
            return None
        if other is None or not other.alive or other.data_dir == str(self.server.data):
            return None
        return other

    async def _withdraw(self) -> None:
        ConnectionFile.remove(self._connection_file, pid=os.getpid())
        ConnectionFile.remove(self.server.data / OWN_CONNECTION_FILE, pid=os.getpid())
