"""The engine's log entries as an operator reads them: level and message derived per event. Pure.

The engine's entries have neither (engine specification, section 10; operator service 3.7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR")
DEBUG, INFO, WARN, ERROR = range(4)

FAULT_EVENT: Final = "run_fault"
STOPPED_EVENT: Final = "run_stopped"
"""The service's own last words on a run; the engine knows neither who stopped it nor that its process died."""


class EngineEntry(msgspec.Struct, frozen=True):
    """A `StructuredLogEntryV1` as far as it is looked at."""

    event: str
    ts: str = ""
    tick: int | None = None
    window_id: str | None = None
    payload: dict[str, Any] | None = None


class Entry(msgspec.Struct, frozen=True):
    """An entry of a run's log. `index` counts from 0 in the run."""

    index: int
    timestamp: str
    level: int
    event: str
    message: str
    payload: dict[str, Any] | None = None
    tick: int | None = None


_decode = msgspec.json.Decoder(EngineEntry).decode


def engine_entry(index: int, line: bytes | msgspec.Raw) -> Entry:
    """The entry in a line of the engine's. Raises `msgspec.DecodeError`."""
    found = _decode(line)
    payload = found.payload or {}
    level, text = _DERIVED.get(found.event, _unknown)(found, payload)
    return Entry(index, found.ts, level, found.event, text, found.payload, found.tick)


def last_words(event: str, at: str, reason: str) -> bytes:
    """A line of the service's own, in the engine's form."""
    return msgspec.json.encode({"event": event, "ts": at, "payload": {"reason": reason}})


def iso(millis: int) -> str:
    """Milliseconds since the epoch as the API writes times."""
    return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="microseconds")


def instant(text: str) -> str | None:
    """An ISO 8601 time in the form in which entries carry theirs, so that the two compare as text; None where it is
    none. Without an offset it is UTC."""
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return None


def level_named(name: str) -> int | None:
    """The number of a level; None where there is none of that name."""
    return LEVELS.index(name) if name in LEVELS else None


# --- per event ------------------------------------------------------------------------------------------------------

_Derive = Callable[[EngineEntry, Mapping[str, Any]], tuple[int, str]]


def _unknown(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    return INFO, entry.event.replace("_", " ").capitalize()


def _run_start(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    windows = payload.get("windows")
    count = len(windows) if isinstance(windows, list) else 0
    return INFO, f"Run started: {_number(payload.get('total_ticks'))} ticks, {_plural(count, 'window')}"


def _tick_complete(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    refs = payload.get("pfna_refs")
    outside = f" with {_plural(len(refs), 'PFNA input')}" if isinstance(refs, list) and refs else ""
    return DEBUG, f"Tick {_number(entry.tick)} complete{outside}"


def _window_closed(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    return INFO, (
        f"Window {entry.window_id} closed: {payload.get('apx_name', '?')}, check {payload.get('manifest_check', '?')}"
    )


def _decision(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    status = str(payload.get("status", "?"))
    reasons = payload.get("reasons")
    why = f": {'; '.join(map(str, reasons))}" if isinstance(reasons, list) and reasons else ""
    text = f"Gate: envelope {payload.get('envelope_ref', '?')} {status.lower().replace('_', ' ')}{why}"
    return (WARN if status.startswith("REJECTED") else DEBUG), text


def _tick_loop_start(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    return INFO, "Tick loop started"


def _tick_loop_end(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    return INFO, f"Tick loop ended after {_number(payload.get('ticks'))} ticks"


def _run_end(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    return INFO, f"Run ended: {_number(payload.get('envelopes'))} envelopes"


def _run_cancelled(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    done, total = _number(payload.get("completed_ticks")), _number(payload.get("total_ticks"))
    return WARN, f"Session cancelled after {done} of {total} ticks"


def _run_fault(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    return ERROR, f"Run failed: {payload.get('reason', '?')}"


def _run_stopped(entry: EngineEntry, payload: Mapping[str, Any]) -> tuple[int, str]:
    return WARN, f"Run cancelled: {payload.get('reason', '?')}"


_DERIVED: Final[Mapping[str, _Derive]] = {
    "run_start": _run_start,
    "tick_loop_start": _tick_loop_start,
    "tick_complete": _tick_complete,
    "window_closed": _window_closed,
    "gate_governance_decision": _decision,
    "tick_loop_end": _tick_loop_end,
    "run_end": _run_end,
    "run_cancelled": _run_cancelled,
    FAULT_EVENT: _run_fault,
    STOPPED_EVENT: _run_stopped,
}


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
