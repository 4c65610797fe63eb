"""`gbe cancel`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gbe_overseer import session
from gbe_overseer.commands.options import JobId, Json, Nats


def cancel(
    context: typer.Context,
    job_id: JobId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the job")] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long to wait for the answer")
    ] = 10.0,
    json: Json = False,
    nats: Nats = None,
) -> None:
    """Cancel a job and say what came of it. Exit code 0 where it is cancelled, 1 where it had ended otherwise."""

    async def work() -> int:
        from gbe_jobs_domain.ids import check_job_id
        from gbe_overseer.answers import cancel_exit_code, cancel_text
        from gbe_overseer.result import to_json

        check_job_id(job_id)
        async with session.connected(session.settings(context, nats)) as client:
            found = await client.cancel(job_id, reason, timeout=timeout)
        code = cancel_exit_code(found)
        if json:
            state = found.state.value if found.state else None
            print(to_json({"job_id": job_id, "answer": found.answer.value, "state": state}))
        else:
            print(cancel_text(job_id, found, timeout), file=sys.stdout if code == 0 else sys.stderr)
        return code

    session.run(work)
