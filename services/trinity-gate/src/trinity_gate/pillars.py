"""The five pillars as cards: what a run reports of itself, put into a few words. Pure (operator service 3.4, 4.3.1)."""

from __future__ import annotations

from typing import Final

from gbe_operative_aether import wire
from trinity_gate.models import Phase, PillarId, PillarState, PillarStatus

NAMES: Final[tuple[tuple[PillarId, str], ...]] = (
    ("aether", "Aether"),
    ("press", "Press"),
    ("umx", "UMX"),
    ("loom", "Loom"),
    ("codex", "Codex"),
)

_BY_PHASE: Final[dict[Phase, PillarState]] = {
    "queued": "warming",
    "running": "running",
    "paused": "idle",  # the specification has no word for it; nothing of it works now
    "stopping": "cooling",
    "finishing": "cooling",
    "ended": "idle",
}


def idle() -> list[PillarStatus]:
    """Nothing was run yet."""
    return [PillarStatus(pillar_id=pillar, name=name, status="idle") for pillar, name in NAMES]


def pillar_cards(phase: Phase, *, fault: bool, report: wire.SessionReport | None, mode: str) -> list[PillarStatus]:
    """The cards of a run. `report`: its last one, None where none came. `mode`: its governance mode."""
    return [
        PillarStatus(
            pillar_id=pillar,
            name=name,
            status=_status(pillar, phase, fault, report, mode),
            load=_load(pillar, phase, report),
            headline_metric=None if report is None else _headline(pillar, report),
            secondary_metric=None if report is None else _secondary(pillar, report),
            governance_mode=mode if pillar in ("aether", "codex") else None,
        )
        for pillar, name in NAMES
    ]


def _status(pillar: PillarId, phase: Phase, fault: bool, report: wire.SessionReport | None, mode: str) -> PillarState:
    if fault:
        # The engine says that it failed, not where: the gate, which ran the session, shows it.
        return "fault" if pillar == "aether" else "unknown"
    if pillar == "codex" and mode == "OFF":
        return "idle"
    if phase == "running" and report is None:
        return "warming"
    return _BY_PHASE[phase]


def _load(pillar: PillarId, phase: Phase, report: wire.SessionReport | None) -> float | None:
    if report is None or phase == "ended":
        return None
    if pillar == "press":
        press = report.pillars.press
        return min(press.windows_open / press.windows, 1.0) if press.windows else None
    return min(report.tick / report.ticks_total, 1.0) if pillar == "aether" else None


def _headline(pillar: PillarId, report: wire.SessionReport) -> str:
    found = report.pillars
    match pillar:
        case "aether":
            return f"{report.tick:,} of {report.ticks_total:,} ticks"
        case "press":
            return _count(found.press.windows, "window")
        case "umx":
            return _count(found.umx.ledgers, "ledger")
        case "loom":
            return _count(found.loom.p_blocks, "P-block")
        case "codex":
            return _count(found.codex.motifs, "motif")


def _secondary(pillar: PillarId, report: wire.SessionReport) -> str:
    found = report.pillars
    match pillar:
        case "aether":
            return _count(found.aether.envelopes, "envelope")
        case "press":
            if found.press.manifests:
                return _count(found.press.manifests, "manifest")
            return f"{found.press.windows_open:,} open"
        case "umx":
            return f"total {_figure(found.umx.total)}, Σ|flux| {_figure(found.umx.sum_abs_flux)}"
        case "loom":
            return f"{_count(found.loom.i_blocks, 'I-block')}, C {found.loom.chain}"
        case "codex":
            return f"{_count(found.codex.proposals, 'proposal')}, {found.codex.accepted:,} accepted"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _figure(value: wire.Figure) -> str:
    return f"{value:,}" if isinstance(value, int) else value
