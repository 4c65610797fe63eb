"""What holds for every session, whatever its graph, its numbers and its length."""

import hashlib
import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gbe_aether import (
    H,
    Session,
    SessionRunResult,
    documents_of,
    full_snapshot,
    replay_state,
    run_session,
    session_config_from_documents,
    verify_ledger,
    with_ticks,
)
from gbe_aether.canonical import ascii_text, canonical
from gbe_aether.snapshots import session_snapshot, session_snapshot_sha256
from gbe_aether.testing import line, pfna, profile, run_config, topology

many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(many, max_examples=20)


values = st.one_of(st.integers(-200, 200), st.integers(-(10**6), 10**6), st.integers(-(10**17), 10**17))
constants = st.one_of(st.integers(-4, 40), st.integers(0, 10**5))


@st.composite
def sessions(draw: st.DrawFn) -> dict[str, Any]:
    """The documents of an arbitrary session: the arguments of `session_config_from_documents`."""
    n = draw(st.integers(1, 7))
    sc = draw(st.integers(1, 40))
    nodes = st.integers(1, n)
    graph = topology(n, draw(st.lists(st.tuples(nodes, nodes, constants, constants), max_size=12)), sc)
    for edge in graph["edges"]:
        edge["c"] = draw(st.sampled_from([0, 0, 0, 3, 70, -2]))
        edge["causal_radius"] = draw(st.sampled_from([None, None, None, 5, 1000]))
    graph["causal_radius"] = draw(st.sampled_from([0, 0, 9, 10**5]))
    graph["max_edge_cap"] = draw(st.sampled_from([None, None, 7, 10**6]))
    graph["nap_ref"] = draw(st.sampled_from([None, "", 'ü"\\\n\x7f']))
    ticks = draw(st.integers(1, 13))
    spacing = draw(st.integers(1, 9)) if graph["edges"] else ticks + 1
    rule = draw(
        st.sampled_from([{}, {"value": 4}, {"mode": "sum_abs_flux"}, {"mode": "sum_abs_flux", "max_value": 50}])
    )
    numbers = profile(
        sc, I_block_spacing_W=spacing, s_t_rule=rule, modulus_M=draw(st.sampled_from([97, 10**9 + 7, 10**30]))
    )
    windows = []
    for number in range(draw(st.integers(1, 3))):
        start = draw(st.integers(1, ticks))
        streams = [
            {
                "name": f"S{index}",
                "source": draw(st.sampled_from(["fluxes", "post_u", "post_u_deltas", "pre_u", "prev_chain"])),
                "scheme_hint": draw(st.sampled_from([None, "R", "GR", "ID"])),
            }
            for index in range(draw(st.integers(0, 3)))
        ]
        end = draw(st.integers(start, ticks))
        windows.append(
            {
                "window_id": f"W{number}",
                "apx_name": f"A{number}ж",
                "start_tick": start,
                "end_tick": end,
                "streams": streams,
            }
        )
    entries = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "pfna_id": st.sampled_from(["a", "b", "Ω"]),
                    "tick": st.integers(0, ticks + 1),
                    "values": st.lists(values, min_size=n, max_size=n),
                }
            ),
            max_size=3,
        )
    )
    config = run_config(
        draw(st.lists(values, min_size=n, max_size=n)),
        ticks,
        windows=windows,
        primary_window_id="W0",
        enable_pfna=bool(entries),
        governance={"governance_mode": draw(st.sampled_from(["OFF", "OBSERVE", "DRY_RUN", "ENFORCE"]))},
    )
    return {
        "run_config": config,
        "topology": graph,
        "profile": numbers,
        "pfna": pfna(*entries) if entries else None,
    }


def records(result: SessionRunResult) -> dict[str, Any]:
    """All of a result as plain values, but for the session's length and the times in the log."""
    snapshot = full_snapshot(result)
    del snapshot["status"], snapshot["config"]
    return snapshot


@many
@given(sessions())
def test_the_sum_of_the_state_changes_by_the_external_input_only(documents: dict[str, Any]) -> None:
    config = session_config_from_documents(**documents)
    result = run_session(config)
    inputs = {(entry.tick, entry.pfna_id): entry for entry in reversed(config.pfna_inputs)}
    added = sum(
        sum(round(float(value)) for value in entry.values)
        for entry in inputs.values()
        if entry.tick <= config.total_ticks
    )
    assert sum(result.final_state) == sum(config.initial_state) + added
    for ledger in result.tick_result.ledgers:
        assert sum(ledger.pre_u) == sum(ledger.post_u) == ledger.z_check


@many
@given(sessions())
def test_both_kernels_give_the_same_bytes(documents: dict[str, Any]) -> None:
    config = session_config_from_documents(**documents)
    exact, wide = run_session(config, kernel="exact"), run_session(config, kernel="wide")
    assert exact.tick_result.last_hash == wide.tick_result.last_hash
    assert records(exact) == records(wide)


@many
@given(sessions())
def test_the_ledger_verifies_from_the_result_and_from_its_full_snapshot(documents: dict[str, Any]) -> None:
    result = run_session(session_config_from_documents(**documents))
    assert verify_ledger(result).ok
    found = verify_ledger(json.loads(ascii_text(full_snapshot(result))))
    assert (found.ok, found.ticks, found.last_hash) == (True, result.completed_ticks, result.tick_result.last_hash)


@many
@given(sessions())
def test_hashed_text_is_the_canonical_text_of_the_record(documents: dict[str, Any]) -> None:
    result = run_session(session_config_from_documents(**documents))
    ticks = result.tick_result
    for tick in range(1, result.completed_ticks + 1):
        assert ticks.history.ledger_text(tick) == canonical(ticks.ledgers[tick - 1])
        assert ticks.history.loom_text(tick) == canonical(ticks.p_blocks[tick - 1])
        umx, loom = ticks.history.hashes(tick)
        entry = ticks.u_ledger_entries[tick - 1]
        assert (entry.umx_ledger_hash, entry.loom_block_hash) == (umx, loom)
        assert (umx, loom) == (H(ticks.ledgers[tick - 1]), H(ticks.p_blocks[tick - 1]))
        assert entry.nap_envelope_hash == H(ticks.envelopes[tick - 1])
        assert ticks.sealing.entry_hashes(tick)[1] == H(entry)


@many
@given(sessions())
def test_the_chain_follows_its_rule(documents: dict[str, Any]) -> None:
    config = session_config_from_documents(**documents)
    chain = config.profile.C0
    for block in run_session(config).tick_result.p_blocks:
        chain = (17 * chain + 23 * block.s_t + block.tick) % config.profile.modulus_M
        assert block.C_t == chain


@many
@given(sessions())
def test_replay_from_any_i_block_gives_the_recorded_states(documents: dict[str, Any]) -> None:
    config = session_config_from_documents(**documents)
    result = run_session(config)
    spacing = config.profile.I_block_spacing_W
    for tick in range(spacing, result.completed_ticks + 1):
        assert replay_state(result, tick, external_input=True) == result.tick_result.ledgers[tick - 1].post_u
    if spacing > 1:
        with pytest.raises(KeyError, match="No Loom I-block"):
            replay_state(result, 1)
    with pytest.raises(KeyError, match="not among the recorded"):
        replay_state(result, result.completed_ticks + 1)


@few
@given(sessions(), st.randoms(use_true_random=False))
def test_the_order_of_independent_things_does_not_matter(documents: dict[str, Any], chance: random.Random) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in chance.sample(sorted(value), len(value))}
        return [shuffled(each) for each in value] if isinstance(value, list) else value

    other = shuffled(documents)
    if other["pfna"]:
        entries = other["pfna"]["entries"]
        assume(len({(entry["tick"], entry["pfna_id"]) for entry in entries}) == len(entries))
        chance.shuffle(entries)
    one = run_session(session_config_from_documents(**documents))
    two = run_session(session_config_from_documents(**other))
    assert session_snapshot_sha256(one) == session_snapshot_sha256(two)


def test_the_order_of_policies_does_not_change_the_policy_set_hash() -> None:
    policies = [{"policy_id": name, "max_actions_per_window": 3} for name in ("b", "a", "c")]
    hashes = {
        line(governance={"governance_mode": "OBSERVE", "budget_policies": order}).governance.policy_set_hash
        for order in (policies, policies[::-1])
    }
    assert len(hashes) == 1


@many
@given(sessions(), st.data())
def test_a_session_in_pieces_is_the_session_in_one(documents: dict[str, Any], data: st.DataObject) -> None:
    config = session_config_from_documents(**documents)
    session = Session(config, memory_limit=0)
    while not session.done:
        if data.draw(st.booleans()):
            session.step()
        else:
            session.advance(0)
    assert records(session.result()) == records(run_session(config))


@many
@given(sessions(), st.data())
def test_a_cancelled_session_is_one_of_so_many_ticks(documents: dict[str, Any], data: st.DataObject) -> None:
    config = session_config_from_documents(**documents)
    ticks = data.draw(st.integers(1, config.total_ticks))
    session = Session(config)
    while session.tick < ticks:
        session.step()
    session.cancel()
    result = session.result()
    assert (result.status, result.completed_ticks) == ("cancelled", ticks)
    assert verify_ledger(result).ok
    assert session.step() is None
    begun = tuple(window for window in config.windows if window.start_tick <= ticks)
    assume(len(begun) == len(config.windows))
    short = run_session(with_ticks(config, ticks))
    assert records(result) == records(short)


@few
@given(sessions())
def test_a_config_survives_the_way_through_its_documents(documents: dict[str, Any]) -> None:
    config = session_config_from_documents(**documents)
    again = session_config_from_documents(**json.loads(json.dumps(documents_of(config))))
    assert again == config
    assert session_snapshot_sha256(run_session(again)) == session_snapshot_sha256(run_session(config))


@few
@given(sessions())
def test_the_streamed_snapshot_is_the_canonical_text_of_the_snapshot(documents: dict[str, Any]) -> None:
    result = run_session(session_config_from_documents(**documents))
    text = ascii_text(session_snapshot(result))
    assert hashlib.sha256(text.encode()).hexdigest() == session_snapshot_sha256(result)


@many
@given(sessions(), st.data())
def test_a_changed_record_does_not_verify(documents: dict[str, Any], data: st.DataObject) -> None:
    result = run_session(session_config_from_documents(**documents))
    snapshot = json.loads(ascii_text(full_snapshot(result)))
    name = data.draw(st.sampled_from(["ledgers", "p_blocks", "envelopes", "u_ledger_entries"]))
    record = data.draw(st.sampled_from(snapshot[name]))
    field = data.draw(st.sampled_from(sorted(record)))
    record[field] = "changed" if record[field] != "changed" else None
    found = verify_ledger(snapshot)
    assert not found.ok
    assert found.problem


@few
@given(sessions())
def test_varied_configs_run_like_loaded_ones(documents: dict[str, Any]) -> None:
    config = session_config_from_documents(**documents)
    varied = msgspec.structs.replace(config, run_id="other", pfna_inputs=())
    assert run_session(varied).tick_result.u_ledger_entries[0].run_id == "other"


@pytest.mark.parametrize("remembered", [0, 3 * 2048, 10**7])
def test_ticks_that_are_remembered_are_those_that_are_computed(
    remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small graph that goes in circles, thrown off them by external input, and back on others."""
    chance = random.Random(5)
    graph = topology(6, [(chance.randint(1, 6), chance.randint(1, 6), chance.randint(3, 9), 30) for _ in range(9)])
    document = pfna(*({"pfna_id": "p", "tick": tick, "values": [tick, 0, -3, 1, 0, 2]} for tick in (90, 91, 200)))
    state = [chance.randrange(200) for _ in range(6)]
    config = run_config(state, 400, enable_pfna=True, enable_codex=True)
    session = Session(session_config_from_documents(config, graph, profile(), document))
    monkeypatch.setattr("gbe_aether.umx.REMEMBERED", remembered)
    again = Session(session_config_from_documents(config, graph, profile(), document))
    assert again.result().tick_result.last_hash == session.result().tick_result.last_hash
    assert len(again._stepper._known) <= max(1, remembered // 1024)
    assert len(session._stepper._known) < 350
    assert session_snapshot_sha256(again.result()) == session_snapshot_sha256(session.result())
    assert len(set(map(tuple, (ledger.post_u for ledger in session.result().tick_result.ledgers[-50:])))) > 1


def test_what_is_remembered_is_bounded_however_large_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gbe_aether.umx.REMEMBERED", 200_000)
    graph = topology(2, [(1, 2, 1, 1)])
    session = Session(session_config_from_documents(run_config([10**3000, 5], 100), graph, profile()))
    list(session)
    held = [outcome.ledger_text(1) for outcome in session._stepper._known.values()]
    assert held
    assert sum(map(len, held)) <= 200_000
