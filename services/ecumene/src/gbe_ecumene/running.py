"""`gbe run`: one job to its end, over a bus that is there, over one that is brought along, or within the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from gbe_ecumene.places import run_place
from gbe_ecumene.reporting import JunitFile
from gbe_ecumene.roots import roots_in
from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.locations import located
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
    folder: Path | None = None,
    operatives: str | None = None,
    app: str | None = None,
    local: Mapping[str, str] | None = None,
    in_memory: bool = False,
    json: bool = False,
    quiet: bool = False,
    junit: Path | None = None,
) -> int:
    """Run the job, show it on stderr, print its result to stdout. Returns the exit code.

    `folder`: where the job's file is, which relative paths in it start from. `local`: what the file says of
    `operatives` and `app`, for a bus of one's own. `junit`: the file for a test report.
    """
    beside = False
    if local and folder is not None and (in_memory or not settings.nats_url):
        operatives = operatives or local.get("operatives")
        if app is None and (app := local.get("app")):
            beside = True
            sys.path.insert(0, os.path.abspath(folder))
    if folder is not None and (in_memory or not settings.nats_url or session.shares_files(settings)):
        definition = located(definition, folder)
    report = None if junit is None else JunitFile(junit, definition)
    run = _Run(definition, report, json=json, quiet=quiet)
    try:
        if in_memory:
            from gbe_ecumene.handles import served_by
            from gbe_ecumene.memory import in_process

            operative = None if app is None else served_by(app)
            return await run.over(in_process(definition, operatives, operative, roots_in(folder, app=beside)))
        if settings.nats_url:
            if operatives is not None or app is not None:
                flag = "--app" if operatives is None else "--operatives"
                raise ConfigurationError(f"{flag} is for a bus of one's own; this one has those that joined it")
            return await run.over(session.connected(settings))
        with run_place() as run.place:
            return await run.over(embedded(definition, operatives, app, run.place, roots_in(folder, app=beside)))
    except Exception as error:
        if report is not None:
            report.write_nothing(error=str(error) or type(error).__name__)
        raise


class _Run:
    """One run, and how its result is given. `place`: the directory of what was brought along."""

    def __init__(self, definition: JobDefinition, report: JunitFile | None, *, json: bool, quiet: bool) -> None:
        self.place: Path | None = None
        self._definition = definition
        self._report = report
        self._json = json
        self._quiet = quiet

    def _last_words(self) -> None:
        """Before leaving at once."""
        if self._report is not None:
            self._report.write_nothing(reason="interrupted")
        # The processes notice by themselves that we are gone; their directory they would leave behind.
        if self.place is not None:
            shutil.rmtree(self.place, ignore_errors=True)

    async def over(self, bus: Bus) -> int:
        """Run it over that bus. Returns the exit code."""
        with Interrupts(self._last_words) as interrupts:
            async with AsyncExitStack() as stack:
                entering = asyncio.ensure_future(stack.enter_async_context(bus))
                try:
                    display = display_on(sys.stderr, quiet=self._quiet)
                    if not await until(interrupts.first, entering):
                        if self._report is not None:
                            self._report.write_nothing(reason="interrupted")
                        return INTERRUPTED
                finally:
                    entering.cancel()
                    await asyncio.wait({entering})
                attended = await attend(entering.result(), self._definition, interrupts, display, cancel=True)
                print_result(attended.view, json=self._json, seen=display.tells_all)
                if self._report is not None:
                    self._report.write(attended.view)
        return INTERRUPTED if attended.interrupted else exit_code(attended.view.state)


@contextlib.asynccontextmanager
async def embedded(
    definition: JobDefinition, operatives: str | None, app: str | None, place: Path, variables: Mapping[str, str]
) -> AsyncIterator[JobClient]:
    """A server, an Oracle and an Operative of one's own, for the while, with everything they write in `place`.

    `variables`: the Operative's, besides those that it inherits.
    """
    from gbe_ecumene.handles import handles_for, types_of
    from gbe_ecumene.local import LocalEcumene

    handles = handles_for(definition, operatives, types_of(app))
    logs = place / "logs"
    logs.mkdir()
    # When it is stopped, the job is over, or nobody is left who would want its tasks.
    ecumene = LocalEcumene(
        data=place / "data",
        handles=handles,
        app=app,
        logs=logs,
        stop_grace=0.5,
        operative_variables=variables,
    )
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
