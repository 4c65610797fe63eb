"""Changes of a run config that keep it startable. Pure: documents in, documents out.

With other ticks, a window that ended with the run still does, and one that would end after it ends with it (as
`gbe_aether.with_ticks` has it). One that would begin after it can't be kept: the change is refused, the window named.

All of that is said of the windows as their author declared them (`Declared`), not of what an earlier change left of
them: fewer ticks and then more again give the same windows as more ticks at once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

Document = dict[str, Any]


class ImpossibleEdit(ValueError):
    """A change that would leave a scenario that can't be started. `field`: where it was asked for."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Declared:
    """The ticks of a run config, and the last tick of each window, before any change of the ticks."""

    ticks: int
    ends: Mapping[str, int]

    def document(self) -> Document:
        """As it is kept."""
        return {"ticks": self.ticks, "ends": dict(self.ends)}


def declared(run_config: Mapping[str, Any], kept: object = None) -> Declared:
    """As a run config says it; or as it was kept of an earlier one, where that explains what this one says (nobody has
    edited the windows by hand since)."""
    said = Declared(_int(run_config.get("ticks")), _ends(run_config))
    try:
        found = msgspec.convert(kept, Declared)
        if _ends(with_ticks(run_config, said.ticks, "", found)) == said.ends and set(found.ends) == set(said.ends):
            return found
    except (msgspec.ValidationError, ImpossibleEdit):
        pass
    return said


def _ends(run_config: Mapping[str, Any]) -> dict[str, int]:
    windows = [window for window in run_config.get("windows") or () if isinstance(window, dict)]
    return {str(window.get("window_id")): _int(window.get("end_tick")) for window in windows}


def with_ticks(run_config: Mapping[str, Any], ticks: int, field: str, before: Declared | None = None) -> Document:
    """The run config with another number of ticks, windows included. `before`: its windows as they were declared, None
    for as they are. Raises `ImpossibleEdit`."""
    found: Document = copy.deepcopy(dict(run_config))
    before = declared(run_config) if before is None else before
    late: list[str] = []
    for window in found.get("windows") or ():
        if not isinstance(window, dict):
            continue
        start, window_id = _int(window.get("start_tick")), str(window.get("window_id"))
        end = before.ends.get(window_id, _int(window.get("end_tick")))
        if start > ticks:
            late.append(f"{window_id} (from tick {start})")
        else:
            window["end_tick"] = ticks if end == before.ticks else min(end, ticks)
    if late:
        raise ImpossibleEdit(
            f"with {ticks} ticks the run would be over before {', '.join(late)} begins: choose at least "
            f"{max(_int(window.get('start_tick')) for window in found['windows'])} ticks",
            field,
        )
    found["ticks"] = ticks
    return found


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def with_switch(run_config: Mapping[str, Any], section: str, enabled: bool) -> Document:
    """The run config with `logging` or `metrics` switched."""
    found: Document = dict(run_config)
    old = found.get(section)
    found[section] = {**(old if isinstance(old, dict) else {}), "enabled": enabled}
    return found


def for_run(run_config: Mapping[str, Any], run_id: str, governance: Mapping[str, Any]) -> Document:
    """The run config as it is executed: the run's id, the merged governance, logging and metrics on unless it says
    otherwise, logs kept in the session's memory (the service reads them; nothing is written where a document says)."""
    found: Document = {**run_config, "run_id": run_id, "governance": dict(governance)}
    for section in ("logging", "metrics"):
        found = with_switch(found, section, enabled(found, section))
    found["logging"] = {**{k: v for k, v in found["logging"].items() if k != "file_path"}, "destination": "memory"}
    return found


def enabled(run_config: Mapping[str, Any], section: str) -> bool:
    """Whether `logging` or `metrics` is on in a run of this service: where the run config says nothing, it is (engine
    specification, section 14)."""
    found = run_config.get(section)
    return bool(found.get("enabled", True)) if isinstance(found, dict) else True


def bound_pfna(pfna: Mapping[str, Any], run_id: str) -> Document:
    """A PFNA document for this run: its `run_id` is the run's, or the engine would refuse it (specification 1.5)."""
    return {**pfna, "run_id": run_id}
