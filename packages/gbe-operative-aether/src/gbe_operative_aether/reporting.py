"""A session's state as a `wire.Report`, within the bytes that progress may have."""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import Final

import msgspec

from gbe_aether import Session, SessionRunResult
from gbe_operative_aether.wire import (
    MAX_NODES,
    MAX_POINTS,
    MAX_REPORT,
    AetherFigures,
    CodexFigures,
    Figure,
    LogSlice,
    LoomFigures,
    Pillars,
    PressFigures,
    Report,
    SessionReport,
    SessionState,
    UmxFigures,
    figure,
)

FEWEST_NODES: Final = 16
"""Values of nodes that a report has in any case, however long their numbers are."""

_encode = msgspec.json.Encoder().encode


class FluxSeries:
    """Points `(tick, sum of |f_e|)` of the whole run: every n-th reported tick, n doubling when there are too many."""

    def __init__(self) -> None:
        self._points: list[tuple[int, Figure]] = []
        self._every = 1
        self._seen = 0
        self._newest: tuple[int, Figure] | None = None

    def add(self, tick: int, flux: int) -> None:
        """The flux of a tick, if there is a new one."""
        if not tick or (self._newest is not None and self._newest[0] == tick):
            return
        self._newest = tick, figure(flux)
        if self._seen % self._every == 0:
            self._points.append(self._newest)
            if len(self._points) >= MAX_POINTS:
                self._points, self._every = self._points[::2], 2 * self._every
        self._seen += 1

    def points(self) -> list[tuple[int, Figure]]:
        """The points, the newest last."""
        if self._newest is None or (self._points and self._points[-1] == self._newest):
            return list(self._points)
        return [*self._points, self._newest]


class Reporter:
    """Makes the reports of one session. Entries of the log are taken from its end: what a human wants to see now is the
    newest, and the complete log comes in the end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._flux = FluxSeries()
        self._at = time.monotonic()
        self._tick = 0
        self._logged = 0
        self._streams = sum(len(window.streams) or 2 for window in session.config.windows)
        self._ingress = sorted({pfna.tick for pfna in session.config.pfna_inputs if pfna.tick})

    def sample(self) -> None:
        """Take the flux of the last tick into the series: of the first ticks, before there is a report."""
        self._flux.add(self._session.tick, self._session.flux_sum)

    def report(self, state: SessionState) -> bytes:
        """The JSON of a report, with what was logged since the last one."""
        body = _encode(Report(self.summary(state)))
        return _encode(Report(self._last, self._log(MAX_REPORT - len(body))))

    def summary(self, state: SessionState) -> SessionReport:
        """Where the session is."""
        session, now = self._session, time.monotonic()
        tick, flux, nodes = session.tick, session.flux_sum, session.state
        self._flux.add(tick, flux)
        elapsed = now - self._at
        rate = 0.0 if state is SessionState.PAUSED or elapsed <= 0 else (tick - self._tick) / elapsed
        self._at, self._tick = now, tick
        self._last = SessionReport(
            state,
            tick,
            session.total_ticks,
            figure(flux),
            round(rate, 1),
            [figure(value) for value in nodes[:MAX_NODES]],
            len(nodes),
            self._flux.points(),
            self._pillars(tick, flux, sum(nodes)),
        )
        while len(_encode(self._last)) > MAX_REPORT - 256 and len(self._last.nodes) > FEWEST_NODES:
            # Numbers of many digits: fewer of them.
            self._last = msgspec.structs.replace(self._last, nodes=self._last.nodes[: len(self._last.nodes) // 2])
        return self._last

    def _pillars(self, tick: int, flux: int, total: int) -> Pillars:
        session = self._session
        config = session.config
        opened = sum(window.start_tick <= tick <= window.end_tick for window in config.windows)
        return Pillars(
            AetherFigures(tick, tick + bisect_right(self._ingress, tick)),
            PressFigures(len(config.windows), opened, self._streams),
            UmxFigures(tick, figure(total), figure(flux), session.progress.sealed_ticks),
            LoomFigures(tick, tick // config.profile.I_block_spacing_W, figure(session.chain)),
            CodexFigures(config.governance.codex_action_mode),
        )

    def _log(self, room: int) -> LogSlice:
        entries = self._session.logger.entries
        total = len(entries)
        taken: list[msgspec.Raw] = []
        index = total
        while index > self._logged:
            line = _encode(entries[index - 1])
            room -= len(line) + 1
            if room < 64:
                break
            taken.append(msgspec.Raw(line))
            index -= 1
        self._logged = total
        return LogSlice(index, taken[::-1], total)


def final(report: SessionReport, result: SessionRunResult) -> SessionReport:
    """The last report of a session, with what only its result knows."""
    records = result.tick_result
    pillars = report.pillars
    accepted = len(records.codex_actions) + len(records.codex_hypothetical_actions)
    return msgspec.structs.replace(
        report,
        ticks_per_s=0.0,
        pillars=msgspec.structs.replace(
            pillars,
            aether=AetherFigures(result.completed_ticks, result.envelope_count()),
            press=msgspec.structs.replace(pillars.press, windows_open=0, manifests=len(records.manifests)),
            umx=msgspec.structs.replace(pillars.umx, ledger_entries=len(records.u_ledger_entries)),
            codex=CodexFigures(pillars.codex.mode, len(records.codex_motifs), len(records.codex_proposals), accepted),
        ),
    )
