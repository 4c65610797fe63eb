"""The wire contract of aether sessions: what is written is what is read, whatever the size of a number."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from gbe_operative_aether import wire


def test_documents_travel_as_params_and_come_back_byte_for_byte() -> None:
    documents = wire.Documents(
        run_config=msgspec.Raw(b'{"initial_state":[123456789012345678901234567890]}'),
        topology=msgspec.Raw('{"gid":"Ω"}'.encode()),
        profile=msgspec.Raw(b"{}"),
    )
    params = wire.inline_params(documents)
    assert params is not None
    assert "pfna" not in params
    found = wire.documents_in(params)
    assert found is not None
    assert bytes(found.run_config) == bytes(documents.run_config)
    assert bytes(found.topology) == bytes(documents.topology)
    assert wire.decode_documents(wire.encode_documents(documents)) == documents


def test_large_documents_go_by_reference() -> None:
    large = msgspec.Raw(b'"' + b"x" * wire.INLINE_DOCUMENTS + b'"')
    assert wire.inline_params(wire.Documents(large, msgspec.Raw(b"{}"), msgspec.Raw(b"{}"))) is None


def test_a_document_that_is_missing_is_named() -> None:
    assert wire.documents_in({"session_ref": "store://gbe-artifacts/job_x/session.json"}) is None
    with pytest.raises(ValueError, match="topology, profile"):
        wire.documents_in({"run_config": "{}"})


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, 0), (2**53 - 1, 2**53 - 1), (-(2**53) + 1, -(2**53) + 1), (2**53, str(2**53)), (-(10**40), str(-(10**40)))],
)
def test_a_number_that_not_every_reader_holds_is_text(value: int, written: wire.Figure) -> None:
    assert wire.figure(value) == written


def test_a_full_report_is_read_as_it_was_written() -> None:
    session = wire.SessionReport(
        wire.SessionState.RUNNING,
        tick=7,
        ticks_total=8,
        nodes=[1, "123456789012345678901"],
        nodes_total=2,
        flux=[(1, 0), (7, "123456789012345678901")],
        pillars=wire.Pillars(codex=wire.CodexFigures("OBSERVE", motifs=2)),
    )
    report = wire.Report(session, wire.LogSlice(3, [msgspec.Raw(b'{"event":"tick_complete"}')], total=9))
    assert wire.decode_report(msgspec.json.encode(report)) == report


def test_the_outcome_is_read_as_it_was_written_and_what_is_new_in_it_is_ignored() -> None:
    session = wire.SessionReport(wire.SessionState.FINISHING, tick=3, ticks_total=8)
    outcome = wire.Outcome(wire.SessionResult.CANCELLED, 3, 8, session)
    body = wire.encode_outcome(outcome)
    assert wire.decode_outcome(body) == outcome
    assert wire.decode_outcome(body[:-1] + b',"newer":1}') == outcome


def test_the_contract_imports_neither_the_engine_nor_a_worker() -> None:
    code = (
        "import sys, gbe_operative_aether.wire\n"
        "print(*[name for name in sys.modules if name.startswith(('gbe_aether', 'gbe_operative.', 'asyncio'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
