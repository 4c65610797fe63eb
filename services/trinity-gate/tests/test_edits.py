"""Edits of a run config keep it startable, or are refused. No server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trinity_gate.edits import (
    Declared,
    ImpossibleEdit,
    bound_pfna,
    declared,
    enabled,
    for_run,
    with_switch,
    with_ticks,
)


def config(ticks: int, *windows: tuple[int, int]) -> dict[str, Any]:
    return {
        "ticks": ticks,
        "windows": [{"window_id": f"w{i}", "start_tick": s, "end_tick": e} for i, (s, e) in enumerate(windows)],
    }


def test_a_window_that_ends_with_the_run_still_does() -> None:
    assert with_ticks(config(8, (1, 8), (1, 2)), 20, "f") == config(20, (1, 20), (1, 2))
    assert with_ticks(config(8, (1, 8), (1, 2)), 5, "f") == config(5, (1, 5), (1, 2))


def test_a_window_that_would_end_after_the_run_ends_with_it() -> None:
    assert with_ticks(config(8, (1, 8), (2, 6)), 3, "f") == config(3, (1, 3), (2, 3))


def test_a_window_that_would_begin_after_the_run_is_named() -> None:
    before = config(8, (1, 8), (5, 6))
    with pytest.raises(ImpossibleEdit, match=r"w1 \(from tick 5\).*at least 5 ticks") as raised:
        with_ticks(before, 4, "core_params.ticks_total")
    assert raised.value.field == "core_params.ticks_total"
    assert before == config(8, (1, 8), (5, 6))


@given(
    ticks=st.integers(1, 50),
    wanted=st.integers(1, 60),
    bounds=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=4),
)
def test_what_comes_out_can_always_be_started(ticks: int, wanted: int, bounds: list[tuple[int, int]]) -> None:
    windows = [(min(a, b, ticks), min(max(a, b), ticks)) for a, b in bounds]
    try:
        found = with_ticks(config(ticks, *windows), wanted, "f")
    except ImpossibleEdit:
        assert any(start > wanted for start, _ in windows)
        return
    assert found["ticks"] == wanted
    assert all(1 <= window["start_tick"] <= window["end_tick"] <= wanted for window in found["windows"])


def test_logging_and_metrics_are_on_unless_the_run_config_says_otherwise() -> None:
    assert enabled({}, "logging")
    assert enabled({"logging": {"include_ticks": False}}, "logging")
    assert not enabled(with_switch({}, "logging", False), "logging")
    found = for_run({"logging": {"include_ticks": False}}, "run-1", {"governance_mode": "OFF"})
    assert found["logging"] == {"include_ticks": False, "enabled": True, "destination": "memory"}
    assert found["metrics"] == {"enabled": True}


def test_a_run_writes_no_file_that_a_document_names() -> None:
    found = for_run({"logging": {"enabled": True, "destination": "file", "file_path": "/etc/x"}}, "run-1", {})
    assert found["logging"] == {"enabled": True, "destination": "memory"}


def test_a_pfna_document_is_bound_to_the_run() -> None:
    document = {"v": 0, "run_id": "other", "entries": []}
    assert bound_pfna(document, "run-1") == {"v": 0, "run_id": "run-1", "entries": []}
    assert document["run_id"] == "other"


def test_windows_come_back_with_the_ticks() -> None:
    shipped = config(8, (1, 2), (1, 8), (2, 6))
    first = declared(shipped)
    fewer = with_ticks(shipped, 2, "f", first)
    assert fewer == config(2, (1, 2), (1, 2), (2, 2))
    assert declared(fewer, first.document()) == first
    assert with_ticks(fewer, 8, "f", first) == shipped
    assert with_ticks(fewer, 20, "f", first) == config(20, (1, 2), (1, 20), (2, 6))


@pytest.mark.parametrize(
    "kept", [None, [], {"ticks": 8}, {"ticks": 8, "ends": {"w0": 3}}, {"ticks": 8, "ends": {"w0": 8, "gone": 8}}]
)
def test_what_was_kept_of_windows_that_were_edited_by_hand_since_says_nothing(kept: object) -> None:
    edited = config(6, (1, 5))
    assert declared(edited, kept) == Declared(6, {"w0": 5})


@given(
    ticks=st.integers(1, 30),
    path=st.lists(st.integers(1, 40), max_size=4),
    wanted=st.integers(1, 40),
    bounds=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=4),
)
def test_by_whatever_way_the_ticks_change_the_windows_are_the_same(
    ticks: int, path: list[int], wanted: int, bounds: list[tuple[int, int]]
) -> None:
    now = shipped = config(ticks, *[(min(a, b, ticks), min(max(a, b), ticks)) for a, b in bounds])
    first = declared(shipped)
    for step in [*path, wanted]:
        kept = declared(now, first.document())
        try:
            now = with_ticks(now, step, "f", kept)
        except ImpossibleEdit:
            assert any(window["start_tick"] > step for window in shipped["windows"])
            continue
        assert now == with_ticks(shipped, step, "f")
