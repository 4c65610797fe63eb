"""Settings of an Oracle: flags, `GBE_*`, the table `[oracle]` of the TOML file."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from gbe_oracle.core.job import DEFAULT_WINDOW
from gbe_runtime.settings import BusSettings, Setting


class OracleSettings(BusSettings, frozen=True, kw_only=True):
    """What an Oracle is told beside how to reach the bus."""

    section: ClassVar[str] = "oracle"

    window: Annotated[int, Meta(ge=1, le=65_536), Setting("Outstanding tasks per job and task type")] = DEFAULT_WINDOW
    cache_mib: Annotated[int, Meta(ge=1), Setting("MiB of outcomes kept in memory")] = 64
    work_stream_mib: Annotated[int, Meta(ge=8), Setting("Limit of each stream that holds work, when it is made")] = 8192
    history_days: Annotated[float, Meta(gt=0), Setting("Days a finished job is remembered")] = 30.0
    ack_wait: Annotated[
        float, Meta(gt=0), Setting("Seconds until what a dead Oracle held goes to another", env="GBE_ORACLE_ACK_WAIT")
    ] = 3.0
    pin_timeout: Annotated[float, Meta(gt=0), Setting("Seconds of silence after which another Oracle takes over")] = 2.0
    tick_interval: Annotated[float, Meta(gt=0), Setting("Seconds between ticks (deadlines, clean-up)")] = 1.0
    purge_after: Annotated[float, Meta(ge=0), Setting("Seconds a journal outlives the writing of its history")] = 2.0
    tidy_after: Annotated[
        float, Meta(ge=0), Setting("Seconds after its end for which a job keeps artifacts its history has no use for")
    ] = 600.0
    stop_grace: Annotated[
        float, Meta(ge=0), Setting("Seconds to finish what is on its way at a stop", env="GBE_ORACLE_STOP_GRACE")
    ] = 5.0
