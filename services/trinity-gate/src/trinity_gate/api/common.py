"""What the routes share: the gate, the caller and the role a route needs, and what every route may answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from pydantic import BeforeValidator
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


async def _observer(request: Request) -> Caller:
    return await _admitted(request, Role.OBSERVER)


async def _operator(request: Request) -> Caller:
    return await _admitted(request, Role.OPERATOR)


async def _overseer(request: Request) -> Caller:
    return await _admitted(request, Role.OVERSEER)


async def _admitted(request: Request, needed: Role) -> Caller:
    """The caller, when it may do this and asks for nothing that this route doesn't know. Raises 401, 403, 422."""
    caller = caller_with(request, needed)
    await only_known(request)
    return caller


async def only_known(request: Request) -> None:
    """What a route doesn't know is refused, in the query as in the body: nobody is to believe that it was heeded.
    Raises 422."""
    known_query(request)
    if request.method != "POST" or request.scope["route"].body_field is not None:
        return  # the body's own model refuses what it doesn't know
    body = await request.body()
    document = json.loads(body) if body else None  # the gatekeeper has seen that it is JSON
    if document not in (None, {}):
        field = next(iter(document)) if isinstance(document, dict) else None
        raise invalid("this takes no fields in a body", field)


def known_query(connection: HTTPConnection) -> None:
    """Raises 422 where the query has a name that the route doesn't, or one twice."""
    if not connection.scope.get("query_string"):
        return
    known = {field.alias for field in connection.scope["route"].dependant.query_params}
    seen: set[str] = set()
    for name, _ in connection.query_params.multi_items():
        if name not in known:
            there = f"; there are: {', '.join(sorted(known))}" if known else ", and none at all here"
            raise invalid(f"there is no query parameter {name[:100]!r}{there}", name[:100])
        if name in seen:
            raise invalid(f"the query has {name} twice", name)
        seen.add(name)


def _plain_number(value: Any) -> Any:
    """Of a query: digits and nothing else, not all that Python takes for a number (`+1`, `1_0`)."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError("expected a number in digits")
    return value


ROLES: Final[Mapping[Any, Role]] = {
    _observer: Role.OBSERVER,
    _operator: Role.OPERATOR,
    _overseer: Role.OVERSEER,
}
"""Which role a route needs that depends on it."""

TheGate = Annotated[Gate, Depends(the_gate)]
Observer = Annotated[Caller, Depends(_observer)]
Operator = Annotated[Caller, Depends(_operator)]
Overseer = Annotated[Caller, Depends(_overseer)]

Limit = Annotated[int, Query(ge=1, le=1000, description="Entries at most"), BeforeValidator(_plain_number)]
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

KNOWN: Final = [Depends(only_known)]
"""For a route that asks for no role (the roles' dependencies see to it themselves)."""

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
