"""The command `gbe-operative`: `gbe-operative --handles shell:4,data-fetch=shell:2 --nats nats://localhost:4222`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from gbe_operative.worker import DEFAULT_SLOTS, Worker
from gbe_runtime.command import complain, run_role
from gbe_runtime.connection import connect_bus
from gbe_runtime.errors import ConfigurationError
from gbe_runtime.log import setup_logging
from gbe_runtime.settings import BusSettings, Setting

NAME = "gbe-operative"


class OperativeSettings(BusSettings, frozen=True, kw_only=True):
    """What an Operative process is told."""

    section: ClassVar[str] = "operative"

    app: Annotated[
        str | None,
        Setting("Serve what a module of yours has: functions with @task, or an Operative", metavar="MODULE[:NAME]"),
    ] = None
    handles: Annotated[
        str | None,
        Setting(
            "Task types: type[=plug-in][:slots], separated by commas (default: shell; with --app, all of its)",
            metavar="TYPES",
        ),
    ] = None
    slots: Annotated[int, msgspec.Meta(ge=1, le=10_000), Setting("Slots of a type where --handles names none")] = (
        DEFAULT_SLOTS
    )
    secrets: Annotated[
        Path | None, Setting("Secrets: a TOML file, or a directory with a file each; nobody else's to read")
    ] = None
    ack_wait: Annotated[float, msgspec.Meta(ge=0.5, le=86_400), Setting("Lease of a task, in seconds")] = 30.0
    crash_budget: Annotated[
        int, msgspec.Meta(ge=1, le=1000), Setting("Starts without an end until a task is given up")
    ] = 3
    inline_limit: Annotated[
        int, msgspec.Meta(ge=1024, le=16 << 20), Setting("Bytes of data from which on it goes by reference")
    ] = 256 * 1024
    fetch_limit: Annotated[
        int, msgspec.Meta(ge=1024), Setting("Bytes of the largest artifact that input_from may open")
    ] = 64 << 20
    data_limit: Annotated[
        int, msgspec.Meta(ge=1024), Setting("Bytes of the largest data that a task hands on as a value")
    ] = 64 << 20
    artifact_limit: Annotated[
        int, msgspec.Meta(ge=1024), Setting("Bytes of the largest artifact that a task stores")
    ] = 4 << 30
    check_limit: Annotated[
        float, msgspec.Meta(gt=0, le=3600), Setting("Seconds that matching data against a schema may take")
    ] = 10.0
    stop_grace: Annotated[
        float, msgspec.Meta(ge=0, le=86_400), Setting("Seconds that running tasks may go on after TERM")
    ] = 10.0
    work_root: Annotated[Path | None, Setting("Where work directories are made", metavar="DIR")] = None
    loop: Annotated[Literal["auto", "asyncio"], Setting("auto: uvloop where it is installed")] = "auto"


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code."""
    try:
        settings = OperativeSettings.parse(
            argv, prog=NAME, description="Takes tasks of some types, runs them and reports."
        )
    except ConfigurationError as error:
        return complain(NAME, error)
    setup_logging(settings.log_format, settings.log_level, "operative")
    return run_role(lambda: make_worker(settings), name=NAME, use_uvloop=settings.loop == "auto")


async def make_worker(settings: OperativeSettings) -> Worker:
    """The worker as configured, connected; it closes its connection when it stops. Raises `ConfigurationError`."""
    from gbe_operative.apps import load_app
    from gbe_operative.core.handles import DEFAULT_OF_TYPE, InvalidHandles, parse_handles
    from gbe_operative.plugins import PluginError, load_served
    from gbe_operative.secrets import InsecureSecrets, Secrets
    from gbe_operative.settings import WorkerSettings

    try:
        app = None if settings.app is None else load_app(settings.app)
        wanted = settings.handles or ("shell" if app is None else ",".join(app.handles))
        handles = parse_handles(wanted, DEFAULT_OF_TYPE)
        operative = load_served(app, handles)
        secrets = Secrets(path=settings.secrets)
    except KeyboardInterrupt:  # TERM or INT while the app was imported: this is stopped in order
        raise asyncio.CancelledError from None
    except (InvalidHandles, PluginError, InsecureSecrets) as error:
        raise ConfigurationError(str(error)) from error
    if settings.work_root is not None and not settings.work_root.is_dir():
        raise ConfigurationError(f"--work-root: {settings.work_root} is not a directory")
    transport = await connect_bus(settings, name=NAME)
    return Worker(
        transport,
        operative,
        {handle.task_type: handle.slots or operative.slots.get(handle.task_type, settings.slots) for handle in handles},
        settings=WorkerSettings(
            ack_wait=settings.ack_wait,
            crash_budget=settings.crash_budget,
            inline_limit=settings.inline_limit,
            fetch_limit=settings.fetch_limit,
            data_limit=settings.data_limit,
            artifact_limit=settings.artifact_limit,
            check_limit=settings.check_limit,
            stop_grace=settings.stop_grace,
            work_root=settings.work_root,
        ),
        secrets=secrets,
        heartbeat_interval=settings.heartbeat_interval,
        close_transport=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
