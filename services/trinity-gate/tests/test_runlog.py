"""Logs of runs: heard in pieces, then whole, paged and filtered alike. No server."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import Raw

from trinity_gate import runlog
from trinity_gate.entries import ERROR, INFO, LEVELS, WARN, engine_entry, instant, last_words
from trinity_gate.runlog import LiveLog, LogDamaged, LogFiles, Wanted

COUNT = 2_000


def line(index: int) -> bytes:
    """Mostly ticks; every hundredth is a window."""
    found: dict[str, object]
    ts = f"2026-11-27T09:{index // 60 % 60:02}:{index % 60:02}.000000+00:00"
    if index % 100 == 0:
        found = {
            "event": "window_closed",
            "ts": ts,
            "window_id": "w",
            "payload": {"apx_name": "a", "manifest_check": 1},
        }
    else:
        found = {"event": "tick_complete", "ts": ts, "tick": index, "payload": {"C_t": index}}
    return json.dumps(found).encode()


@pytest_asyncio.fixture
async def files(tmp_path: Path) -> AsyncIterator[LogFiles]:
    found = LogFiles(tmp_path / "logs")
    found.prepare()
    yield found
    await found.close()


def packed(files: LogFiles, lines: list[bytes], *, cut: int = 0) -> Path:
    path = files.download("run-1")
    body = gzip.compress(b"\n".join([*lines, b""]))
    path.write_bytes(body[: len(body) - cut])
    return path


async def test_a_log_is_paged_whole(files: LogFiles) -> None:
    built = await files.build("run-1", packed(files, [line(i) for i in range(COUNT)]))
    assert (built.entries, built.whole) == (COUNT, True)
    seen: list[int] = []
    cursor = 0
    while True:
        page = await files.page("run-1", Wanted(cursor), 300)
        seen += [entry.index for entry in page.entries]
        assert page.total == COUNT
        cursor = page.next
        if page.at_end:
            break
    assert seen == list(range(COUNT))
    assert (await files.page("run-1", Wanted(cursor), 300)).entries == []


async def test_filters_find_the_same_in_memory_and_in_a_file(files: LogFiles) -> None:
    lines = [line(i) for i in range(COUNT)]
    live = LiveLog()
    live.hear(0, [Raw(each) for each in lines], COUNT)
    await files.build("run-1", packed(files, lines))
    middle = engine_entry(0, line(1000)).timestamp
    for wanted in (
        Wanted(level=INFO),
        Wanted(level=WARN),
        Wanted(event="window_closed", since=150),
        Wanted(event="nothing"),
        Wanted(since_time=middle),
        Wanted(since=1999),
        Wanted(since=5000),
    ):
        assert live.page(wanted, 50) == await files.page("run-1", wanted, 50), wanted


async def test_what_was_heard_keeps_its_numbers_when_nothing_more_comes(files: LogFiles) -> None:
    live = LiveLog()
    live.hear(0, [Raw(line(0)), Raw(line(1))], 2)
    live.hear(7, [Raw(line(7))], 9)
    live.hear(7, [Raw(line(7)), Raw(line(8))], 9)  # heard twice
    built = await files.build("run-1", live.lines(), [last_words("run_fault", "2026-11-27T10:00:00", "killed")])
    page = await files.page("run-1", Wanted(), 10)
    assert [entry.index for entry in page.entries] == [0, 1, 7, 8, 9]
    assert (page.entries[-1].level, page.entries[-1].message) == (ERROR, "Run failed: killed")
    assert built.entries == page.total == 10


def test_a_session_that_begins_again_forgets_what_was_heard() -> None:
    live = LiveLog()
    live.hear(0, [Raw(line(1))], 1)
    live.begin_again()
    live.hear(0, [Raw(line(2))], 1)
    assert [entry.tick for entry in live.page(Wanted(), 10).entries] == [2]


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "LIVE_ENTRIES", 100)
    live = LiveLog()
    for i in range(500):
        live.hear(i, [Raw(line(i))], i + 1)
    kept = live.lines()
    assert len(kept) <= 100
    assert kept[-1][0] == 499
    assert live.total == 500


async def test_a_log_that_ends_early_is_kept_as_far_as_it_goes(files: LogFiles) -> None:
    built = await files.build("run-1", packed(files, [line(i) for i in range(COUNT)], cut=200))
    assert not built.whole
    assert 0 < built.entries < COUNT


async def test_what_was_heard_beyond_a_log_that_ends_early_comes_after_it(files: LogFiles) -> None:
    """The beginning that a long session left when it was stopped, and the end that was heard of it."""
    heard = [(i, line(i)) for i in (40, 99, 150, 151, 180)]
    built = await files.build("run-1", packed(files, [line(i) for i in range(100)]), [b'{"event": "end"}'], heard)
    assert (built.entries, built.read, built.whole) == (182, 100, True)
    page = await files.page("run-1", Wanted(98), 10)
    assert [entry.index for entry in page.entries] == [98, 99, 150, 151, 180, 181]
    assert (page.total, page.at_end) == (182, True)


async def test_a_log_that_is_too_large_is_cut(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "logs", max_bytes=1_000)
    files.prepare()
    built = await files.build(
        "run-1", packed(files, [line(i) for i in range(COUNT)]), [last_words("run_fault", "", "")]
    )
    assert not built.whole
    assert built.entries < 20
    await files.close()


async def test_a_line_that_is_none_is_left_out(files: LogFiles) -> None:
    built = await files.build("run-1", packed(files, [line(1), b"{nonsense", b"[]", line(2)]))
    assert not built.whole
    page = await files.page("run-1", Wanted(), 10)
    assert [entry.index for entry in page.entries] == [0, 3]


async def test_a_torn_file_is_set_aside(files: LogFiles, tmp_path: Path) -> None:
    await files.build("run-1", packed(files, [line(i) for i in range(COUNT)]))
    path = tmp_path / "logs" / "run-1.sqlite"
    body = bytearray(path.read_bytes())
    body[100:] = b"\0" * (len(body) - 100)
    path.write_bytes(body)
    with pytest.raises(LogDamaged):
        await files.page("run-1", Wanted(), 10)
    with pytest.raises(FileNotFoundError):
        await files.page("run-1", Wanted(), 10)
    assert len(list((tmp_path / "logs").glob("run-1.sqlite.damaged-*"))) == 1


async def test_what_a_killed_service_left_half_built_is_removed(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    for name in ("run-1.new", "run-1.new.gz", "run-1.new-journal"):
        (tmp_path / name).write_bytes(b"half")
    files.prepare()
    assert list(tmp_path.iterdir()) == []
    await files.close()


@pytest.mark.parametrize(
    ("event", "payload", "level", "text"),
    [
        ("run_start", {"total_ticks": 1200, "windows": ["a"]}, "INFO", "Run started: 1,200 ticks, 1 window"),
        ("tick_complete", {"pfna_refs": ["a", "b"]}, "DEBUG", "Tick 5 complete with 2 PFNA inputs"),
        ("gate_governance_decision", {"status": "ACCEPTED_OBSERVED", "envelope_ref": "nap_1_1"}, "DEBUG", None),
        (
            "gate_governance_decision",
            {"status": "REJECTED", "envelope_ref": "nap_1_1", "reasons": ["layer X not allowed"]},
            "WARN",
            "Gate: envelope nap_1_1 rejected: layer X not allowed",
        ),
        ("run_cancelled", {"completed_ticks": 3, "total_ticks": 8}, "WARN", "Session cancelled after 3 of 8 ticks"),
        ("something_new", None, "INFO", "Something new"),
        ("run_start", {"total_ticks": "many", "windows": 3}, "INFO", "Run started: ? ticks, 0 windows"),
    ],
)
def test_level_and_message_are_derived_per_event(event: str, payload: object, level: str, text: str | None) -> None:
    entry = engine_entry(0, json.dumps({"event": event, "ts": "", "tick": 5, "payload": payload}).encode())
    assert LEVELS[entry.level] == level
    assert text is None or entry.message == text


def test_times_compare_as_text_whatever_their_offset() -> None:
    assert instant("2026-11-27T10:00:00+01:00") == "2026-11-27T09:00:00.000000+00:00"
    assert instant("2026-11-27 09:00") == "2026-11-27T09:00:00.000000+00:00"
    assert instant("yesterday") is None
