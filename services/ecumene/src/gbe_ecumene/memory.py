"""`gbe run --transport memory`: the Oracle, the Operative and the bus within this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping

from gbe_ecumene.handles import handles_for
from gbe_jobs_domain.definitions import JobDefinition
from gbe_nexus import connect
from gbe_operative.contract import Operative
from gbe_operative.core.handles import DEFAULT_OF_TYPE, parse_handles
from gbe_operative.plugins import PluginError, load_served
from gbe_operative.worker import Worker
from gbe_oracle.oracle import BusOracle
from gbe_overseer.client import JobClient
from gbe_runtime.errors import ConfigurationError


@contextlib.asynccontextmanager
async def in_process(
    definition: JobDefinition,
    operatives: str | None = None,
    app: Operative | None = None,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[JobClient]:
    """A bus of this process alone, with an Oracle and what serves the job's task types on it.

    `variables`: what the Operatives find in the environment besides the process's own, while they are made.
    """
    async with contextlib.AsyncExitStack() as stack:
        transport = await connect("memory://")
        stack.push_async_callback(transport.close)
        oracle = BusOracle(transport)
        stack.push_async_callback(oracle.stop)
        await oracle.start()
        if handles := handles_for(definition, operatives, () if app is None else app.handles):
            parsed = parse_handles(handles, DEFAULT_OF_TYPE)
            slots = {handle.task_type: handle.slots for handle in parsed if handle.slots}
            try:
                with _set(variables or {}):
                    operative = load_served(app, parsed)
            except PluginError as error:
                raise ConfigurationError(str(error)) from error
            worker = Worker(transport, operative, slots)
            stack.push_async_callback(worker.stop)
            await worker.start()
        yield JobClient(transport)


@contextlib.contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
