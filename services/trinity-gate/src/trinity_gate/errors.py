"""What a request can't have: an HTTP status, a code for programs, a message for people, and the field it is about."""

from __future__ import annotations


class GateError(Exception):
    """Answered as `{"error": {"code", "message", "field"}}`."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field


def not_found(message: str) -> GateError:
    """404: there is nothing of that name."""
    return GateError(404, "not_found", message)


def conflict(code: str, message: str) -> GateError:
    """409: the state of things doesn't allow it now."""
    return GateError(409, code, message)


def invalid(message: str, field: str | None = None) -> GateError:
    """422: what was sent can't be meant."""
    return GateError(422, "invalid", message, field)


def unavailable(code: str, message: str) -> GateError:
    """503: somebody who is needed doesn't answer; the same request may work later."""
    return GateError(503, code, message)


class DamagedFile(Exception):
    """A file in the data directory can't be read. The text names it and says what to do; it is for the log and the
    terminal, never for a response."""
