"""What the routes share: the gate, the caller and the role a route needs, and what every route may answer."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from trinity_gate.errors import GateError, invalid
from trinity_gate.gate import Gate
from trinity_gate.index import Caller
from trinity_gate.models import ErrorResponse, Role
from trinity_gate.security import caller_in
from trinity_gate.tokens import may


async def the_gate(connection: HTTPConnection) -> Gate:
    """The application's. Asynchronous, as the others here: FastAPI would run it in a thread otherwise."""
    gate: Gate = connection.app.state.gate
    return gate


def caller_with(connection: HTTPConnection, needed: Role) -> Caller:
    """The caller. Raises 401 where nobody says who it is, 403 where its role doesn't include the needed one."""
    caller = caller_in(connection.scope)
    if caller is None:
        raise GateError(401, "unauthorized", "a token is needed: Authorization: Bearer TOKEN")
    if not may(caller, needed):
        raise GateError(403, "forbidden", f"this needs the role {needed.value}; {caller.name} is {caller.role}")
    return caller


async def _observer(connection: HTTPConnection) -> Caller:
    return caller_with(connection, Role.OBSERVER)


async def _operator(connection: HTTPConnection) -> Caller:
    return caller_with(connection, Role.OPERATOR)


async def _overseer(connection: HTTPConnection) -> Caller:
    return caller_with(connection, Role.OVERSEER)


TheGate = Annotated[Gate, Depends(the_gate)]
Observer = Annotated[Caller, Depends(_observer)]
Operator = Annotated[Caller, Depends(_operator)]
Overseer = Annotated[Caller, Depends(_overseer)]

Limit = Annotated[int, Query(ge=1, le=1000, description="Entries at most")]
Cursor = Annotated[str | None, Query(max_length=20, description="What `X-Next-Cursor` said")]

NEXT_CURSOR: Final = "X-Next-Cursor"

_TEXTS: Final = {
    400: "The request can't be read",
    401: "A token is needed, or nobody has this one",
    403: "The caller's role, its Host or its Origin does not allow it",
    404: "There is nothing of that name",
    405: "The path has no such method",
    408: "The body came too slowly",
    409: "The state of things does not allow it now",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "What was sent can't be meant",
    500: "The service got it wrong",
    503: "Somebody who is needed does not answer; it may work later",
}

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorResponse, "description": text} for status, text in _TEXTS.items()
}
"""Every error has this shape, on every route."""

PAGED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            NEXT_CURSOR: {"description": "`cursor` of the next page; missing on the last", "schema": {"type": "string"}}
        }
    }
}


def cursor_number(cursor: str | None) -> int | None:
    """A cursor of a list. Raises 422."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise invalid("not a cursor: expected what X-Next-Cursor said", "cursor")
    return int(cursor)
