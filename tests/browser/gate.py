"""The service as a process of its own, as `trinity-gate` starts it."""

import os
import socket
import sys
from pathlib import Path

from tests.browser import library
from tests.integration.site import RoleProcess

# One as `openssl rand -base64` makes them: with characters that a subprotocol can't have.
TOKENS = {
    "olga": ("observer", "olga-looks-on-0123456789"),
    "otto": ("operator", "otto/runs+things-0123456789=="),
    "vera": ("overseer", "vera-sees-to-it-0123456789"),
}


class Gate(RoleProcess):
    """`start`, `kill`, `stop` as for every role; a second life has the same port and the same data."""

    def __init__(self, folder: Path, *, tokens: bool = False, environment: dict[str, str] | None = None) -> None:
        library.make(folder / "data" / "library")
        port = _free_port()
        argv: list[str | Path] = [sys.executable, "-m", "trinity_gate", "--port", str(port), "--data", folder / "data"]
        if tokens:
            file = folder / "tokens.toml"
            file.touch(mode=0o600)
            lines = [f'[{name}]\nrole = "{role}"\ntoken = "{token}"\n' for name, (role, token) in TOKENS.items()]
            file.write_text("\n".join(lines))
            argv += ["--tokens", file]
        known = {name: value for name, value in os.environ.items() if not name.startswith("GBE_")}
        super().__init__("trinity-gate", argv, {**known, **(environment or {})}, folder)
        self.data = folder / "data"
        self.url = f"http://127.0.0.1:{port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
