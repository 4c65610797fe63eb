"""What a task declares of its params and its data, checked: `input_schema` before it starts, `output_schema` after."""

from __future__ import annotations

import asyncio
import random

from msgspec.structs import replace

from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_jobs_domain.payloads import TaskQueued, encode
from gbe_nexus import ArtifactStore, IntegrityError, NexusError, NotFound, PayloadTooLarge
from gbe_operative.core.inputs import JSON, InputError, Inputs, declared, value_of
from gbe_operative.core.sizing import too_large
from gbe_operative.inputs import wanted_values
from gbe_operative.schema_checks import CheckFailed, InvalidSchema, SchemaChecks
from gbe_runtime.backoff import retry_delay

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


class EdgeChecks:
    """Both ends of a task's edges. `limit`: bytes of the largest artifact that is opened for it."""

    def __init__(self, schemas: SchemaChecks, artifacts: ArtifactStore, limit: int) -> None:
        self._schemas = schemas
        self._artifacts = artifacts
        self._limit = limit

    async def before(self, task: TaskQueued, inputs: Inputs, *, discreet: bool = False) -> Failed | None:
        """Why the task is not to be started: its params don't match its `input_schema`, or one of its schemas is none.

        `discreet`: the params have secrets, so none is quoted. Raises `InputError`, and a `NexusError` that stays.
        """
        if (schema := declared(task.output_schema)) is not None:  # found now, not when the work is done
            try:
                await self._schemas.check_schema(schema)
            except InvalidSchema as error:
                return _rejected(f"output_schema is no JSON Schema: {error}")
            except CheckFailed as error:
                return _unchecked("output_schema can't be checked", error)
        if (schema := declared(task.input_schema)) is None:
            return None
        values = await self._values(schema, task, inputs)
        try:
            violation = await self._schemas.violation(schema, encode(values), discreet=discreet)
        except InvalidSchema as error:
            return _rejected(f"input_schema is no JSON Schema: {error}")
        except CheckFailed as error:
            return _unchecked("input can't be checked against input_schema", error)
        return None if violation is None else _rejected(f"input does not match input_schema {violation}")

    async def after(self, task: TaskQueued, outcome: Completed) -> tuple[Completed | Failed, bool]:
        """The outcome, or the failure that it is, since its data does not match `output_schema`; and whether another
        attempt may do better. No data at all counts as null."""
        schema = declared(task.output_schema)
        if schema is None:
            return outcome, True
        try:
            violation = await self._schemas.violation(schema, await self._data(task, outcome))
        except (InvalidSchema, CheckFailed, InputError) as error:
            again = isinstance(error, CheckFailed) and not error.lasting
            return _instead(outcome, f"output can't be checked against output_schema: {error}"), again
        if violation is None:
            return outcome, True
        return _instead(outcome, f"output does not match output_schema {violation}"), True

    async def _values(self, schema: bytes, task: TaskQueued, inputs: Inputs) -> dict[str, object]:
        tries = 0
        while True:
            try:
                return await wanted_values(schema, inputs, task, self._artifacts, self._limit)
            except NexusError as error:
                tries += 1
                await _pause(error, tries)

    async def _data(self, task: TaskQueued, outcome: Completed) -> bytes:
        """The data as JSON. Raises `InputError`."""
        data = outcome.data
        if data is None:
            return b"null"
        if isinstance(data, Inline):
            return bytes(data.value)
        if data.store != ARTIFACT_STORE:
            raise InputError(f"there is no artifact store {data.store!r}")
        if data.size > self._limit:
            raise InputError(too_large(task.task_name, f"data ({data.uri})", data.size, self._limit))
        tries = 0
        while True:
            try:
                content = await self._artifacts.read(data.key, limit=self._limit)
            except (NotFound, IntegrityError, PayloadTooLarge) as error:
                raise InputError(f"{data.uri}: {error}") from error
            except NexusError as error:
                tries += 1
                await _pause(error, tries)
            else:
                return content if data.media_type == JSON else encode(value_of(content, data.media_type, data.uri))


async def _pause(error: NexusError, tries: int) -> None:
    """Wait for a bus that is away. Raises the errors that stay."""
    if not error.retryable:
        raise error
    await asyncio.sleep(FIRST_PAUSE + retry_delay(tries, FIRST_PAUSE, 2.0, LONGEST_PAUSE, random.random))


def _rejected(error: str) -> Failed:
    return Failed(error=error, kind=FailureKind.REJECTED)


def _unchecked(what: str, error: CheckFailed) -> Failed:
    return Failed(error=f"{what}: {error}", kind=FailureKind.REJECTED if error.lasting else FailureKind.ERROR)


def _instead(outcome: Completed, error: str) -> Failed:
    """What it printed is kept, for whoever looks for the reason."""
    return replace(Failed(error=error), output=outcome.output, stderr=outcome.stderr)
