"""What the service can be told: flags, `GBE_*` variables, a TOML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Meta

from gbe_runtime.settings import BusSettings, Setting

DEFAULT_PORT = 8400

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class GateSettings(BusSettings, frozen=True, kw_only=True):
    """Without `nats_url` or `connection_file` the service brings its own ecumene along."""

    section: ClassVar[str] = "gate"

    host: Annotated[str, Setting("Where to listen", env="GBE_GATE_HOST", metavar="HOST")] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65_535), Setting("Where to listen (0: a free port)", env="GBE_GATE_PORT", metavar="PORT")
    ] = DEFAULT_PORT
    data: Annotated[
        Path | None,
        Setting("Where everything is kept (default ~/.local/share/trinity-gate)", env="GBE_GATE_DATA", metavar="DIR"),
    ] = None
    tokens: Annotated[
        Path | None, Setting("Who may do what: a TOML file of mode 0600", env="GBE_GATE_TOKENS", metavar="FILE")
    ] = None
    allow_host: Annotated[
        tuple[str, ...],
        Setting("Names by which it may be called beside localhost", env="GBE_GATE_ALLOW_HOST", metavar="NAME,…"),
    ] = ()
    queue_patience: Annotated[
        Seconds, Setting("Seconds a run waits while nobody is there to execute it", env="GBE_GATE_QUEUE_PATIENCE")
    ] = 30.0
    lost_after: Annotated[
        Seconds, Setting("Seconds without a sign of life until a run is given up", env="GBE_GATE_LOST_AFTER")
    ] = 60.0
    log_bytes: Annotated[
        int, Meta(ge=1 << 20), Setting("Bytes of run logs that are kept", env="GBE_GATE_LOG_BYTES")
    ] = 2 << 30
    log_runs: Annotated[int, Meta(ge=1, le=100_000), Setting("Runs whose logs are kept", env="GBE_GATE_LOG_RUNS")] = 500


def default_data() -> Path:
    """`$XDG_DATA_HOME/trinity-gate`, or `~/.local/share/trinity-gate`."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "trinity-gate"
