"""The commands about documents, the help, and plug-ins."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.gbe_cli import EXAMPLES, GBE, Cli, wait_for
from tests.workspace import ROOT

BROKEN = ROOT / "packages" / "gbe-jobs-domain" / "tests" / "broken"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_validate_checks_all_files(cli: Cli) -> None:
    done = cli.run("validate", EXAMPLES / "diamond.yaml", EXAMPLES / "broken.yaml", EXAMPLES / "demo.yaml")
    assert done.returncode == 2
    assert (
        done.stdout
        == f"{EXAMPLES}/diamond.yaml: ok, diamond, 4 tasks\n{EXAMPLES}/demo.yaml: ok, weather demo, 7 tasks\n"
    )
    assert all("broken.yaml" in line for line in done.stderr.splitlines())


def test_validate_refuses_every_broken_document_with_the_very_words(cli: Cli) -> None:
    documents = sorted(file.name for file in BROKEN.iterdir() if file.suffix in (".yaml", ".json"))
    assert len(documents) >= 95
    done = cli.run("validate", *documents, cwd=BROKEN)
    assert done.stdout == ""
    assert done.stderr == "".join((BROKEN / f"{name}.txt").read_text(encoding="utf-8") for name in documents)
    assert done.returncode == 2


@pytest.mark.parametrize("name", ["everything-at-once.yaml", "json-syntax.json", "schema-file-invalid.yaml"])
@pytest.mark.parametrize("command", [("validate",), ("run", "--transport", "memory"), ("submit",)])
def test_a_broken_document_is_refused_before_anything_is_done(cli: Cli, command: tuple[str, ...], name: str) -> None:
    done = cli.run(*command, name, cwd=BROKEN)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (BROKEN / f"{name}.txt").read_text(encoding="utf-8")


def test_a_document_may_come_from_standard_input(cli: Cli, tmp_path: Path) -> None:
    text = "name: piped\ntasks: [{name: a, task_type: script, params: {script_path: say.sh, interpreter: sh}}]\n"
    (tmp_path / "say.sh").write_text("echo hello from here")
    assert cli.run("validate", "-", said=text).stdout == "-: ok, piped, 1 task\n"
    assert "a [script]" in cli.run("graph", "-", said=text).stdout
    done = cli.run("run", "-", "--transport", "memory", cwd=tmp_path, said=text)
    assert "| hello from here" in done.stdout, done.stderr
    done = cli.run("run", "-", "--transport", "memory", said="name: a\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "<stdin>:1:1: missing key 'tasks'; a job needs a list of them\n"
    with (tmp_path / "written").open("w") as unreadable:
        done = subprocess.run(
            [*GBE, "validate", "-"], env=cli.environment, stdin=unreadable, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "<stdin>: can't be read: Bad file descriptor\n")


@pytest.mark.parametrize("command", [("validate",), ("run", "--transport", "memory"), ("graph",)])
def test_an_output_that_takes_nothing(cli: Cli, command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*GBE, *command, EXAMPLES / "diamond.yaml"],
            env=cli.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "gbe: the output can't be written: No space left on device"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_harm_nothing(cli: Cli, closed: str) -> None:
    command = f"exec {GBE[0]} run --transport memory {EXAMPLES / 'diamond.yaml'} {closed}"
    done = subprocess.run(["sh", "-c", command], env=cli.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_who_waits_for_a_document_can_be_interrupted(cli: Cli) -> None:
    with subprocess.Popen(
        [*GBE, "validate", "-"], env=cli.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        where = Path(f"/proc/{process.pid}/wchan")
        wait_for(lambda: "pipe" in where.read_text(), "it reads")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_molecule_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("molecule", "put", "nowhere.yaml")
    assert (done.returncode, done.stderr) == (2, "nowhere.yaml: can't be read: No such file or directory\n")
    done = cli.run("molecule", "put", tmp_path)
    assert (done.returncode, done.stderr) == (2, f"{tmp_path}: can't be read: it is no file\n")


def test_graph_draws_a_tree_or_mermaid(cli: Cli) -> None:
    assert "└─ " in cli.run("graph", EXAMPLES / "diamond.yaml").stdout
    assert "flowchart TD" in cli.run("graph", EXAMPLES / "diamond.yaml", "--format", "mermaid").stdout


def test_schema_is_json(cli: Cli) -> None:
    assert json.loads(cli.run("schema").stdout)["title"] == "GBE job document"


def test_help_lists_all_commands(cli: Cli) -> None:
    done = cli.run("--help")
    for command in ("run", "up", "submit", "jobs", "show", "watch", "logs", "cancel", "validate", "graph", "schema"):
        assert f"\n  {command} " in done.stdout


def test_a_broken_plug_in_is_named_and_harms_no_other(cli: Cli, tmp_path: Path) -> None:
    dist = tmp_path / "lib" / "acme_tools-1.0.dist-info"
    dist.mkdir(parents=True)
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tools\nVersion: 1.0\n")
    (dist / "entry_points.txt").write_text("[gbe.commands]\nacme = acme_tools:command\n")
    done = cli.run("--help", PYTHONPATH=str(dist.parent))
    assert done.returncode == 0
    assert "broken plug-in of acme-tools" in done.stdout
    broken = cli.run("acme", PYTHONPATH=str(dist.parent))
    assert broken.returncode == 2
    assert "acme-tools" in broken.stderr
    assert "No module named 'acme_tools'" in broken.stderr
    assert cli.run("schema", PYTHONPATH=str(dist.parent)).returncode == 0


def test_a_reader_that_has_enough_is_no_error(cli: Cli) -> None:
    import subprocess

    from tests.integration.gbe_cli import GBE

    done = subprocess.run(
        ["sh", "-c", f"{GBE[0]} schema | head -c 10 && echo"],
        env=cli.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
