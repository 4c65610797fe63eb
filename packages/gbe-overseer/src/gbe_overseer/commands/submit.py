"""`gbe submit`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gbe_overseer import session
from gbe_overseer.commands.options import JobFile, Json, Nats, Quiet, Variables

if TYPE_CHECKING:
    from gbe_jobs_domain.definitions import JobDefinition
    from gbe_overseer.client import JobClient


def submit(
    context: typer.Context,
    file: JobFile,
    var: Variables = None,
    job_id: Annotated[
        str | None, typer.Option("--job-id", metavar="ID", help="The same id again is the same job, not a second one")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show it until it is over; exit code 1 where it failed")] = False,
    json: Json = False,
    quiet: Quiet = False,
    nats: Nats = None,
) -> None:
    """Submit a job; prints its id."""

    async def work() -> int:
        from gbe_jobs_domain.locations import located

        definition = session.document(file, var).definition
        settings = session.settings(context, nats)
        if session.shares_files(settings):
            definition = located(definition, file.parent)
        async with session.connected(settings) as client:
            if wait:
                return await _submit_and_wait(client, definition, job_id, json, quiet)
            return await _submit(client, definition, job_id, json)

    session.run(work)


async def _submit(client: JobClient, definition: JobDefinition, job_id: str | None, json: bool) -> int:
    from gbe_overseer.following import it_existed
    from gbe_overseer.result import to_json

    accepted = await client.submit(definition, job_id=job_id)
    if json:
        print(to_json({"job_id": accepted.job_id, "job_type": accepted.job_type, "existed": accepted.existed}))
    else:
        if accepted.existed:
            print(it_existed(accepted.job_id), file=sys.stderr, flush=True)
        print(accepted.job_id)
    return 0


async def _submit_and_wait(
    client: JobClient, definition: JobDefinition, job_id: str | None, json: bool, quiet: bool
) -> int:
    from gbe_overseer.display import display_on
    from gbe_overseer.following import Interrupts, attend, exit_code
    from gbe_overseer.show import print_result
    from gbe_runtime.exit_codes import INTERRUPTED

    with Interrupts() as interrupts:
        display = display_on(sys.stderr, quiet=quiet)
        attended = await attend(client, definition, interrupts, display, job_id=job_id)
    view = attended.view
    if attended.interrupted:
        # It was submitted to somebody else's ecumene, and perhaps by somebody who waits for it elsewhere.
        again = f"gbe watch {view.job_id}, gbe cancel {view.job_id}"
        print(f"gbe: interrupted; the job goes on: {again}", file=sys.stderr)
        return INTERRUPTED
    print_result(view, json=json, seen=display.tells_all)
    return exit_code(view.state)
