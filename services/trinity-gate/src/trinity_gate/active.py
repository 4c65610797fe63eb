"""A run under supervision: what is heard of it, put together. Pure but for the clock that its owner hands in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from gbe_jobs_domain.ids import task_id
from gbe_jobs_domain.payloads import ProgressKind, TaskProgress
from gbe_operative_aether import wire
from trinity_gate import pillars
from trinity_gate.entries import iso
from trinity_gate.index import FAULT, RunRecord
from trinity_gate.models import Live, Phase, PillarStatus, RunStatus
from trinity_gate.runlog import LiveLog

RATE_POINTS = 120

_report = msgspec.json.Decoder(wire.SessionReport)


class Changes:
    """Lets others wait until something holds of what its owner changes."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Wait until it holds; False where it doesn't within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not holds():
                    await self._event.wait()
        except TimeoutError:
            return holds()
        return True


@dataclass(slots=True, eq=False)
class ActiveRun:
    """A run that is not over, or whose results are still being collected.

    `heard_at`: loop time of the last sign of life, None before the first. `started`: an Operative has begun with it.
    """

    record: RunRecord
    live: LiveLog = field(default_factory=LiveLog)
    changes: Changes = field(default_factory=Changes)
    report: wire.SessionReport | None = None
    started: bool = False
    heard_at: float | None = None
    stopping: bool = False
    note: str | None = None
    terminal: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the Operative has reported the end: everything it leaves is there."""
    replaced: bool = False
    """The complete log has taken the place of what was heard."""

    @property
    def task_id(self) -> str:
        """Its one task."""
        return task_id(self.record.job_id, 0)

    @property
    def phase(self) -> Phase:
        """Finer than the state."""
        if self.record.over:
            return "ended"
        if self.stopping:
            return "stopping"
        if self.report is None:
            return "running" if self.started else "queued"
        match self.report.state:
            case wire.SessionState.PAUSED:
                return "paused"
            case wire.SessionState.FINISHING:
                return "finishing"
        return "running"

    def hear(self, progress: TaskProgress, now: float) -> None:
        """What the Operative says. A session that begins again (its Operative was stopped, another one took it) is
        followed from its start. Raises `msgspec.DecodeError` where the data is of no report."""
        self.heard_at = now
        if not self.started:
            self.started = True
            self.note = None
        if progress.kind is ProgressKind.STEP and progress.data is not None:
            report = wire.decode_report(progress.data)
            before = self.report
            if before is not None and report.session.tick < before.tick:
                self.live.begin_again()
                self.record.rate.clear()
            self.report = report.session
            self.record.ticks_completed = report.session.tick
            self.record.paused = report.session.state is wire.SessionState.PAUSED
            log = report.log
            self.live.hear(log.first_index, log.entries, log.total)
            if report.session.state is wire.SessionState.RUNNING:
                self._add_rate(progress.at, report.session.ticks_per_s)
        self.changes.notify()

    def _add_rate(self, at: int, rate: float) -> None:
        points = self.record.rate
        elapsed = max(at - self.record.started_at, 0) / 1000
        if points and points[-1][0] >= elapsed:
            return
        points.append((round(elapsed, 3), round(rate, 1)))
        if len(points) > RATE_POINTS:
            del points[1:-1:2]

    def status(self) -> RunStatus:
        """As the API shows it."""
        return run_status(self.record, self.phase, self.note)


def run_status(record: RunRecord, phase: Phase = "ended", note: str | None = None) -> RunStatus:
    """A run as the API shows it."""
    done = min(record.ticks_completed, record.ticks_total)
    return RunStatus(
        run_id=record.run_id,
        state=record.state,  # type: ignore[arg-type] # the database has a CHECK on it
        scenario_id=record.scenario_id,
        started_at=iso(record.started_at),
        ended_at=iso(record.ended_at) if record.ended_at else None,
        ticks_total=record.ticks_total,
        ticks_completed=done,
        progress=round(done / record.ticks_total, 6) if record.ticks_total else None,
        fault_reason=record.fault_reason,
        paused=phase == "paused",
        phase=phase,
        stop_reason=record.stop_reason,
        note=note,
    )


def report_of(record: RunRecord) -> wire.SessionReport | None:
    """The last report of a run that is over."""
    raw = bytes(record.report)
    return None if raw in (b"", b"null") else _report.decode(raw)


def live_view(record: RunRecord, report: wire.SessionReport | None) -> Live | None:
    """For the charts."""
    if report is None:
        return None
    return Live(
        run_id=record.run_id,
        tick=report.tick,
        ticks_total=report.ticks_total,
        ticks_per_s=report.ticks_per_s,
        sum_abs_flux=report.sum_abs_flux,
        nodes=report.nodes,
        nodes_total=report.nodes_total,
        flux=report.flux,
        rate=record.rate,
    )


def cards(record: RunRecord, phase: Phase, report: wire.SessionReport | None) -> list[PillarStatus]:
    """The run's five pillars."""
    mode = str(record.governance.get("codex_action_mode", ""))
    return pillars.pillar_cards(phase, fault=record.state == FAULT, report=report, mode=mode)
