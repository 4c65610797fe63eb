"""A session: the tick loop as an object that advances in pieces (specification, section 9)."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from gbe_aether.canonical import record_bytes, text_json
from gbe_aether.codex import Occurrences
from gbe_aether.gate import Envelopes
from gbe_aether.history import History
from gbe_aether.loom import CHAIN_FACTOR, RULE_FACTOR, HasFluxes, s_t_rule
from gbe_aether.pfna import check_origin, payload_ref
from gbe_aether.press import Press
from gbe_aether.records import APXManifestV1, ULedgerCheckpointV1
from gbe_aether.result import GF01RunResult, Sealing, SessionRunResult
from gbe_aether.session_config import SessionConfigV1
from gbe_aether.spool import MEMORY_LIMIT, Spool
from gbe_aether.structured_log import StructuredLogEntryV1, StructuredLogger
from gbe_aether.umx import Outcome, Stepper


class SessionProgressV1(msgspec.Struct, frozen=True):
    """How far a session is.

    Attributes:
        phase: `ready`, `ticking`, `sealing` (the ticks are done, the U-ledger is being built),
            `completed`, `cancelled`, `failed`.
        tick: Ticks done.
        total_ticks: Ticks to do.
        sealed_ticks: Ticks whose U-ledger entry is built.
    """

    phase: str
    tick: int
    total_ticks: int
    sealed_ticks: int

    @property
    def fraction(self) -> float:
        """The share of the work that is done, sealing counted as a fifth."""
        if self.phase == "completed":
            return 1.0
        return (0.8 * self.tick + 0.2 * self.sealed_ticks) / self.total_ticks


class Session:
    """A run of the engine that is driven from outside.

    `step` does one tick, `advance` as much as fits into a time; between calls the session stands
    still, which is all that pausing takes. It belongs to one thread at a time.

    Args:
        config: What to run.
        on_log: Called with every log entry as it happens.
        memory_limit: How many bytes of records stay in memory before a temporary file is used.
        folder: Where that file is made; the system's folder for such files if not said.
        kernel: See `umx.Stepper`; for tests and measurements.
    """

    def __init__(
        self,
        config: SessionConfigV1,
        *,
        on_log: Callable[[StructuredLogEntryV1], None] | None = None,
        memory_limit: int = MEMORY_LIMIT,
        folder: str | None = None,
        kernel: str | None = None,
    ) -> None:
        self.config = config
        spool = Spool(memory_limit, folder)
        self.logger = StructuredLogger(config.logging, on_entry=on_log, spool=spool)
        self._spool = spool
        self._stepper = Stepper(config.topology, kernel)
        self._history = History(config, spool, self._stepper)
        self._envelopes = Envelopes(config.profile, config.gid, config.nid)
        self._press = Press(config.windows, config.profile)
        self._occurrences = Occurrences()
        self._active = config.governance.active
        self._phase = "ready"
        self._tick = 0
        self._chain = config.profile.C0
        self._state: Any = self._history.initial
        self._outcome: Outcome | None = None
        self._sealing: Sealing | None = None
        self._result: SessionRunResult | None = None
        self._error: BaseException | None = None
        self._s_t: Callable[[HasFluxes], int] | None = None
        self._log_tick: Callable[[], None] | None = None

    # --- looking at it ---------------------------------------------------------------------------

    @property
    def tick(self) -> int:
        """How many ticks are done."""
        return self._tick

    @property
    def total_ticks(self) -> int:
        """How many ticks the run has."""
        return self.config.total_ticks

    @property
    def phase(self) -> str:
        """Where the session stands; see `SessionProgressV1`."""
        return self._phase

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self._phase in ("completed", "cancelled", "failed")

    @property
    def progress(self) -> SessionProgressV1:
        """How far the session is."""
        sealed = self._sealing.sealed if self._sealing else 0
        return SessionProgressV1(self._phase, self._tick, self.total_ticks, sealed)

    @property
    def state(self) -> list[int]:
        """The values of the nodes now."""
        return [int(each) for each in self._state]

    @property
    def fluxes(self) -> list[int]:
        """The fluxes over the edges in the last tick; zeros before the first."""
        if self._outcome is None:
            return [0] * len(self.config.topology.edges)
        return [int(each) for each in self._outcome.fluxes]

    @property
    def flux_sum(self) -> int:
        """The sum of the absolute fluxes of the last tick."""
        return 0 if self._outcome is None else self._outcome.flux_sum

    @property
    def chain(self) -> int:
        """C_t of the last tick; C0 before the first."""
        return self._chain

    @property
    def spooled_bytes(self) -> int:
        """How many bytes of records are in the temporary file."""
        return self._spool.file_bytes

    @property
    def error(self) -> BaseException | None:
        """What made the session fail."""
        return self._error

    @property
    def manifests(self) -> Mapping[str, APXManifestV1]:
        """The manifests by apx_name; none before the windows are closed."""
        return {} if self._sealing is None else self._sealing.manifests

    @property
    def checkpoint(self) -> ULedgerCheckpointV1 | None:
        """The end of the U-ledger, where it has been built."""
        return None if self._sealing is None else self._sealing.checkpoint()

    def digests(self) -> Iterator[tuple[int, str]]:
        """The hashes of the ticks so far in short (`History.digests`), at no cost whenever they are asked for."""
        return self._history.digests(self._tick)

    def digest(self, start: int) -> str:
        """The digest over the ticks from `start` + 1 to the last."""
        return hashlib.sha256(b"".join(self._history.hash_bytes(start))).hexdigest()

    def close(self) -> None:
        """Give the room of the temporary file back. The records in it cannot be read any more."""
        self._spool.close()

    # --- driving it ------------------------------------------------------------------------------

    def step(self) -> int | None:
        """Do one tick.

        Returns:
            Its number, or `None` when all ticks are done; then `advance` or `result` does the rest.

        Raises:
            ValueError, TypeError, OverflowError: what section 1 to 9 refuse while running.
            OSError: the log or the temporary file cannot be written.
            The session is `failed` then, and stays so.
        """
        if self.done or self._tick >= self.total_ticks:
            return None
        with _Failing(self):
            self._one_tick()
        return self._tick

    def __iter__(self) -> Iterator[int]:
        """The ticks that are left, one after the other as they are done."""
        while (tick := self.step()) is not None:
            yield tick

    def advance(self, seconds: float = 0.05) -> SessionProgressV1:
        """Go on for about so long: ticks first, then the sealing that follows the last of them.

        A single tick is never divided. Raises what `step` raises.
        """
        until = time.monotonic() + seconds
        with _Failing(self):
            while not self.done and self._tick < self.total_ticks:
                self._one_tick()
                if time.monotonic() >= until:
                    return self.progress
            if not self.done:
                self._seal(until)
        return self.progress

    def cancel(self) -> None:
        """Stop here, at once. The result is that of the ticks done so far and says `cancelled`.

        Windows are closed as far as they went. The U-ledger of those ticks is not built now but when
        the result is asked for it. On a session that is done this does nothing.
        """
        if self.done:
            return
        with _Failing(self):
            if self._phase == "ready":
                self._log_start()
            if self._sealing is None:
                self._close_windows()
            else:
                self._sealing.mute()
            self.logger.log(
                "run_cancelled",
                gid=self.config.gid,
                run_id=self.config.run_id,
                tick=self._tick or None,
                payload={"completed_ticks": self._tick, "total_ticks": self.total_ticks},
            )
            self._conclude("cancelled")

    def result(self) -> SessionRunResult:
        """The result; what is left to do is done first.

        Raises:
            What `step` raises, and what a failed session raised.
        """
        while not self.done:
            self.advance(3600)
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    # --- the loop --------------------------------------------------------------------------------

    def _begin(self) -> None:
        config = self.config
        self._log_start()
        check_origin(config.pfna_inputs, config.gid, config.run_id)
        windows = sorted({window.window_id for window in config.windows})
        self._log_event("tick_loop_start", windows)
        self._log_tick = self.logger.series("tick_complete", self._tick_entry, self._tick_lines)
        self._phase = "ticking"

    def _log_start(self) -> None:
        self._log_event("run_start", sorted(window.window_id for window in self.config.windows))

    def _log_event(self, event: str, windows: list[str]) -> None:
        config = self.config
        payload = {
            "total_ticks": config.total_ticks,
            "windows": windows,
            "primary_window_id": config.primary_window_id,
        }
        self.logger.log(event, gid=config.gid, run_id=config.run_id, payload=payload)

    def _one_tick(self) -> None:
        if self._phase == "ready":
            self._begin()
        config, history, tick = self.config, self._history, self._tick + 1
        last = self._outcome
        vector = history.queue.vector(tick) if history.queue else None
        if vector is not None:
            check = payload_ref(history.inputs(tick), config.profile.modulus_M)
            self._envelopes.ingress(tick, check, self._chain)
            outcome = self._stepper.step([a + b for a, b in zip(self.state, vector, strict=True)], None)
        elif last is None:
            outcome = self._stepper.step(self._state, None)
        elif last.at_rest:
            outcome = last
        else:
            outcome = self._stepper.step(last.post, last.post_text)
        if self._s_t is None:
            self._s_t = s_t_rule(config.profile)
        previous = self._chain
        s_t = self._s_t(outcome)
        chain = (CHAIN_FACTOR * previous + RULE_FACTOR * s_t + tick) % config.profile.modulus_M
        if not config.topology.edges and tick % config.profile.I_block_spacing_W == 0:
            raise ValueError("topology_snapshot must be populated")
        loom = hashlib.sha256(history.p_block_text.write(tick, s_t, chain, outcome.flux_text)).digest()
        self._press.append(tick, outcome, previous)
        if self._active:
            self._occurrences.count(tick, outcome.du)
        history.record(outcome, s_t, chain, outcome.ledger_digest(tick), loom)
        self._tick, self._chain, self._outcome, self._state = tick, chain, outcome, outcome.post
        if self._log_tick is not None:
            self._log_tick()

    def _tick_entry(self, index: int, ts: str) -> StructuredLogEntryV1:
        history, tick = self._history, index + 1
        payload = {
            "pfna_refs": history.queue.refs(tick),
            "prev_chain": history.chain(tick - 1),
            "C_t": history.chain(tick),
        }
        return StructuredLogEntryV1("tick_complete", self.config.gid, self.config.run_id, ts, tick, None, payload)

    def _tick_lines(self, start: int, stamps: Iterator[bytes]) -> Iterator[bytes]:
        config, history = self.config, self._history
        head = f'{{"event":"tick_complete","gid":{text_json(config.gid)},"payload":{{"C_t":'.encode()
        middle = f'}},"run_id":{text_json(config.run_id)},"tick":'.encode()
        for index, (stamp, (before, after)) in enumerate(zip(stamps, history.chain_texts(start), strict=False), start):
            if index + 1 in history.queue:
                yield record_bytes(self._tick_entry(index, stamp.decode()))
            else:
                yield b'%b%b,"pfna_refs":[],"prev_chain":%b%b%d,"ts":"%b"}' % (
                    head, after, before, middle, index + 1, stamp,
                )  # fmt: skip

    # --- the end ---------------------------------------------------------------------------------

    def _close_windows(self) -> None:
        config = self.config
        manifests: dict[str, APXManifestV1] = {}
        for manifest in self._press.close(config.gid):
            manifests[manifest.apx_name] = manifest
            self.logger.log(
                "window_closed",
                gid=config.gid,
                run_id=config.run_id,
                window_id=manifest.window_id,
                payload={"apx_name": manifest.apx_name, "manifest_check": manifest.manifest_check},
            )
        self._sealing = Sealing(self._history, manifests, self._occurrences, self._envelopes, self._spool)

    def _seal(self, until: float) -> None:
        if self._sealing is None:
            self._phase = "sealing"
            self._close_windows()
            assert self._sealing is not None
        if not self._sealing.finish(self.logger, until):
            return
        config, ticks = self.config, self._tick
        result = GF01RunResult(self._history, self._sealing)
        ingress, egress = len(result.ingress_envelopes), len(result.egress_envelopes)
        counts = {"envelopes": ticks, "ingress": ingress, "egress": egress}
        self.logger.log("tick_loop_end", gid=config.gid, run_id=config.run_id, payload={"ticks": ticks, **counts})
        self.logger.log("run_end", gid=config.gid, run_id=config.run_id, payload=counts)
        self._conclude("completed")

    def _conclude(self, status: str) -> None:
        assert self._sealing is not None
        self.logger.close()
        tick_result = GF01RunResult(self._history, self._sealing)
        self._result = SessionRunResult(self.config, status, tick_result, self.logger.entries)
        self._phase = status


class _Failing:
    """What is raised within makes the session a failed one."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> None:
        if self._session._error is not None:
            raise self._session._error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # An interruption too leaves a tick half done.
        if error is not None:
            self._session._error = error
            self._session._phase = "failed"
            self._session.logger.close()


def run_session(
    config: SessionConfigV1,
    *,
    progress: Callable[[SessionProgressV1], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_log: Callable[[StructuredLogEntryV1], None] | None = None,
    interval: float = 0.05,
    kernel: str | None = None,
) -> SessionRunResult:
    """Run a session to its end.

    Args:
        config: What to run.
        progress: Called every `interval` seconds, and at the end.
        cancelled: Asked as often; once it says yes, the session is cancelled.
        on_log: Called with every log entry as it happens.
        interval: In seconds.
        kernel: See `umx.Stepper`; for tests and measurements.

    Raises:
        What `Session.step` raises.
    """
    session = Session(config, on_log=on_log, kernel=kernel)
    while not session.done:
        if cancelled is not None and cancelled():
            session.cancel()
            break
        session.advance(interval)
        if progress is not None and not session.done:
            progress(session.progress)
    if progress is not None:
        progress(session.progress)
    return session.result()
