"""The command: what it prints, and its exit codes."""

import json
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gbe_aether import Bundle, full_snapshot, run_session, write_bundle
from gbe_aether.command import main
from gbe_aether.testing import LINE, line, profile, run_config

GOLDENS = Path(__file__).parent / "goldens"
CASE = GOLDENS / "cases" / "h05_ring3_w4.json"

Output = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    documents = {"run_config": run_config([90, 0, 3]), "topology": LINE, "profile": profile()}
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return tmp_path / "run_config.json"


def test_run_prints_a_readable_summary(capsys: Output) -> None:
    assert main(["run", "gf01"]) == 0
    out = capsys.readouterr().out
    assert "run        GF01_config on GF01: completed after 8 ticks\n" in out
    assert "state      3, 1, 0, 0, 0, 0 (sum 4)\n" in out
    assert "check 786709051; S1_post_u_deltas R 64/336, S2_fluxes R 80/448\n" in out
    assert out.endswith("last e8b640082d2bbafd30e6cbcd83bfa2c6254dab807b1ca6a8723a7ddf8ab7ab88\n")


def test_run_takes_a_file_and_prints_json(config: Path, capsys: Output) -> None:
    assert main(["run", str(config), "--json", "--ticks", "3"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["ticks"], summary["status"], summary["final_sum"]) == (3, "completed", 93)
    assert summary["metrics"]["uledger_last_hash"] == summary["uledger_last_hash"]


def test_run_takes_a_registry(config: Path, tmp_path: Path, capsys: Output) -> None:
    entry = {"scenario_id": "mine", "description": "", "run_config_path": config.name}
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps({"v": 1, "scenarios": [entry]}))
    assert main(["run", "mine", "--registry", str(registry)]) == 0
    assert "R on G" in capsys.readouterr().out


def test_inspect_shows_the_view_and_its_records(capsys: Output) -> None:
    assert main(["inspect", "gf01"]) == 0
    assert json.loads(capsys.readouterr().out)["envelopes"] == 21
    assert main(["inspect", "gf01", "--tick", "8", "--window", "GF01_W1_ticks_1_2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ledger"]["tick"] == shown["i_block"]["tick"] == shown["uledger_entry"]["tick"] == 8
    assert shown["manifest"]["manifest_check"] == 108592583
    assert main(["inspect", "gf01", "--tick", "9"]) == 2
    assert capsys.readouterr().err == "gbe-aether: No UMX tick ledger found for tick 9\n"
    assert main(["inspect", "gf01", "--window", "x"]) == 2
    assert capsys.readouterr().err == "gbe-aether: No APX manifest found for window_id 'x'\n"


def test_ledger_prints_and_verifies(capsys: Output) -> None:
    assert main(["ledger", "line-4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("entry f995c463c2ceec8518949579d1e587bef17fe30bc0cebf4495fef763a2c55165")
    assert lines[-1] == "verified: 6 entries"


def test_snapshots_are_written_and_compared(tmp_path: Path, capsys: Output) -> None:
    one, two = tmp_path / "new" / "one.json", tmp_path / "two.json"
    assert main(["snapshot", "write", "gf01", "-o", str(one)]) == 0
    assert not one.read_text().endswith("\n")
    assert main(["snapshot", "write", "gf01", "-o", str(two), "--ticks", "3"]) == 0
    capsys.readouterr()
    assert main(["snapshot", "compare", "gf01", "--baseline", str(one)]) == 0
    assert capsys.readouterr().out == "Snapshots match\n"
    assert main(["snapshot", "compare", "--baseline", str(one), "--candidate", str(two), "--max-diffs", "1"]) == 1
    assert capsys.readouterr().out == "config.total_ticks: baseline=8 candidate=3\n"
    assert main(["snapshot", "compare", "--baseline", str(one)]) == 2
    assert "say what to compare with" in capsys.readouterr().err
    assert main(["snapshot", "compare", "gf01", "--baseline", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_verify_prints_a_line_for_each_case_and_names_what_differs(tmp_path: Path, capsys: Output) -> None:
    assert main(["verify", str(CASE), str(GOLDENS / "errors.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok    h05_ring3_w4.json: h05_ring3_w4"
    assert len(lines) == 54
    document = json.loads(CASE.read_text())
    document["expect"]["loom"]["C_t"][2] = 7
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    assert main(["verify", str(changed), str(CASE)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  changed.json: h05_ring3_w4: expect.loom.C_t[2]: baseline=7 candidate=65491504\n" in out
    assert "ok    h05" in out


def test_verify_takes_bundles_and_full_snapshots(tmp_path: Path, capsys: Output) -> None:
    bundle, snapshot = tmp_path / "b.zip", tmp_path / "full.json"
    assert main(["run", "ring-5", "--export", str(bundle)]) == 0
    assert main(["snapshot", "write", "ring-5", "--full", "-o", str(snapshot)]) == 0
    capsys.readouterr()
    assert main(["verify", str(bundle), str(snapshot)]) == 0
    assert capsys.readouterr().out.count("5 entries, last f162c757cda8") == 2
    changed = json.loads(snapshot.read_text())
    changed["ledgers"][2]["pre_u"][0] += 1
    snapshot.write_text(json.dumps(changed))
    assert main(["verify", str(snapshot)]) == 1
    assert "u_ledger_entries[2].umx_ledger_hash: recorded" in capsys.readouterr().out


def test_bad_files_do_not_keep_verify_from_the_others(tmp_path: Path, capsys: Output) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert main(["verify", str(bad), str(tmp_path / "none.json"), str(CASE)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["BAD", "BAD", "ok"]
    bad.write_text('{"format": "other"}')
    assert main(["verify", str(bad)]) == 2
    assert "its format must be" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "none"], "Scenario not found: none (there are gf01, line-4, ring-5, gov-codex-demo), nor is there"),
        (["run", "none.json"], "No such file or directory: none.json"),
        (["run", "gf01", "--registry", "none.json"], "No such file or directory: none.json"),
        (["run", "gf01", "--ticks", "0"], "ticks must be >= 1"),
        (["ledger", "a.yaml"], "Scenario not found: a.yaml"),
        (["run", "./a.yaml"], "Run config must be a JSON file: a.yaml: YAML is not supported"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], said: str, capsys: Output) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"gbe-aether: {said}")
    assert captured.err.count("\n") == 1


def test_a_run_that_fails_is_one_line_and_exit_code_1(config: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "profile.json").write_text(json.dumps(profile(s_t_rule={"mode": "weird"})))
    assert main(["run", str(config)]) == 1
    assert capsys.readouterr().err == "gbe-aether: Unsupported s_t rule mode: weird\n"


def test_the_command_ends_quietly_when_nobody_reads_on(config: Path) -> None:
    command = f"{sys.executable} -m gbe_aether.command ledger {config} --ticks 20000 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("       1  C ")


def test_an_export_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, "-m", "gbe_aether.command", "run", "ring-5", "--ticks", "2000", "--export", "b.zip"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, preexec_fn=no_large_files
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gbe-aether: File too large: b.zip\n"
    assert list(tmp_path.iterdir()) == []


def test_verify_takes_regular_files_only_and_says_one_line_for_each(tmp_path: Path) -> None:
    names = ["fifo", "zero", "folder", "none.json", "empty.json", "two\nlines.json"]
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "none.json").write_text('{"format": "aether-golden/1", "cases": []}')
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "two\nlines.json").write_text("[]")
    command = [sys.executable, "-m", "gbe_aether.command", "verify", *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.splitlines() == [
        "BAD   fifo: Golden file must be a regular file: fifo",
        "BAD   zero: Golden file must be a regular file: zero",
        "BAD   folder: Golden file must be a regular file: folder",
        "BAD   none.json: not a golden file: it has no cases",
        "BAD   empty.json: Expecting value: line 1 column 1 (char 0) (in empty.json)",
        "BAD   two\\nlines.json: not a golden file: its format must be 'aether-golden/1'",
    ]


def test_a_json_error_says_in_which_of_the_files_it_is(config: Path, capsys: Output) -> None:
    (config.parent / "topology.json").write_text('{"gid":')
    assert main(["run", str(config)]) == 2
    assert capsys.readouterr().err.endswith(f"(char 7) (in {config.parent / 'topology.json'})\n")


def test_what_cannot_be_written_is_named_as_it_was_given(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "taken").mkdir()
    assert main(["run", "gf01", "--export", str(tmp_path / "taken")]) == 1
    assert capsys.readouterr().err == f"gbe-aether: Is a directory: {tmp_path / 'taken'}\n"
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"config": None}, "the full snapshot lacks config"),
        ({"governance": []}, "the full snapshot lacks governance"),
        ({"config": {"gid": "G", "run_id": "R"}}, "config.primary_window_id: missing"),
        ({"governance": {}}, "governance.policy_set_hash: missing"),
        ({"u_ledger_entries": [1, 2, 3, 4, 5, 6]}, "u_ledger_entries[0]: not an object"),
    ],
)
def test_a_full_snapshot_of_another_form_is_named(
    changed: dict[str, object], says: str, tmp_path: Path, capsys: Output
) -> None:
    file = tmp_path / "full.json"
    file.write_text(json.dumps({**full_snapshot(run_session(line())), **changed}))
    assert main(["verify", str(file)]) in (1, 2)
    assert says in capsys.readouterr().out


def test_a_member_that_is_larger_than_it_should_be_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    write_bundle(run_session(line()), file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content + b" " * (64 << 20) if name == "metrics.json" else content)
    with Bundle(file) as bundle:
        bundle.blocks = None  # type: ignore[method-assign,assignment]
        with pytest.raises(ValueError, match=r"metrics.json is not what the manifest says"):
            bundle.check()
