"""What a task declares of its params and its data, checked: `input_schema` before it starts, `output_schema` after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from msgspec.structs import replace

from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline, Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_jobs_domain.payloads import TaskQueued, encode
from gbe_nexus import ArtifactStore, IntegrityError, NotFound, PayloadTooLarge
from gbe_operative.contract import Execution
from gbe_operative.core.inputs import JSON, InputError, Inputs, declared, value_of
from gbe_operative.core.sizing import too_large
from gbe_operative.inputs import wanted_values
from gbe_operative.schema_checks import CheckFailed, InvalidSchema, SchemaChecks
from gbe_operative.settings import WorkerSettings

T = TypeVar("T")


class Checking(Protocol):
    """What it takes to check: the worker's workshop, or what stands for it where steps are run within a task."""

    @property
    def checks(self) -> SchemaChecks: ...

    @property
    def settings(self) -> WorkerSettings: ...

    @property
    def artifacts(self) -> ArtifactStore: ...

    async def insist(self, what: str, action: Callable[[], Awaitable[T]]) -> T: ...


async def check_before(shop: Checking, task: TaskQueued, execution: Execution, inputs: Inputs) -> Failed | None:
    """Why the task is not to be started: its params don't match its `input_schema`, or one of its schemas is none.

    Raises `InputError`, and a `NexusError` that stays.
    """
    if (schema := declared(task.output_schema)) is not None:  # found now, not when the work is done
        try:
            await shop.checks.check_schema(schema)
        except InvalidSchema as error:
            return _rejected(f"output_schema is no JSON Schema: {error}")
        except CheckFailed as error:
            return _unchecked("output_schema can't be checked", error)
    if (schema := declared(task.input_schema)) is None:
        return None
    limit = shop.settings.fetch_limit
    values = await shop.insist("fetch inputs", lambda: wanted_values(schema, inputs, task, shop.artifacts, limit))
    try:
        # What quotes a value might quote a secret.
        violation = await shop.checks.violation(schema, encode(values), discreet=execution.masker is not None)
    except InvalidSchema as error:
        return _rejected(f"input_schema is no JSON Schema: {error}")
    except CheckFailed as error:
        return _unchecked("input can't be checked against input_schema", error)
    return None if violation is None else _rejected(f"input does not match input_schema {violation}")


async def check_after(shop: Checking, execution: Execution, outcome: Completed) -> tuple[Completed | Failed, bool]:
    """The outcome, or the failure that it is, since its data does not match `output_schema`; and whether another
    attempt may do better. No data at all counts as null."""
    schema = declared(execution.task.output_schema)
    if schema is None:
        return outcome, True
    try:
        violation = await shop.checks.violation(schema, await _data(shop, execution, outcome))
    except (InvalidSchema, CheckFailed, InputError) as error:
        again = isinstance(error, CheckFailed) and not error.lasting
        return _instead(outcome, f"output can't be checked against output_schema: {error}"), again
    if violation is None:
        return outcome, True
    return _instead(outcome, f"output does not match output_schema {violation}"), True


async def _data(shop: Checking, execution: Execution, outcome: Completed) -> bytes:
    """The data as JSON. Raises `InputError`."""
    data = outcome.data
    if data is None:
        return b"null"
    if isinstance(data, Inline):
        return bytes(data.value)
    limit = shop.settings.fetch_limit
    if data.store != ARTIFACT_STORE:
        raise InputError(f"there is no artifact store {data.store!r}")
    if data.size > limit:
        raise InputError(too_large(execution.task.task_name, f"data ({data.uri})", data.size, limit))
    try:
        content = await shop.insist("read data", lambda: _content(shop, data, limit))
    except (NotFound, IntegrityError, PayloadTooLarge) as error:
        raise InputError(f"{data.uri}: {error}") from error
    return content if data.media_type == JSON else encode(value_of(content, data.media_type, data.uri))


async def _content(shop: Checking, data: Ref, limit: int) -> bytes:
    return await shop.artifacts.read(data.key, limit=limit)


def _rejected(error: str) -> Failed:
    return Failed(error=error, kind=FailureKind.REJECTED)


def _unchecked(what: str, error: CheckFailed) -> Failed:
    return Failed(error=f"{what}: {error}", kind=FailureKind.REJECTED if error.lasting else FailureKind.ERROR)


def _instead(outcome: Completed, error: str) -> Failed:
    """What it printed is kept, for whoever looks for the reason."""
    return replace(Failed(error=error), output=outcome.output, stderr=outcome.stderr)
