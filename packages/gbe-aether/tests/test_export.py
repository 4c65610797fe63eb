"""Export bundles and snapshot files."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from gbe_aether import (
    Bundle,
    LedgerVerification,
    Session,
    compare_snapshots,
    diff_snapshots,
    extend_bundle,
    full_snapshot,
    load_scenario_session_config,
    run_session,
    session_config_from_documents,
    session_snapshot,
    verify_ledger,
    write_bundle,
    write_digest_bundle,
    write_snapshot,
)
from gbe_aether.fixtures import registry_path
from gbe_aether.testing import line, random_graph


def test_a_bundle_holds_everything_and_verifies(tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    result = run_session(line(9, governance={"governance_mode": "OBSERVE"}))
    write_bundle(result, file)
    assert verify_ledger(file).last_hash == result.tick_result.last_hash
    with Bundle(file) as bundle:
        bundle.check()
        assert bundle.manifest["status"] == "completed"
        assert bundle.session["final_state"] == result.final_state
        again = run_session(session_config_from_documents(**bundle.inputs))
        assert again.tick_result.last_hash == result.tick_result.last_hash
        counts = {name: sum(1 for _ in bundle.lines(name)) for name in bundle.members if name.endswith(".jsonl")}
    assert counts == {
        "ledgers.jsonl": 9,
        "p_blocks.jsonl": 9,
        "data_envelopes.jsonl": 9,
        "u_ledger.jsonl": 9,
        "i_blocks.jsonl": 2,
        "scenes.jsonl": 9,
        "envelopes.jsonl": result.envelope_count(),
        "codex_motifs.jsonl": len(result.tick_result.codex_motifs),
        "codex_proposals.jsonl": len(result.tick_result.codex_proposals),
        "logs.jsonl": len(result.logs),
    }
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        assert names[-1] == "manifest.json"
        members = json.loads(archive.read("manifest.json"))["members"]
        for name in names[:-1]:
            content = archive.read(name)
            assert members[name] == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        snapshot = json.loads(archive.read("session_snapshot.json"))
    assert snapshot == json.loads(json.dumps(session_snapshot(result)))


def test_a_bundle_of_a_cancelled_session_says_so(tmp_path: Path) -> None:
    session = Session(line(100))
    for _ in range(7):
        session.step()
    session.cancel()
    write_bundle(session.result(), tmp_path / "b.zip")
    assert verify_ledger(tmp_path / "b.zip").ticks == 7
    with Bundle(tmp_path / "b.zip") as bundle:
        assert (bundle.manifest["status"], bundle.manifest["completed_ticks"]) == ("cancelled", 7)


def test_a_bundle_without_ticks(tmp_path: Path) -> None:
    session = Session(line())
    session.cancel()
    write_bundle(session.result(), tmp_path / "b.zip")
    found = verify_ledger(tmp_path / "b.zip")
    assert (found.ok, found.ticks, found.last_hash) == (True, 0, None)


def test_a_large_bundle_leaves_the_snapshot_out_unless_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_session(line())
    monkeypatch.setattr("gbe_aether.bundle.SNAPSHOT_VALUES", 3)
    for wanted, there in ((None, False), (True, True), (False, False)):
        write_bundle(result, tmp_path / "b.zip", snapshot=wanted)
        with Bundle(tmp_path / "b.zip") as bundle:
            assert ("session_snapshot.json" in bundle.members) is there


@pytest.mark.parametrize("done", [0, 7, 12])
def test_a_bundle_of_a_long_run_has_hashes_and_verifies_by_running_it_again(done: int, tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    session = Session(line(12, governance={"governance_mode": "OBSERVE"}))
    for _ in range(done):
        session.step()
    if done < 12:
        session.cancel()
    result = session.result()
    write_bundle(result, file, records=False)
    with Bundle(file) as bundle:
        bundle.check()
        assert (bundle.has_records, bundle.manifest["records"]) == (False, "hashes")
        assert "ledgers.jsonl" not in bundle.members
        assert len(list(bundle.lines("hashes.jsonl"))) == done
    found = verify_ledger(file)
    assert (found.ok, found.ticks, found.last_hash) == (True, done, result.tick_result.last_hash)


def test_beyond_a_size_a_bundle_has_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_session(line())
    monkeypatch.setattr("gbe_aether.bundle.RECORD_VALUES", 3)
    for wanted, there in ((None, False), (True, True), (False, False)):
        write_bundle(result, tmp_path / "b.zip", records=wanted)
        with Bundle(tmp_path / "b.zip") as bundle:
            assert bundle.has_records is there


@pytest.mark.parametrize(
    ("member", "old", "new", "says"),
    [
        ("hashes.jsonl", b'"tick":3,"umx":"', b'"tick":3,"umx":"0', "hashes[2]: recorded"),
        ("inputs.json", b'"initial_state":[', b'"initial_state":[1', "hashes[0]: recorded"),
        ("session.json", b'"head_hash":"', b'"head_hash":"0', "u_ledger_checkpoint: recorded"),
        ("session.json", b'"completed_ticks":6', b'"completed_ticks":7', "completed_ticks: recorded 7, recomputed 6"),
    ],
)
def test_a_bundle_of_hashes_that_was_tampered_with_is_found_out(
    tmp_path: Path, member: str, old: bytes, new: bytes, says: str
) -> None:
    file = tmp_path / "b.zip"
    write_bundle(run_session(line()), file, records=False)
    found_out(file, member, old, new, says)


@pytest.mark.parametrize(("keep", "says"), [(5, "hashes: 5 recorded of a session of 6"), (9, "hashes[6]: recorded")])
def test_a_bundle_with_too_few_or_too_many_hashes_is_found_out(tmp_path: Path, keep: int, says: str) -> None:
    file = tmp_path / "b.zip"
    write_bundle(run_session(line()), file, records=False)
    lines = zipfile.ZipFile(file).read("hashes.jsonl").splitlines(keepends=True)
    rewritten(file, "hashes.jsonl", b"".join((lines * 2)[:keep]), manifest=True)
    assert verify_ledger(file).problem.startswith(says)


def test_writing_a_bundle_can_be_stopped_and_leaves_nothing(tmp_path: Path) -> None:
    result = run_session(random_graph(50, 100, 300))
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise InterruptedError("stop")

    with pytest.raises(InterruptedError):
        write_bundle(result, tmp_path / "b.zip", step=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_extended(tmp_path: Path) -> None:
    write_bundle(run_session(line()), tmp_path / "a.zip", further={"mine.txt": b"1"})
    extend_bundle(tmp_path / "a.zip", tmp_path / "b.zip", {"page/index.html": b"<p>"})
    with Bundle(tmp_path / "b.zip") as bundle:
        bundle.check()
        assert bundle.members[-2:] == ["mine.txt", "page/index.html"]
    assert verify_ledger(tmp_path / "b.zip").ok
    with pytest.raises(ValueError, match=r"has a member 'mine.txt' already"):
        extend_bundle(tmp_path / "a.zip", tmp_path / "c.zip", {"mine.txt": b"2"})
    assert not (tmp_path / "c.zip").exists()


def found_out(file: Path, member: str, old: bytes, new: bytes, says: str) -> None:
    """What `verify_ledger` says of a bundle in which one text was replaced, and its manifest with it."""
    content = zipfile.ZipFile(file).read(member)
    assert old in content
    rewritten(file, member, content.replace(old, new, 1), manifest=True)
    found = verify_ledger(file)
    assert not found.ok
    assert found.problem.startswith(says)


def rewritten(file: Path, member: str, content: bytes | None, *, manifest: bool = False) -> None:
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if content is None:
        del members[member]
    else:
        members[member] = content
    if manifest:
        listed = json.loads(members["manifest.json"])
        listed["members"][member] = {"sha256": hashlib.sha256(content or b"").hexdigest(), "size": len(content or b"")}
        members["manifest.json"] = json.dumps(listed).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, each in members.items():
            archive.writestr(name, each)


def test_a_bundle_that_was_tampered_with_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    write_bundle(run_session(line()), file)
    ledgers = zipfile.ZipFile(file).read("ledgers.jsonl")
    changed = ledgers.replace(b'"tick":3', b'"tick":4')
    rewritten(file, "ledgers.jsonl", changed)
    with Bundle(file) as bundle, pytest.raises(ValueError, match=r"ledgers.jsonl is not what the manifest says"):
        bundle.check()
    rewritten(file, "ledgers.jsonl", changed, manifest=True)
    with Bundle(file) as bundle:
        bundle.check()
    found = verify_ledger(file)
    assert (found.ok, found.ticks) == (False, 2)
    assert found.problem.startswith("u_ledger_entries[2].umx_ledger_hash: recorded")
    rewritten(file, "more.txt", b"")
    with Bundle(file) as bundle, pytest.raises(ValueError, match=r"more.txt is missing in the manifest"):
        bundle.check()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"{}"])
def test_what_is_no_bundle_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match="not an export bundle"):
        verify_ledger(tmp_path / "x.zip")


def test_a_recorded_snapshot_cannot_be_verified_and_says_why() -> None:
    with pytest.raises(ValueError, match="from a full snapshot only"):
        verify_ledger(session_snapshot(run_session(line())))


# --- snapshot files ----------------------------------------------------------------------------------


def test_a_snapshot_file_is_indented_sorted_ascii(tmp_path: Path) -> None:
    write_snapshot({"b": 1, "a": ["ü\x7f", {}]}, tmp_path / "new" / "s.json")
    text = (tmp_path / "new" / "s.json").read_text(encoding="ascii")
    assert text == '{\n  "a": [\n    "\\u00fc\\u007f",\n    {}\n  ],\n  "b": 1\n}'


def test_snapshots_of_files_configs_and_scenarios_are_compared(tmp_path: Path) -> None:
    config = load_scenario_session_config(registry_path(), "ring-5")
    baseline, other = tmp_path / "a.json", tmp_path / "b.json"
    write_snapshot(session_snapshot(run_session(config)), baseline)
    write_snapshot(full_snapshot(run_session(config)), other)
    assert compare_snapshots(baseline, run_config=config)[0] == []
    assert compare_snapshots(baseline, scenario="ring-5", registry_path=registry_path())[0] == []
    # A candidate file goes first.
    assert compare_snapshots(baseline, candidate_path=other, run_config=config)[0] != []
    with pytest.raises(ValueError, match=r"^Provide candidate_path, run_config, or scenario\+registry_path$"):
        compare_snapshots(baseline, scenario="ring-5")


def test_differences_are_found_in_order_with_their_paths() -> None:
    baseline = {"a": [1, 2, {"x": True}], "b": 1, "c": "s", "e": {}}
    candidate = {"a": [1, 3, {"x": 1}, 4], "b": 1.0, "d": None, "e": []}
    assert [diff.render() for diff in diff_snapshots(baseline, candidate)] == [
        "a[1]: baseline=2 candidate=3",
        "a[2].x: baseline=True candidate=1",
        "a.length: baseline=3 candidate=4",
        "b: baseline=1 candidate=1.0",
        "c: baseline='s' candidate='<missing>'",
        "d: baseline='<missing>' candidate=None",
        "e: baseline={} candidate=[]",
    ]
    assert [diff.path for diff in diff_snapshots([1, 2], [2, 3, 4])] == ["[0]", "[1]", ".length"]
    assert diff_snapshots(1, 2)[0].render() == "<root>: baseline=1 candidate=2"
    assert len(diff_snapshots(list(range(9)), list(range(1, 10)), 4)) == 4
    # Missing keys are not counted before each of them.
    assert len(diff_snapshots({"a": 1, "b": 2, "c": 3}, {}, 1)) == 3


WINDOW = {"window_id": "W", "apx_name": "A", "start_tick": 1, "end_tick": 12}
STREAM = {"name": "s", "source": "post_u"}


# --- bundles of digests ---


@pytest.mark.parametrize("done", [0, 1, 1023, 1024, 1025, 2500, 3000])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_session_that_was_stopped_has_a_bundle_of_digests_at_once(done: int, sealed: bool, tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    session = Session(line(3000, governance={"governance_mode": "OBSERVE"}), memory_limit=1 << 16)
    for _ in range(done):
        session.step()
    if done < 3000:
        session.cancel()
    if sealed:
        session.result().tick_result.seal()
    write_digest_bundle(session, file)
    with Bundle(file) as bundle:
        bundle.check()
        assert (bundle.has_records, bundle.has_digests, bundle.manifest["records"]) == (False, True, "digests")
        assert [json.loads(text)["tick"] for text in bundle.lines("digests.jsonl")][-1:] == [done][: done > 0]
    found = verify_ledger(file)
    last = session.result().tick_result.last_hash if sealed else None
    assert (found.ok, found.ticks, found.last_hash) == (True, done, last)


def test_beyond_a_number_of_ticks_a_bundle_has_digests_and_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gbe_aether.bundle.HASHED_TICKS", 1500)
    file, result = tmp_path / "b.zip", run_session(line(2000, governance={"governance_mode": "OBSERVE"}))
    write_bundle(result, file)
    with Bundle(file) as bundle:
        bundle.check()
        assert bundle.manifest["records"] == "digests"
        assert {"logs.jsonl", "metrics.json", "codex_motifs.jsonl", "introspection.json"} < set(bundle.members)
    assert verify_ledger(file) == LedgerVerification(True, 2000, result.tick_result.last_hash)
    content = zipfile.ZipFile(file).read("session.json")
    rewritten(file, "session.json", content.replace(b'"head_hash":"', b'"head_hash":"0'), manifest=True)
    assert verify_ledger(file).problem.startswith("u_ledger_checkpoint: recorded")
    write_bundle(result, file, records=False)
    with Bundle(file) as bundle:
        assert bundle.manifest["records"] == "hashes"


def test_a_session_that_failed_has_a_bundle_that_fails_in_the_same_way(tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    session = Session(
        line(12, windows=[WINDOW, {**WINDOW, "window_id": "V", "start_tick": 5, "streams": [STREAM, STREAM]}])
    )
    with pytest.raises(ValueError, match="Tick mismatch: expected 6 but received 5"):
        list(session)
    write_digest_bundle(session, file)
    assert verify_ledger(file) == LedgerVerification(True, 4, None)
    said = json.loads(zipfile.ZipFile(file).read("session.json"))
    assert (said["status"], said["completed_ticks"], said["error"]["type"]) == ("failed", 4, "ValueError")
    rewritten(
        file, "session.json", json.dumps({**said, "error": {**said["error"], "message": "no"}}).encode(), manifest=True
    )
    assert verify_ledger(file).problem.startswith("error: recorded {'message': 'no'")
    # What does not follow from the inputs is not looked for.
    full = {"type": "OSError", "message": "No space left on device"}
    rewritten(file, "session.json", json.dumps({**said, "error": full}).encode(), manifest=True)
    assert verify_ledger(file).ok


@pytest.mark.parametrize("sealed", [False, True])
def test_a_session_whose_disk_was_full_when_its_ticks_were_done_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def full_at_the_end(event: str, **_: object) -> None:
        if event == "tick_loop_end":
            full()

    file = tmp_path / "b.zip"
    session = Session(line(2000), memory_limit=1 << 20)
    list(session)
    if sealed:
        monkeypatch.setattr(session.logger, "log", full_at_the_end)
    else:
        monkeypatch.setattr("gbe_aether.spool.Spool.put", full)
    with pytest.raises(OSError, match="No space left"):
        session.result()
    monkeypatch.undo()
    session.close()
    write_digest_bundle(session, file)
    found = verify_ledger(file)
    assert (found.ok, found.ticks, found.last_hash is not None) == (True, 2000, sealed), found.problem


def test_a_bundle_of_digests_needs_nothing_of_the_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    session = Session(line(6000), memory_limit=0)
    for _ in range(5000):
        session.step()
    session.close()
    write_digest_bundle(session, file)
    assert verify_ledger(file).ticks == 5000
    with pytest.raises(OSError, match="temporary file of the session is closed"):
        session.result()


@pytest.mark.parametrize(
    ("member", "old", "new", "says"),
    [
        ("digests.jsonl", b'"sha256":"', b'"sha256":"0', "digests[0]: ticks 1 to 1024: recorded"),
        ("digests.jsonl", b'"tick":1024', b'"tick":1025', "digests[0]: ticks 1 to 1025: recorded"),
        ("digests.jsonl", b'"tick":1024', b'"tick":100000', "digests[0]: a digest up to tick 100000 cannot follow"),
        ("digests.jsonl", b'"tick":2000', b'"tick":2001', "digests[1]: a digest up to tick 2001 cannot follow"),
        ("inputs.json", b'"initial_state":[', b'"initial_state":[1', "digests[0]: ticks 1 to 1024: recorded"),
        ("session.json", b'"final_state":[', b'"final_state":[1', "final_state: recorded"),
        ("session.json", b'"chain":', b'"chain":1', "chain: recorded"),
        ("session.json", b'"manifest_check":', b'"manifest_check":1', "manifests: recorded"),
        ("session.json", b'"completed_ticks":2000', b'"completed_ticks":7', "completed_ticks: recorded 7"),
        ("session.json", b'"error":null', b'"error":{}', "error: recorded {}"),
        ("session.json", b'"policy_set_hash":"', b'"policy_set_hash":"0', "governance: recorded"),
    ],
)
def test_a_bundle_of_digests_that_was_tampered_with_is_found_out(
    tmp_path: Path, member: str, old: bytes, new: bytes, says: str
) -> None:
    file = tmp_path / "b.zip"
    session = Session(line(2000))
    list(session)
    session.advance(0)
    write_digest_bundle(session, file)
    found_out(file, member, old, new, says)
