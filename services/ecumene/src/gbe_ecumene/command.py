"""`gbe run` and `gbe up`, as plug-ins of the `gbe` command."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gbe_overseer import session
from gbe_overseer.commands.options import JobFile, Json, Nats, Quiet, Variables


def _one(given: list[str] | None) -> list[str] | None:
    """Of an option that is given twice, the first would be dropped without a word."""
    if given and len(given) > 1:
        raise typer.BadParameter("given twice; an app may take in another: app.add(other_module)")
    return given


App = Annotated[
    list[str] | None,
    typer.Option(
        "--app",
        metavar="MODULE[:NAME]",
        help="Serve what a Python module has, too: functions with @task, an Operative",
        callback=_one,
    ),
]


class TransportKind(StrEnum):
    """What a job is run over."""

    NATS = "nats"
    MEMORY = "memory"


def run(
    context: typer.Context,
    file: JobFile,
    var: Variables = None,
    json: Json = False,
    quiet: Quiet = False,
    transport: Annotated[
        TransportKind, typer.Option("--transport", help="memory: everything within this process")
    ] = TransportKind.NATS,
    operatives: Annotated[
        str | None,
        typer.Option(
            "--operatives",
            metavar="HANDLES",
            help="What to serve, as gbe-operative --handles (default: each task type by the plug-in of its name)",
        ),
    ] = None,
    app: App = None,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", help="Write a test report as CI systems read it (JUnit XML)"),
    ] = None,
    nats: Nats = None,
) -> None:
    """Run one job to its end. Brings a server, an Oracle and Operatives unless --nats or GBE_NATS_URL names a bus."""

    async def work() -> int:
        from gbe_ecumene.running import run_job

        document = session.document(file, var)
        return await run_job(
            document.definition,
            session.settings(context, nats),
            folder=file.parent,
            operatives=operatives,
            app=app[0] if app else None,
            local=document.local,
            in_memory=transport is TransportKind.MEMORY,
            json=json,
            quiet=quiet,
            junit=junit,
        )

    session.run(work)


def up(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where everything is kept (default ~/.local/share/gbe)")
    ] = None,
    handles: Annotated[
        str | None,
        typer.Option("--handles", metavar="HANDLES", help="What to serve (default: every installed plug-in)"),
    ] = None,
    app: App = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="The server's port (0: a free one)")] = 0,
) -> None:
    """Run the whole ecumene on this host until it is stopped; the data survives."""
    from gbe_ecumene.serving import serve

    raise typer.Exit(
        session.guarded(
            lambda: serve(session.settings(context, log_level="info"), data, handles, port, app[0] if app else None)
        )
    )
