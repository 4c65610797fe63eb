"""Driving a session: steps, pieces, cancelling, failing, the log."""

import gc
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gbe_aether import (
    LoggingConfigV1,
    Session,
    SessionProgressV1,
    StructuredLogEntryV1,
    StructuredLogger,
    build_introspection_view,
    run_session,
    session_config_from_documents,
    verify_ledger,
)
from gbe_aether.canonical import json_bytes, plain
from gbe_aether.testing import LINE, line, pfna, profile, random_graph, run_config


def test_a_step_is_a_tick() -> None:
    session = Session(line())
    assert (session.phase, session.tick, session.total_ticks) == ("ready", 0, 6)
    assert session.state == [90, 0, 3]
    assert (session.fluxes, session.flux_sum, session.chain) == ([0, 0], 0, 1234567)
    assert session.step() == 1
    assert session.state == [57, 34, 2]
    assert (session.fluxes, session.flux_sum, session.chain) == ([33, -1], 34, 20987847)
    assert list(session) == [2, 3, 4, 5, 6]
    assert session.step() is None
    assert session.phase == "ticking"
    result = session.result()
    assert (session.phase, session.done, result.status, result.completed_ticks) == ("completed", True, "completed", 6)
    assert result is session.result()


def test_progress_is_told_and_ends_at_one() -> None:
    told: list[SessionProgressV1] = []
    run_session(line(2000), progress=told.append, interval=0.001)
    assert told[-1].phase == "completed"
    assert told[-1].fraction == 1.0
    assert (told[-1].tick, told[-1].sealed_ticks) == (2000, 2000)
    fractions = [each.fraction for each in told]
    assert fractions == sorted(fractions)
    assert {"ticking", "sealing"} <= {each.phase for each in told}


def test_a_cancelled_run_says_so_and_has_the_ledger_of_the_ticks_done() -> None:
    session = Session(line(100))
    for _ in range(40):
        session.step()
    session.cancel()
    result = session.result()
    assert (session.phase, result.status, result.completed_ticks) == ("cancelled", "cancelled", 40)
    assert len(result.tick_result.u_ledger_entries) == 40
    assert verify_ledger(result).ticks == 40
    assert result.metrics is not None
    assert result.metrics.uledger_entries == 40
    assert build_introspection_view(result).total_ticks == 40
    events = [entry.event for entry in result.logs]
    assert events == ["run_start", "tick_loop_start", *["tick_complete"] * 40, "window_closed", "run_cancelled"]
    assert result.logs[-1].payload == {"completed_ticks": 40, "total_ticks": 100}
    # Once it is over, nothing changes it.
    session.cancel()
    session.advance(1)
    assert session.result() is result


def test_a_session_cancelled_before_its_first_tick_has_no_records() -> None:
    session = Session(line())
    session.cancel()
    result = session.result()
    assert (result.status, result.completed_ticks, result.final_state) == ("cancelled", 0, [90, 0, 3])
    assert [envelope.layer for envelope in result.all_envelopes()] == ["CTRL"]
    assert result.tick_result.u_ledger_checkpoint is None
    assert list(result.tick_result.u_ledger_entries) == []
    assert verify_ledger(result).ok
    assert result.metrics is not None
    assert result.metrics.uledger_last_hash is None
    assert [entry.event for entry in result.logs] == ["run_start", "window_closed", "run_cancelled"]


def test_a_session_cancelled_while_sealing_is_cancelled_and_can_be_sealed() -> None:
    config = line(5000, governance={"governance_mode": "OBSERVE"})
    session = Session(config)
    list(session)
    while session.progress.sealed_ticks == 0:
        session.advance(0)
    assert session.phase == "sealing"
    session.cancel()
    result = session.result()
    assert (result.status, result.completed_ticks) == ("cancelled", 5000)
    assert not result.tick_result.seal(time.monotonic())
    assert result.tick_result.seal()
    assert result.tick_result.last_hash == run_session(config).tick_result.last_hash


def test_nothing_is_logged_after_a_session_was_cancelled() -> None:
    session = Session(line(5000, governance={"governance_mode": "OBSERVE"}))
    list(session)
    # The first pieces of sealing are the gate's decisions.
    session.advance(0)
    session.cancel()
    result = session.result()
    count = len(result.logs)
    assert 0 < count - 5000 < 5000
    assert result.tick_result.seal()
    assert len(result.logs) == count
    assert result.logs[-1].event == "run_cancelled"


def test_cancelling_is_asked_between_pieces() -> None:
    asked: list[SessionProgressV1] = []
    result = run_session(
        line(10**9), progress=asked.append, cancelled=lambda: bool(asked and asked[-1].tick > 50), interval=0.001
    )
    assert result.status == "cancelled"
    assert 50 < result.completed_ticks < 10**9
    assert asked[-1].phase == "cancelled"


def test_what_cannot_be_sealed_never_looks_sealed() -> None:
    session = Session(line(governance={"governance_mode": "ENFORCE", "meta": {"max_envelopes_per_tick": 0}}))
    session.step()
    session.cancel()
    ticks = session.result().tick_result
    for _ in range(2):
        with pytest.raises(ValueError, match="must align one-to-one"):
            ticks.seal()
    with pytest.raises(ValueError, match="must align one-to-one"):
        _ = ticks.last_hash
    # What rests on single ticks is there all the same.
    assert ticks.ledgers[0].post_u == [57, 34, 2]


def test_an_interrupted_tick_makes_the_session_a_failed_one() -> None:
    def interrupt(entry: StructuredLogEntryV1) -> None:
        if entry.tick == 3:
            raise KeyboardInterrupt

    session = Session(line(), on_log=interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.advance(1)
    assert session.phase == "failed"


def test_a_failed_session_stays_failed() -> None:
    config = session_config_from_documents(
        run_config([90, 0, 3], run_id="R"), LINE, profile(s_t_rule={"mode": "weird"})
    )
    session = Session(config)
    with pytest.raises(ValueError, match="Unsupported s_t rule mode: weird"):
        session.step()
    assert (session.phase, session.done, session.tick) == ("failed", True, 0)
    with pytest.raises(ValueError, match="Unsupported s_t rule mode: weird"):
        session.result()
    with pytest.raises(ValueError, match="Unsupported s_t rule mode: weird"):
        session.advance()
    session.cancel()
    assert session.phase == "failed"


def test_numbers_beyond_what_text_can_hold_fail_the_run_with_a_clear_error() -> None:
    graph = {**LINE, "edges": [{**edge, "k": -(10**40), "cap": 10**60} for edge in LINE["edges"]]}
    config = session_config_from_documents(run_config([1, 0, 3], 200), graph, profile())
    with pytest.raises(ValueError, match=r"Exceeds the limit \(\d+ digits\)"):
        run_session(config)


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"mode": "sum_abs_flux", "offset": 0.5}, "s_t must be an integer"),
        ({"mode": "sum_abs_flux", "scale": "x"}, "unsupported operand|must be an integer|concatenate"),
        ({"value": None}, "constant s_t value must be an integer"),
        ({"value": 9.0}, "constant s_t value must be an integer"),
        ({"value": True}, "constant s_t value must be an integer"),
    ],
)
def test_an_s_t_rule_that_gives_no_integer_fails_the_run(rule: dict[str, Any], problem: str) -> None:
    config = session_config_from_documents(run_config([90, 0, 3]), LINE, profile(s_t_rule=rule))
    with pytest.raises((ValueError, TypeError), match=problem):
        run_session(config)


def test_float_constants_of_envelopes_are_never_hashed() -> None:
    config = session_config_from_documents(run_config([90, 0, 3]), LINE, profile(nap_defaults={"v": 1.5}))
    with pytest.raises(TypeError, match=r"a float cannot be hashed: 1\.5"):
        run_session(config)


# --- the log -------------------------------------------------------------------------------------


def test_log_entries_are_told_as_they_happen() -> None:
    told: list[StructuredLogEntryV1] = []
    session = Session(line(), on_log=told.append)
    session.step()
    assert [entry.event for entry in told] == ["run_start", "tick_loop_start", "tick_complete"]
    result = session.result()
    assert list(result.logs) == told
    assert told[2].payload == {"pfna_refs": [], "prev_chain": 1234567, "C_t": 20987847}


def test_what_a_listener_raises_ends_the_run() -> None:
    def refuse(entry: StructuredLogEntryV1) -> None:
        raise OSError("the listener is gone")

    session = Session(line(), on_log=refuse)
    with pytest.raises(OSError, match="the listener is gone"):
        session.step()
    assert session.phase == "failed"


def test_a_log_file_has_a_line_for_each_event(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log.jsonl"
    config = line(logging={"enabled": True, "destination": "file", "file_path": str(file)}, run_id="ü\x7f")
    result = run_session(config)
    assert list(result.logs) == []
    text = file.read_text(encoding="ascii")
    assert text.startswith('{"event": "run_start", "gid": "G", "payload": {"primary_window_id": "W", "total_ticks": 6')
    assert '"run_id": "\\u00fc\\u007f"' in text
    events = [json.loads(each)["event"] for each in text.splitlines()]
    assert events == [
        "run_start", "tick_loop_start", *["tick_complete"] * 6, "window_closed", "tick_loop_end", "run_end",
    ]  # fmt: skip
    # Appended, never replaced.
    run_session(config)
    assert len(file.read_text(encoding="ascii").splitlines()) == 2 * len(events)


def test_a_log_file_that_cannot_be_written_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = line(logging={"enabled": True, "destination": "file", "file_path": str(tmp_path / "file" / "log")})
    with pytest.raises(OSError, match="file"):
        run_session(config)


def test_logging_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    result = run_session(line(logging={"enabled": True, "destination": "stdout"}))
    assert json.loads(written.getvalue().splitlines()[0])["event"] == "run_start"
    assert list(result.logs) == []


@pytest.mark.parametrize(
    ("option", "left_out"), [("include_ticks", "tick_complete"), ("include_windows", "window_closed")]
)
def test_entries_can_be_left_out(option: str, left_out: str) -> None:
    events = {entry.event for entry in run_session(line(logging={"enabled": True, option: False})).logs}
    every = {"run_start", "tick_loop_start", "tick_complete", "window_closed", "tick_loop_end", "run_end"}
    assert events == every - {left_out}


def test_time_stamps_are_utc_with_microseconds() -> None:
    logger = StructuredLogger(LoggingConfigV1(enabled=True), clock=lambda: 1_700_000_000_000_000)
    logger.log("run_start", gid="G", run_id="R", tick=None, window_id="", payload={})
    assert logger.entries[0] == StructuredLogEntryV1("run_start", "G", "R", "2023-11-14T22:13:20.000000+00:00")
    assert msgspec.to_builtins(logger.entries[-1]).keys() == {"event", "gid", "run_id", "ts"}


def test_a_log_reads_like_a_list() -> None:
    logs = run_session(line()).logs
    assert logs[-1].event == "run_end"
    assert [entry.tick for entry in logs[2:5]] == [1, 2, 3]
    with pytest.raises(IndexError):
        logs[100]


# --- memory --------------------------------------------------------------------------------------


def test_records_beyond_the_memory_limit_go_to_a_file_and_come_back() -> None:
    config = random_graph(50, 100, 400)
    small, large = Session(config, memory_limit=0), Session(config)
    assert small.result().tick_result.last_hash == large.result().tick_result.last_hash
    assert small.spooled_bytes > 0
    assert large.spooled_bytes == 0
    view, again = build_introspection_view(small.result()), build_introspection_view(large.result())
    for tick in (1, 400, 3, 399, 200):
        assert view.get_umx_ledger(tick) == again.get_umx_ledger(tick)
        assert view.get_uledger_entry(tick) == again.get_uledger_entry(tick)


def test_a_full_disk_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gbe_aether.spool.os.pwrite", full)
    session = Session(random_graph(50, 100, 4000), memory_limit=0)
    with pytest.raises(OSError, match="No space left"):
        session.result()
    assert session.phase == "failed"


def test_importing_the_engine_and_running_a_small_graph_loads_no_numpy() -> None:
    program = (
        "import sys; from gbe_aether import *; from gbe_aether.fixtures import registry_path as r\n"
        "run_session(load_scenario_session_config(r(), 'gf01')).tick_result.last_hash\n"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_session_that_is_given_up_leaves_its_log_file_closed(tmp_path: Path) -> None:
    file = tmp_path / "log"
    session = Session(line(logging={"enabled": True, "destination": "file", "file_path": str(file)}))
    session.step()
    del session
    # An open file would be a warning, and here an error.
    gc.collect()
    assert len(file.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"gid": 'é\u2028🚀\x7f"', "enable_codex": True},
        {"governance": {"governance_mode": "OBSERVE", "gid": None, "run_id": None}},
        {"governance": {"governance_mode": "DRY_RUN", "meta": {"max_envelopes_per_tick": 0}}},
        {"logging": {"enabled": True, "include_ticks": False}, "enable_codex": True},
    ],
)
@pytest.mark.parametrize("ticks", [1, 9, 5000])
def test_the_text_of_a_log_is_that_of_its_entries_from_wherever_it_is_read(more: dict[str, Any], ticks: int) -> None:
    document = pfna(
        {"pfna_id": "ü", "tick": 3, "values": [1, 2, 3]}, {"pfna_id": "x", "tick": 4999, "values": [1, 2, 3]}
    )
    gid = more.get("gid", "G")
    config = session_config_from_documents(
        run_config([90, 0, 3], ticks, enable_pfna=True, **more),
        {**LINE, "gid": gid},
        profile(),
        {**document, "gid": gid},
    )
    logs = run_session(config).logs
    expected = [json_bytes(plain(entry)) for entry in logs]
    assert list(logs.lines()) == expected
    for start in {1, 2, 3, len(expected) // 2, len(expected) - 1, len(expected), len(expected) + 5}:
        assert list(logs.lines(start)) == expected[start:]


def test_the_log_as_it_goes_on_is_read_without_going_through_all_input_again(monkeypatch: pytest.MonkeyPatch) -> None:
    document = pfna(*({"pfna_id": "p", "tick": tick, "values": [1, 2, 3]} for tick in range(1, 50)))
    config = session_config_from_documents(run_config([9, 0, 3], 50, enable_pfna=True), LINE, profile(), document)
    session = Session(config)
    monkeypatch.setattr("gbe_aether.pfna.PFNAQueue.ticks", lambda *_: pytest.fail("all of it"))
    read = 0
    for _ in session:
        lines = list(session.logger.entries.lines(read))
        assert lines
        read += len(lines)
