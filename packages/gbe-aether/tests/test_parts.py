"""The parts on their own: text of numbers, lengths, Codex's order, APXi, the integrity recorder."""

import hashlib
import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbe_aether import (
    APXiFitV1,
    ConstSegmentV1,
    GovernanceConfigV1,
    LinearTrendV1,
    RunSegmentV1,
    best_fit,
    fit,
    integrity_links,
    merkle_root,
    run_session,
)
from gbe_aether.canonical import H, ascii_text, canonical, json_bytes, record_bytes
from gbe_aether.codex import Codex, Occurrences
from gbe_aether.digits import NumberRows, field_class, texts, z_sum_of
from gbe_aether.governance import BudgetPolicyV1, Decisions
from gbe_aether.press import Stream, vb, z, z_sum
from gbe_aether.testing import line, random_graph
from gbe_aether.umx import ExactKernel
from gbe_aether.wide import WideKernel

int64 = st.one_of(
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.sampled_from([s * 10**n + d for n in range(19) for s in (1, -1) for d in (-1, 0, 1)]),
)


# --- text of many numbers --------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(int64, min_size=3, max_size=3), min_size=1, max_size=4))
def test_rows_hold_the_decimal_text_of_any_number(ticks: list[list[int]]) -> None:
    rows = NumberRows([texts(["a", "bcdef", ""])])
    for numbers in ticks:
        column = np.array(numbers, np.int64)
        text = rows.fill((column,), (max(map(abs, numbers)),))
        assert bytes(text).decode() == f"a{numbers[0]}bcdef{numbers[1]}{numbers[2]}"


def test_fields_shrink_when_they_have_long_been_too_wide() -> None:
    rows = NumberRows([texts(["", ","])])
    rows.fill((np.array([10**18, 1]),), (10**18,))
    wide = rows._rows
    for _ in range(64):
        assert bytes(rows.fill((np.array([5, -1]),), (5,))) == b"5,-1"
    assert rows._rows is not wide


def test_what_does_not_fit_into_64_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        field_class(2**63)


def test_a_state_near_the_limits_is_left_to_the_exact_kernel() -> None:
    topology = random_graph(40, 80, 1).topology
    wide, exact = WideKernel(topology), ExactKernel(topology)
    admitted = []
    for bits in range(1, 80):
        state = [2**bits, -(2**bits) + 1] * 20
        found = wide.admit(state)
        admitted.append(found is not None)
        if found is not None:
            assert wide.step(found, None).ledger_text(1) == exact.step(state).ledger_text(1)
    assert admitted == sorted(admitted, reverse=True)
    assert 40 < sum(admitted) < 60


@pytest.mark.parametrize("constant", ["k", "cap", "c", "SC"])
def test_constants_beyond_64_bits_are_left_to_the_exact_kernel(constant: str) -> None:
    from gbe_aether import session_config_from_documents
    from gbe_aether.testing import profile, run_config, topology

    graph = topology(3, [(1, 2, 3, 50), (2, 3, 3, 50)], 10**20 if constant == "SC" else 8)
    if constant != "SC":
        graph["edges"][0][constant] = 10**25
    config = session_config_from_documents(run_config([90, 0, 3]), graph, profile(graph["SC"]))
    wide, exact = run_session(config, kernel="wide"), run_session(config, kernel="exact")
    assert wide.tick_result.last_hash == exact.tick_result.last_hash


# --- lengths ---------------------------------------------------------------------------------------


@given(st.integers())
def test_lengths_of_integers(value: int) -> None:
    groups, rest = 1, abs(value) >> 7
    while rest:
        groups, rest = groups + 1, rest >> 7
    assert vb(value) == 8 * groups
    assert z(value) == vb(2 * abs(value))


@given(st.lists(int64, max_size=30))
def test_lengths_of_arrays(values: list[int]) -> None:
    assert z_sum_of(np.array(values, np.int64)) == z_sum(values) == sum(map(z, values))


@settings(max_examples=200)
@given(
    st.integers(0, 3).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(-90, 90) | st.just(5), min_size=width, max_size=width), min_size=1, max_size=12
        )
    ),
    st.booleans(),
)
def test_streams_kept_up_to_date_have_the_lengths_of_the_whole(values: list[list[int]], arrays: bool) -> None:
    width, count = len(values[0]), len(values)
    runs: list[tuple[list[int], int]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = value, runs[-1][1] + 1
        else:
            runs.append((value, 1))
    expected = {
        "ID": (vb(width) + vb(count), sum(sum(map(z, value)) for value in values)),
        "R": (
            vb(width) + vb(count) + sum(map(z, values[0])),
            sum(sum(z(b - a) for a, b in zip(one, two, strict=True)) for one, two in pairwise(values)),
        ),
        "GR": (
            vb(width) + vb(len(runs)) + sum(sum(map(z, value)) for value, _ in runs),
            sum(vb(length) for _, length in runs),
        ),
    }
    for scheme, (model, residual) in expected.items():
        stream = Stream("s", "", scheme, "")
        for number, value in enumerate(values):
            stream.append(np.array(value, np.int64) if arrays and number % 3 else value)
        record = stream.record()
        assert (record.L_model, record.L_residual, record.L_total) == (model, residual, model + residual)


def test_a_scheme_that_does_not_exist_shows_when_the_window_closes() -> None:
    with pytest.raises(ValueError, match="Unsupported scheme: XX"):
        Stream("s", "", "XX", "").record()


# --- canonical text --------------------------------------------------------------------------------


def test_the_two_dialects() -> None:
    value = {"b": 'é\x7f"\\\n\x01\u2028🚀', "a": [True, None, -5]}
    assert canonical(value) == '{"a":[true,null,-5],"b":"é\x7f\\"\\\\\\n\\u0001\u2028🚀"}'.encode()
    assert ascii_text(value) == '{"a":[true,null,-5],"b":"\\u00e9\\u007f\\"\\\\\\n\\u0001\\u2028\\ud83d\\ude80"}'
    assert H({}) == hashlib.sha256(b"{}").hexdigest()


def test_the_fast_writer_gives_the_canonical_text_of_every_character() -> None:
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and (code < 0x3000 or code % 97 == 0)]
    text = "".join(every)
    assert record_bytes({text: text, "n": 10**30}) == json_bytes({text: text, "n": 10**30})
    assert record_bytes({text: [text, 8.0]}) == json_bytes({text: [text, 8.0]})
    escaped = ascii_text({"a": text})
    assert json.loads(escaped) == {"a": text}
    assert escaped == json.dumps({"a": text}, separators=(",", ":")).replace("\x7f", "\\u007f")


def test_keys_are_sorted_by_code_point() -> None:
    # In UTF-16 the rocket would come before the private use character.
    assert list(json.loads(canonical({"🚀": 1, "\ue000": 2, "Z": 3, "a": 4}))) == ["Z", "a", "\ue000", "🚀"]


def test_floats_are_never_hashed() -> None:
    assert json_bytes({"a": 8.0}) == b'{"a":8.0}'
    found: list[Any] = [1.5, {"a": [1, {"b": 2.0}]}]
    for value in found:
        with pytest.raises(TypeError, match="a float cannot be hashed"):
            H(value)
    with pytest.raises(TypeError):
        H(object())


# --- Codex's order ---------------------------------------------------------------------------------


def codex_of(signatures: list[list[int]]) -> Codex:
    """A Codex over ticks with these differences."""
    config = SimpleNamespace(
        topology=SimpleNamespace(edges=[SimpleNamespace(e_id=number) for number, _ in enumerate(signatures[0], 1)])
    )
    history: Any = SimpleNamespace(config=config, differences=lambda tick, a, b: signatures[tick - 1][a:b])
    occurrences = Occurrences()
    for tick, signature in enumerate(signatures, 1):
        occurrences.count(tick, signature)
    return Codex(history, occurrences)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=30), st.sampled_from([1, 2, 4])
)
def test_motifs_are_in_the_order_of_their_differences(signatures: list[list[int]], stretch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gbe_aether.codex._STRETCH", stretch)
        patch.setattr("gbe_aether.codex._BLOCK", 3)
        codex = codex_of(signatures)
        for _ in codex.learn():
            pass
    found = [(signatures[first - 1], count, first, last) for count, first, last in codex._found]
    expected = sorted(
        (s, signatures.count(s), signatures.index(s) + 1, len(signatures) - signatures[::-1].index(s))
        for s in {tuple(each): each for each in signatures}.values()
    )
    assert found == expected


def test_long_signatures_that_differ_late_are_told_apart() -> None:
    codex = codex_of([[0] * 199 + [n] for n in (3, 1, 2, 1)])
    for _ in codex.learn():
        pass
    assert codex._found == [[2, 2, 4], [1, 3, 3], [1, 1, 1]]


def test_beyond_9999_motifs_proposals_are_in_text_order() -> None:
    codex = codex_of([[number] for number in range(10_002)])
    for _ in codex.learn():
        pass
    for _ in codex.propose(Decisions(GovernanceConfigV1("ENFORCE", "GOVERNED_APPLY"), "W", 1)):
        pass
    order = [index + 1 for index in codex._proposed]
    assert order[999:1004] == [1000, 10000, 10001, 10002, 1001]
    assert codex.proposals == len(codex.accepted()) == 10_002


def test_caps_run_out_one_after_the_other() -> None:
    budget = BudgetPolicyV1("b", max_actions_per_window=5, max_proposals_per_window=4, max_topology_changes=8)
    decisions = Decisions(GovernanceConfigV1("ENFORCE", "GOVERNED_APPLY", budget_policies=(budget,)), "W", 3)
    verdicts = [decisions.decide() for _ in range(5)]
    assert [verdict.status for verdict in verdicts] == ["ACCEPTED", "ACCEPTED", "REJECTED", "REJECTED", "REJECTED"]
    assert verdicts[2].notes == (
        "Budget cap max_actions_per_window=5 reached for window W",
        "Budget cap max_topology_changes=8 reached for window W",
    )
    assert verdicts[2] is verdicts[3]
    assert (verdicts[4].governance_status, verdicts[4].scored) == ("SOFT_FAIL", False)
    usage = decisions.usage()
    assert [(row["used"], row["exhausted"]) for row in usage["caps"]] == [(5, True), (2, False), (6, False)]


# --- APXi ------------------------------------------------------------------------------------------


def test_descriptors_predict_and_leave_a_rest() -> None:
    flat = [[7, 7], [7, 7], [7, 7]]
    assert lengths(fit(flat, ConstSegmentV1(7))) == (1, 0)
    assert lengths(fit(flat, ConstSegmentV1((7, 6)))) == (1, 32)
    rising = [[3], [5], [7], [9]]
    assert lengths(fit(rising, LinearTrendV1(3, 2))) == (5, 0)
    assert lengths(fit(rising, LinearTrendV1(1, 2, 1))) == (6, 0)
    assert lengths(fit([[0, 0]], LinearTrendV1(0, 0))) == (4, 0)
    assert lengths(fit(rising, RunSegmentV1((3, 5), 2), "ID")) == (1, 32)
    assert best_fit(rising, [ConstSegmentV1(3), LinearTrendV1(3, 2)]).descriptor == LinearTrendV1(3, 2)


def lengths(found: APXiFitV1) -> tuple[int, int]:
    assert found.L_total == found.L_model + found.L_residual
    return found.L_model, found.L_residual


def test_descriptors_that_do_not_fit_are_refused() -> None:
    for values, descriptor, problem in (
        ([], ConstSegmentV1(1), "at least one value"),
        ([[1], [1, 2]], ConstSegmentV1(1), "one width"),
        ([[1, 2]], ConstSegmentV1((1,)), "1 components, the stream has 2"),
        ([[1, 2]], RunSegmentV1((1,), 1), "width 1"),
        ([[1], [2]], RunSegmentV1((1,), 1), "cover the window exactly"),
    ):
        with pytest.raises(ValueError, match=problem):
            fit(values, descriptor)
    with pytest.raises(ValueError, match="at least one descriptor"):
        best_fit([[1]], [])


# --- the integrity recorder ------------------------------------------------------------------------


def test_merkle_roots() -> None:
    def pair(left: str, right: str) -> str:
        return hashlib.sha256((left + right).encode()).hexdigest()

    assert merkle_root([]) == hashlib.sha256(b"").hexdigest()
    assert merkle_root(["aa"]) == "aa"
    assert merkle_root(["a", "b", "c"]) == pair(pair("a", "b"), pair("c", "c"))


def test_the_integrity_chain_runs_through_both_kinds_of_blocks() -> None:
    links = list(integrity_links(run_session(line(9))))
    assert "".join(link.kind for link in links) == "PPPPIPPPPIP"
    assert [link.prev_hash for link in links] == ["", *(link.hash for link in links[:-1])]
    assert links[4].merkle_root == merkle_root([link.hash for link in links[:4]])
    assert len({link.hash for link in links}) == 11
