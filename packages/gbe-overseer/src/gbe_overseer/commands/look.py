"""`gbe jobs`, `gbe show`, `gbe watch`, `gbe logs`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gbe_overseer import session
from gbe_overseer.commands.options import JobId, Json, Nats

if TYPE_CHECKING:
    from gbe_jobs_domain.states import JobState


def jobs(
    context: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only jobs in this state (may be repeated)")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="At most so many")] = 100,
    json: Json = False,
    nats: Nats = None,
) -> None:
    """List jobs, the newest first."""

    async def work() -> int:
        from gbe_overseer.listing import listing, listing_object
        from gbe_overseer.result import to_json
        from gbe_overseer.show import write

        wanted = _states(state or [])
        async with session.connected(session.settings(context, nats)) as client:
            found = await client.jobs(wanted, limit)
        write(to_json(listing_object(found), pretty=sys.stdout.isatty()) + "\n" if json else listing(found))
        return 0

    session.run(work)


def show(context: typer.Context, job_id: JobId, json: Json = False, nats: Nats = None) -> None:
    """Show a job and its tasks as they are now."""

    async def work() -> int:
        from gbe_overseer.show import print_result

        async with session.connected(session.settings(context, nats)) as client:
            print_result(await client.find(job_id, unfold=True), json=json)
        return 0

    session.run(work)


def watch(context: typer.Context, job_id: JobId, nats: Nats = None) -> None:
    """Follow a job to its end; exit code 0 where it completed, 1 otherwise."""

    async def work() -> int:
        from gbe_overseer.display import display_on
        from gbe_overseer.following import exit_code, follow

        async with session.connected(session.settings(context, nats)) as client:
            await client.find(job_id)  # an unknown one would be waited for in vain
            async with client.watch(job_id, look_back=True, unfold=True) as following:
                view = await follow(following, display_on(sys.stdout))
        return exit_code(view.state)

    session.run(work)


def logs(
    context: typer.Context,
    job_id: JobId,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Only this task")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over")] = False,
    nats: Nats = None,
) -> None:
    """Print what a job's tasks wrote."""

    async def work() -> int:
        from gbe_overseer.logs import print_logs

        async with session.connected(session.settings(context, nats)) as client:
            await print_logs(client, job_id, task, follow=follow)
        return 0

    session.run(work)


def _states(names: list[str]) -> frozenset[JobState] | None:
    from gbe_jobs_domain.states import JobState
    from gbe_runtime import ConfigurationError

    try:
        return frozenset(JobState(name) for name in names) or None
    except ValueError:
        wrong = next(name for name in names if name not in JobState.__members__.values())
        known = ", ".join(state.value for state in JobState)
        raise ConfigurationError(f"--state {wrong}: no such state, there are {known}") from None
