"""`gbe run`: one job to its end, over a bus that is there, over one that is brought along, or within the process."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from gbe_jobs_domain.definitions import JobDefinition
from gbe_nexus import connect
from gbe_overseer import session
from gbe_overseer.client import JobClient
from gbe_overseer.display import display_on
from gbe_overseer.following import Interrupts, attend, exit_code, until
from gbe_overseer.show import print_result
from gbe_runtime.errors import ConfigurationError
from gbe_runtime.exit_codes import INTERRUPTED
from gbe_runtime.settings import BusSettings

Bus = AbstractAsyncContextManager[JobClient]


async def run_job(
    definition: JobDefinition,
    settings: BusSettings,
    *,
    operatives: str | None = None,
    app: str | None = None,
    in_memory: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Run the job, show it on stderr, print its result to stdout. Returns the exit code."""
    if in_memory:
        from gbe_ecumene.handles import served_by
        from gbe_ecumene.memory import in_process

        operative = None if app is None else served_by(app)
        return await _run(in_process(definition, operatives, operative), definition, json=json, quiet=quiet)
    if settings.nats_url:
        if operatives is not None or app is not None:
            flag = "--app" if operatives is None else "--operatives"
            raise ConfigurationError(f"{flag} is for a bus of one's own; this one has those that joined it")
        return await _run(session.connected(settings), definition, json=json, quiet=quiet)
    place = Path(tempfile.mkdtemp(prefix="gbe-run-"))
    try:
        return await _run(embedded(definition, operatives, app, place), definition, json=json, quiet=quiet, place=place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def _run(bus: Bus, definition: JobDefinition, *, json: bool, quiet: bool, place: Path | None = None) -> int:
    def last_words() -> None:
        # The processes notice by themselves that we are gone; their directory they would leave behind.
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)

    with Interrupts(last_words) as interrupts:
        async with AsyncExitStack() as stack:
            entering = asyncio.ensure_future(stack.enter_async_context(bus))
            try:
                display = display_on(sys.stderr, quiet=quiet)
                if not await until(interrupts.first, entering):
                    return INTERRUPTED
            finally:
                entering.cancel()
                await asyncio.wait({entering})
            attended = await attend(entering.result(), definition, interrupts, display, cancel=True)
            print_result(attended.view, json=json, seen=display.tells_all)
    return INTERRUPTED if attended.interrupted else exit_code(attended.view.state)


@contextlib.asynccontextmanager
async def embedded(
    definition: JobDefinition, operatives: str | None, app: str | None, place: Path
) -> AsyncIterator[JobClient]:
    """A server, an Oracle and an Operative of one's own, for the while, with everything they write in `place`."""
    from gbe_ecumene.handles import handles_for, types_of
    from gbe_ecumene.local import LocalEcumene

    handles = handles_for(definition, operatives, types_of(app))
    logs = place / "logs"
    logs.mkdir()
    # When it is stopped, the job is over, or nobody is left who would want its tasks.
    ecumene = LocalEcumene(data=place / "data", handles=handles, app=app, logs=logs, stop_grace=0.5)
    starting = asyncio.ensure_future(ecumene.start())
    try:
        # While the others start, this process loads what it takes to talk to them.
        if await until(ecumene.server_ready, starting):
            await starting  # it failed before the server was there
        transport = await connect(ecumene.server.url, ecumene.server.options)
        try:
            await starting
            yield JobClient(transport)
        finally:
            await transport.close()
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        await ecumene.stop()
