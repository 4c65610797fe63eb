"""One session in the engine's process: what it leaves, whatever its length and however it ends."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gbe_aether import Bundle, verify_ledger
from gbe_aether.testing import LINE, profile, run_config
from gbe_operative_aether import engine
from gbe_operative_aether.engine import Host
from gbe_operative_aether.frames import BUNDLE_FILE, LENGTH, LOG_FILE, Begin, Ended, Refused, Steer, decode_answer
from gbe_operative_aether.logfile import LogFile
from gbe_operative_aether.steering import Steering
from gbe_operative_aether.wire import SessionResult


def run(folder: Path, ticks: int, *, cancel_at: int | None = None, **changes: Any) -> Ended:
    """Run a session to its end."""
    steering = Steering(io.BytesIO())
    answers = io.BytesIO()
    numbers = changes.pop("profile", {})
    documents = {
        "run_config": run_config([90, 0, 3], ticks, **changes),
        "topology": LINE,
        "profile": profile(**numbers),
    }
    texts = {name: json.dumps(each).encode() for name, each in documents.items()}
    begin = Begin(str(folder), 0.1, documents={**texts, "pfna": b"null"})
    steering._take(begin)
    if cancel_at is not None:

        class Cancelling(engine.Session):
            def advance(self, seconds: float = 0.05) -> Any:
                while self.tick < cancel_at:
                    self.step()
                steering._take(Steer("cancel"))
                return self.progress

        engine.Session, kept = Cancelling, engine.Session  # type: ignore[misc]
        try:
            Host(steering, answers).run(steering.next_session())
        finally:
            engine.Session = kept  # type: ignore[misc]
    else:
        Host(steering, answers).run(steering.next_session())
    said, last = answers.getvalue(), None
    while said:
        (length,) = LENGTH.unpack(said[: LENGTH.size])
        last = decode_answer(said[LENGTH.size : LENGTH.size + length])
        said = said[LENGTH.size + length :]
    assert not isinstance(last, Refused), last
    assert isinstance(last, Ended)
    return last


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress((folder / LOG_FILE).read_bytes()).splitlines()]


@pytest.mark.parametrize(
    ("ledger", "hashes", "last", "records"),
    [(10**9, 10**9, True, "hashes"), (10**9, 100, True, "digests"), (100, 100, False, "digests")],
)
def test_a_session_stopped_after_many_ticks_has_its_whole_log_and_a_bundle_that_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: int, hashes: int, last: bool, records: str
) -> None:
    monkeypatch.setattr(engine, "CANCELLED_LEDGER", ledger)
    monkeypatch.setattr(engine, "CANCELLED_HASHES", hashes)
    ended = run(tmp_path, 10**9, cancel_at=30_000, enable_codex=True)
    assert (ended.result, ended.ticks_completed) == (SessionResult.CANCELLED, 30_000)
    assert (ended.log, ended.bundle) == (True, True)
    assert bool(ended.last_hash) is last
    assert (ended.metrics is not None) is last
    log = log_of(tmp_path)
    assert len(log) == ended.log_entries
    assert [entry["tick"] for entry in log if entry["event"] == "tick_complete"] == list(range(1, 30_001))
    assert log[-1]["event"] == "run_cancelled"
    with Bundle(tmp_path / BUNDLE_FILE) as bundle:
        assert bundle.manifest["records"] == records
    found = verify_ledger(tmp_path / BUNDLE_FILE)
    assert (found.ok, found.ticks, found.last_hash) == (True, 30_000, ended.last_hash or None)


def test_where_the_ledger_takes_too_long_there_is_a_bundle_of_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CANCELLED_RESULTS", 0.0)
    ended = run(tmp_path, 10**9, cancel_at=50_000)
    assert (ended.result, ended.log, ended.bundle, ended.last_hash) == (SessionResult.CANCELLED, True, True, "")
    assert verify_ledger(tmp_path / BUNDLE_FILE).ticks == 50_000


def test_a_session_that_fails_on_its_way_has_its_whole_log_and_a_bundle_that_fails_there_too(tmp_path: Path) -> None:
    twice = {"name": "s", "source": "post_u"}
    window = {"window_id": "W", "apx_name": "A", "start_tick": 1, "end_tick": 9000}
    windows = [window, {**window, "window_id": "V", "start_tick": 5000, "streams": [twice, twice]}]
    ended = run(tmp_path, 9000, windows=windows)
    assert (ended.result, ended.error) == (SessionResult.FAILED, "Tick mismatch: expected 5001 but received 5000")
    assert (ended.log, ended.bundle) == (True, True)
    log = log_of(tmp_path)
    assert len(log) == ended.log_entries == 4999 + 2
    found = verify_ledger(tmp_path / BUNDLE_FILE)
    assert (found.ok, found.ticks, found.problem) == (True, 4999, "")


def test_a_session_that_cannot_be_sealed_fails_and_leaves_both(tmp_path: Path) -> None:
    ended = run(tmp_path, 50, profile={"press_defaults": {"preferred_schemes": ["Z"]}})
    assert (ended.result, ended.error) == (SessionResult.FAILED, "Unsupported scheme: Z")
    assert (ended.log, ended.bundle) == (True, True)
    assert verify_ledger(tmp_path / BUNDLE_FILE).ticks == 50


def test_a_session_whose_log_cannot_be_written_fails_and_says_why(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    ended = run(tmp_path, 200_000)
    assert ended.result is SessionResult.FAILED
    assert "No space left on device" in ended.error
    assert (ended.log, ended.bundle) == (False, True)
    assert verify_ledger(tmp_path / BUNDLE_FILE).ticks == ended.ticks_completed


def test_a_session_whose_bundle_cannot_be_written_fails_and_keeps_its_log(tmp_path: Path) -> None:
    (tmp_path / f".{BUNDLE_FILE}.{os.getpid()}.part").symlink_to("/dev/full")
    ended = run(tmp_path, 3000)
    assert ended.result is SessionResult.FAILED
    assert "No space left on device" in ended.error
    # The second, smaller one is written where there is room for it.
    assert (ended.log, ended.bundle) == (True, True)
    assert len(log_of(tmp_path)) == ended.log_entries


def test_nothing_of_a_log_is_lost_when_the_disk_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [os.urandom(40).hex().encode() for _ in range(40_000)]
    full, write = True, os.write

    def writing(handle: int, data: Any) -> int:
        if full and len(data) < 5000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:1000])

    file = LogFile(tmp_path / "log.gz")
    monkeypatch.setattr("gbe_operative_aether.logfile.os.write", writing)
    refused = 0
    for start in range(0, 40_000, 1000):
        try:
            file.add(lines[start : start + 1000])
        except OSError:
            refused += 1
            file.add(lines[file.lines : start + 1000])
        file._wait()
    assert refused
    with pytest.raises(OSError, match="No space"):
        file.close()
    assert not file.closed
    full = False
    file.close()
    assert file.closed
    assert gzip.decompress((tmp_path / "log.gz").read_bytes()).splitlines() == lines
