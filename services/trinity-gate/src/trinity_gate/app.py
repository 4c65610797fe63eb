"""The ASGI application: routes, the page's files, errors in one shape, and the gatekeeper before all of it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import NotModifiedResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from gbe_runtime.log import one_line
from trinity_gate.api import governance, history, runs, scenarios, state
from trinity_gate.api.common import ERRORS, ROLES
from trinity_gate.errors import GateError
from trinity_gate.gate import Gate
from trinity_gate.security import Gatekeeper
from trinity_gate.tokens import Tokens

log = logging.getLogger(__name__)

_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""What is served of the package's `web` directory; anything else in it is not."""


ROUTERS: Final = tuple(module.router for module in (state, runs, scenarios, governance, history))


class _Described(FastAPI):
    """In whose description it says, too, which role an operation needs, and that a token may be needed for it."""

    def openapi(self) -> dict[str, Any]:
        description = super().openapi()
        schemes: dict[str, Any] = description["components"].setdefault("securitySchemes", {})
        if not schemes:
            text = "Needed where the service has a token file."
            schemes["token"] = {"type": "http", "scheme": "bearer", "description": text}
            for route in (route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)):
                for method in route.methods or ():
                    _describe_role(description["paths"][route.path][method.lower()], route)
        return description


def _describe_role(operation: dict[str, Any], route: APIRoute) -> None:
    role = next((ROLES[each.call] for each in route.dependant.dependencies if each.call in ROLES), None)
    operation["security"] = [{}] if role is None else [{}, {"token": []}]
    if role is not None:
        operation["description"] += f"\n\nRole: {role.value}."


def make_app(gate: Gate, *, hosts: Collection[str], tokens: Tokens | None) -> ASGIApp:
    """`hosts`: names by which it may be called. `tokens`: None lets everybody who reaches it do everything."""
    app = _Described(
        title="Trinity Gate",
        description="The Operator Service of the Aether engine.",
        version=state.VERSION,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=ERRORS,
    )
    app.state.gate = gate
    for router in ROUTERS:
        app.include_router(router)
    _serve_page(app)
    app.router.default = _nothing_there
    app.add_exception_handler(GateError, _gate_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(sqlite3.Error, _index_error)
    app.add_exception_handler(Exception, _internal_error)
    return Gatekeeper(app, hosts=hosts, tokens=tokens, metrics=gate.metrics)


def _serve_page(app: FastAPI) -> None:
    """The files of the page, each under its own route: no path of a request is ever looked up."""
    root = Path(str(files("trinity_gate").joinpath("web")))
    for file in sorted(root.rglob("*")):
        media_type = _TYPES.get(file.suffix)
        if media_type is None or not file.is_file():
            continue
        name = file.relative_to(root).as_posix()
        _serve_file(app, f"/{name}", file, media_type)
        if name == "index.html":
            _serve_file(app, "/", file, media_type)


def _serve_file(app: FastAPI, path: str, file: Path, media_type: str) -> None:
    async def serve(request: Request) -> Response:
        # Asked for each time, since an upgrade changes them under the same names; sent only when they did change.
        found = FileResponse(
            file, media_type=media_type, headers={"cache-control": "no-cache"}, stat_result=file.stat()
        )
        if found.headers["etag"] in request.headers.get("if-none-match", "").replace(" ", "").split(","):
            return NotModifiedResponse(found.headers)
        return found

    app.add_route(path, serve, methods=["GET", "HEAD"], include_in_schema=False)


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(_error(404, "not_found", _MESSAGES[404]))
        return
    raise HTTPException(404)


# --- errors -----------------------------------------------------------------------------------------------------------


def _error(
    status: int, code: str, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = {"error": {"code": code, "message": message, "field": field}}
    return JSONResponse(body, status, dict(headers or {}))


async def _gate_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GateError)
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else None
    return _error(error.status, error.code, error.message, error.field, headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    """All that is wrong in one message; the field is the first one's."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(each.get("type") == "json_invalid" for each in found):
        return _error(400, "bad_json", "the body is not JSON")
    texts = [f"{_place(each['loc']) or 'the body'}: {_said(each)}" for each in found[:10]]
    return _error(422, "invalid", "; ".join(texts), _place(found[0]["loc"]) if found else None)


def _place(location: tuple[Any, ...]) -> str | None:
    """Where in the request, without saying that it was the body, the path or the query."""
    return ".".join(str(part) for part in location[1:]) or None


def _said(each: Mapping[str, Any]) -> str:
    if each.get("type") == "extra_forbidden":
        return "there is no such field"
    text = str(each.get("msg", "invalid"))
    return text[:1].lower() + text[1:]


_CODES: Final = {400: "bad_json", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_MESSAGES: Final = {
    400: "the body can't be read as JSON",
    404: "there is nothing at this path",
    405: "this path has no such method",
}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if "GET" in (allowed := headers.get("allow", "").split(", ")):
        headers["allow"] = ", ".join(sorted({*allowed, "HEAD"}))  # the gatekeeper makes a GET of it
    return _error(status, _CODES.get(status, "refused"), _MESSAGES.get(status, str(error.detail)), headers=headers)


async def _index_error(request: Request, error: Exception) -> Response:
    log.error("%s %s: the index can't be used: %s", request.method, one_line(request.url.path), error)
    return _error(503, "index_unavailable", "the index can't be read or written now (is the disk full?)")


async def _internal_error(request: Request, error: Exception) -> Response:
    # Its text may name files of the host: it is in the log.
    log.error("%s %s failed", request.method, one_line(request.url.path), exc_info=error)
    return _error(500, "internal", "the service got it wrong; its log says more")
