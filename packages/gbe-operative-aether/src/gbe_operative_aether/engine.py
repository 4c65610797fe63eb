"""The engine's process: `python -m gbe_operative_aether.engine`, started by the Operative, runs one session at a time.

Between two ticks, or a twentieth of a second, it looks at what is asked of it and says how it goes. What comes of a
session goes into files: the log as it goes on, the bundle when it is over.
"""

from __future__ import annotations

import contextlib
import os
import time
from json import JSONDecodeError
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gbe_aether import (
    LoggingConfigV1,
    RunConfigV1,
    Session,
    SessionConfigV1,
    SessionRunResult,
    load_run_config,
    load_scenario_registry,
    session_config_from_documents,
    write_bundle,
    write_digest_bundle,
)
from gbe_aether.documents import parse_document, read_document
from gbe_aether.fixtures import registry_path
from gbe_operative_aether.frames import BUNDLE_FILE, LOG_FILE, Answer, Begin, Ended, Refused, Told, frame
from gbe_operative_aether.logfile import LogFile
from gbe_operative_aether.reporting import Reporter, final
from gbe_operative_aether.steering import Steering
from gbe_operative_aether.wire import (
    DOCUMENT_NAMES,
    SESSION_REF,
    SessionReport,
    SessionResult,
    SessionState,
    decode_documents,
    figure,
)

SLICE: Final = 0.02
"""Seconds of work between two looks at what is asked; a single tick is never divided."""

FIRST_TICKS: Final = 8
"""Ticks that are done one by one, so that the chart has their flux: many a session moves only at its beginning."""

STANDING: Final = 1.0
"""Seconds between two reports of a session that is paused (`SIGN_OF_LIFE` is two)."""

CANCELLED_RESULTS: Final = 8.0
"""Seconds that the ledger and the bundle of a cancelled session may take together: the rest of the grace that a worker
gives (15 s) is for storing them. Where they take longer there is a bundle of digests, which is there at once."""

CANCELLED_LEDGER: Final = 1_000_000
"""Ticks up to which the ledger of a cancelled session is worth beginning with."""

CANCELLED_HASHES: Final = 400_000
"""Ticks up to which a bundle of the hashes of each of them is worth beginning with."""

CANCELLED_RECORDS: Final = 100_000
"""Up to how many values (ticks times nodes and edges) the bundle of a cancelled session holds records, and not only
their hashes: somebody waits for it."""


class _Enough(Exception):
    """The bundle takes too long, or nobody wants it any more."""


class Host:
    """What a session's run has around it: who steers it and who is told."""

    def __init__(self, steering: Steering, answers: BinaryIO) -> None:
        self.steering = steering
        self._answers = answers

    def answer(self, message: Answer) -> None:
        """Tell the Operative."""
        self._answers.write(frame(message))
        self._answers.flush()

    def run(self, begin: Begin) -> None:
        """One session, from its documents to its files."""
        try:
            config = _config_of(begin)
            session = Session(config, folder=begin.directory)
        except (ValueError, TypeError, OverflowError, KeyError, OSError, RecursionError) as error:
            self.answer(Refused(_text_of(error)))
            return
        _Run(self, begin, session).go()


class _Run:
    """One session under way."""

    def __init__(self, host: Host, begin: Begin, session: Session) -> None:
        self._host = host
        self._steering = host.steering
        self._session = session
        self._interval = begin.interval
        self._directory = Path(begin.directory)
        self._reporter = Reporter(session)
        self._log: LogFile | None = None
        self._due = 0.0
        self._stands = False
        self._enough_at = float("inf")

    def go(self) -> None:
        result, error, last, bundled = None, "", "", False
        try:
            if self._session.config.logging.enabled:
                self._log = LogFile(self._directory / LOG_FILE)
            self._drive()
            result = self._session.result()
            if result.status == "cancelled":
                self._enough_at = time.monotonic() + CANCELLED_RESULTS
            self._end_log()
        except Exception as raised:  # whatever the engine says of its input: the session is a failed one
            result, error = None, _text_of(raised)
        report = self._reporter.summary(SessionState.FINISHING)
        if result is not None:
            try:
                self._finish(result)
                report, last = final(report, result), result.tick_result.last_hash or ""
                bundled = self._write_bundle(result)
            except _Enough:
                pass
            except Exception as raised:  # the disk is full, most likely
                result, error, last = None, _text_of(raised), ""
        ended = self._ended(result, report, error, last)
        logged = self._give_room()
        bundled = bundled or self._write_digests()
        self._host.answer(msgspec.structs.replace(ended, log=logged, bundle=bundled))

    # --- ticks ---

    def _drive(self) -> None:
        session, steering = self._session, self._steering
        while not session.done:
            if session.tick <= FIRST_TICKS:
                self._reporter.sample()
            if steering.cancelled:
                session.cancel()
            elif steering.paused and session.tick < session.total_ticks:
                self._stand()
            else:
                resumed, self._stands = self._stands, False
                running = session.tick < session.total_ticks
                self._tell(SessionState.RUNNING if running else SessionState.FINISHING, now=resumed)
                if session.tick < FIRST_TICKS and running:
                    session.step()
                else:
                    session.advance(SLICE)
            # What is complete at any moment need not be made in the end.
            self._follow()

    def _stand(self) -> None:
        """Paused: said at once, and again and again, since a report may be lost."""
        stepped = self._steering.take_step()
        if stepped:
            self._session.step()
        self._tell(SessionState.PAUSED, now=stepped or not self._stands)
        self._stands = True
        self._steering.wait(self._interval)

    def _tell(self, state: SessionState, *, now: bool = False) -> None:
        """A report, where one is due."""
        moment = time.monotonic()
        if now or moment >= self._due:
            # A session that stands says less: the reports of its steps would have to wait for their share otherwise.
            self._due = moment + (max(self._interval, STANDING) if state is SessionState.PAUSED else self._interval)
            self._host.answer(Told(self._reporter.report(state)))

    # --- what is left ---

    def _follow(self) -> None:
        """Write what was logged since the last look."""
        if self._log is not None:
            self._log.add(self._session.logger.entries.lines(self._log.lines))

    def _end_log(self) -> None:
        """The end of the log; also the first of it, of a session that was over at once."""
        if self._log is not None:
            self._follow()
            self._log.close()

    def _give_room(self) -> bool:
        """Give the room of the records back: nobody will read them any more, and a disk may be full of them. Returns
        whether there is a complete log then."""
        rest: list[bytes] = []
        unread = self._log is not None and not self._log.closed
        if self._log is not None and unread:
            with contextlib.suppress(OSError):
                rest += self._session.logger.entries.lines(self._log.lines)
        self._session.close()
        if self._log is None:
            return False
        try:
            if unread:
                self._log.close(rest)
        except OSError:
            self._log.discard()
        return self._log.closed and self._log.lines == len(self._session.logger.entries)

    def _finish(self, result: SessionRunResult) -> None:
        """The ledger of a cancelled session, as long as there is time for it."""
        if result.status == "cancelled" and result.completed_ticks > CANCELLED_LEDGER:
            raise _Enough
        while not result.tick_result.seal(time.monotonic() + SLICE):
            self._tell(SessionState.FINISHING)
            if time.monotonic() > self._enough_at:
                raise _Enough

    def _write_bundle(self, result: SessionRunResult) -> bool:
        if result.status == "cancelled" and result.completed_ticks > CANCELLED_HASHES:
            raise _Enough
        graph = result.config.topology
        values = result.completed_ticks * (graph.N + len(graph.edges))
        # Unless somebody waits for it, how much is in it is the library's choice.
        records = snapshot = None
        if result.status == "cancelled":
            records, snapshot = values <= CANCELLED_RECORDS, values <= CANCELLED_RECORDS // 4

        def look() -> None:
            self._tell(SessionState.FINISHING)
            if result.status != "cancelled" and self._steering.cancelled:
                # Cancelled so late: the session is whole, but whoever cancelled it does not wait for long.
                self._enough_at = min(self._enough_at, time.monotonic() + CANCELLED_RESULTS)
            if time.monotonic() > self._enough_at:
                raise _Enough

        write_bundle(result, self._directory / BUNDLE_FILE, records=records, snapshot=snapshot, step=look)
        return True

    def _write_digests(self) -> bool:
        """The bundle of a session that has no other. Returns whether there is one now: of a session that did nothing
        there is none."""
        if not self._session.tick:
            return False
        try:
            write_digest_bundle(self._session, self._directory / BUNDLE_FILE)
        except OSError:
            return False
        return True

    def _ended(self, result: SessionRunResult | None, report: SessionReport, error: str, last: str) -> Ended:
        """What is said of it, but for the files."""
        session = self._session
        metrics: dict[str, int | str] | None = None
        check = None
        if result is None:
            outcome = SessionResult.FAILED
        else:
            completed = result.status == "completed"
            outcome = SessionResult.COMPLETED if completed else SessionResult.CANCELLED
            if last and result.completed_ticks:
                check = figure(result.tick_result.primary_manifest.manifest_check)
            # Of a cancelled session, where there was time for its ledger.
            if (completed or last) and result.metrics is not None:
                metrics = msgspec.to_builtins(result.metrics)
        return Ended(
            result=outcome,
            session=report,
            ticks_completed=session.tick,
            ticks_total=session.total_ticks,
            error=error,
            metrics=metrics,
            policy_set_hash=session.config.governance.policy_set_hash,
            last_hash=last,
            manifest_check=check,
            log_entries=len(session.logger.entries),
        )


# --- documents ------------------------------------------------------------------------------------------------------


def _config_of(begin: Begin) -> SessionConfigV1:
    """The session's config, its log in memory whatever it says. Raises what the engine's loaders raise."""
    texts = begin.documents
    if begin.bundled is not None:
        try:
            bundled = decode_documents(begin.bundled)
        except msgspec.DecodeError as error:
            raise ValueError(f"{SESSION_REF}: {error}") from error
        texts = {name: bytes(getattr(bundled, name)) for name in DOCUMENT_NAMES}
    if texts:
        config = session_config_from_documents(*(_document(name, texts[name]) for name in DOCUMENT_NAMES))
    else:
        config = _scenario(begin)
    logging = config.logging
    return msgspec.structs.replace(
        config,
        logging=LoggingConfigV1(
            logging.enabled, include_ticks=logging.include_ticks, include_windows=logging.include_windows
        ),
    )


def _document(name: str, text: bytes) -> Any:
    try:
        return parse_document(text, name)
    except JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error


PATHS: Final = ("topology_path", "profile_path", "pfna_path")
"""Run config keys with paths: a job names no files of this host."""


def _scenario(begin: Begin) -> SessionConfigV1:
    """A scenario of the host's registry, with the job's overrides."""
    registry_file = begin.registry or str(registry_path())
    file = load_scenario_registry(registry_file).run_config_file(begin.scenario)
    overrides = _document("overrides", begin.overrides)
    if not isinstance(overrides, dict):
        raise ValueError("overrides must be an object of run config keys")
    if paths := sorted(set(overrides) & set(PATHS)):
        raise ValueError(f"overrides cannot have {', '.join(paths)}: files are the host's business")
    known = {field.name for field in msgspec.structs.fields(RunConfigV1)}
    if unknown := sorted(set(overrides) - known):
        allowed = ", ".join(sorted(known - set(PATHS)))
        raise ValueError(f"overrides: unknown key {', '.join(unknown)}; there are: {allowed}")
    base = load_run_config(file)
    run_config = {**read_document(file, "Run config"), **overrides}
    pfna = read_document(base.pfna_path, "PFNA document") if run_config.get("enable_pfna") and base.pfna_path else None
    return session_config_from_documents(
        run_config,
        read_document(base.topology_path, "Topology profile"),
        read_document(base.profile_path, "Profile"),
        pfna,
    )


def _text_of(error: BaseException) -> str:
    """One line; of an exception without a text, its name. A `KeyError` quotes its own."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text.replace("\n", " ") or type(error).__name__


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not come between the answers
    steering = Steering(os.fdopen(os.dup(0), "rb"))
    steering.listen()
    host = Host(steering, answers)
    while True:
        host.run(steering.next_session())


if __name__ == "__main__":
    main()
