"""`gbe run`: one job to its end, with everything it needs brought along."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from tests.integration.gbe_cli import EXAMPLES, GBE, Cli, child, finish, processes, wait_for, wait_for_text

pytestmark = pytest.mark.server

SLEEPER = """
name: sleeper
tasks:
  - {name: sleep, task_type: shell, params: {command: "echo begun; sleep 600 & wait"}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def sleeper(tmp_path: Path) -> Path:
    file = tmp_path / "sleeper.yaml"
    file.write_text(SLEEPER)
    return file


def left_behind(cli: Cli) -> list[str]:
    """What a command of this home should have taken away with it."""
    running = [str(pid) for pid in processes({"HOME": str(cli.home)})]
    return running + [path.name for path in cli.home.glob("gbe-*")]


@pytest.mark.parametrize("transport", ["nats", "memory"])
def test_prints_the_object_of_section_6(cli: Cli, transport: str) -> None:
    done = cli.run("run", EXAMPLES / "diamond.yaml", "--json", "--transport", transport)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result) == ["job_id", "name", "job_type", "state", "elapsed_s", "tasks"]
    assert (result["name"], result["job_type"], result["state"]) == ("diamond", "diamond", "completed")
    assert [(task["name"], task["state"], task["attempts"], task["output"]) for task in result["tasks"]] == [
        ("a", "completed", 1, ["start"]),
        ("b", "completed", 1, ["left"]),
        ("c", "completed", 1, ["right"]),
        ("d", "completed", 1, ["done"]),
    ]
    first = result["tasks"][0]
    assert set(first) == {"name", "task_type", "state", "attempts", "output", "data", "started_at", "ended_at"}
    assert left_behind(cli) == []


def test_shows_progress_on_stderr_and_results_on_stdout(cli: Cli) -> None:
    done = cli.run("run", EXAMPLES / "demo.yaml", "--var", "unit=Celsius")
    assert done.returncode == 0, done.stderr
    assert "warmest on average: Basel with 7 Celsius" in done.stdout
    assert "chur: completed" in done.stdout
    assert "attempt 2" in done.stdout
    assert "chur: attempt 1 failed, next in" in done.stderr


def test_a_failing_job_is_exit_1(cli: Cli) -> None:
    done = cli.run("run", EXAMPLES / "failing.yaml", "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    fails = next(task for task in result["tasks"] if task["name"] == "fails")
    assert (result["state"], fails["state"], fails["exit_code"]) == ("failed", "failed", 3)
    assert result["error"] == fails["error"]


def test_a_broken_file_is_exit_2_with_every_error_and_its_place(cli: Cli) -> None:
    done = cli.run("run", EXAMPLES / "broken.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) >= 10
    assert all(line.startswith(f"{EXAMPLES / 'broken.yaml'}:") for line in lines)
    assert "did you mean 'depends_on'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: can't be read"),
        (["run", str(EXAMPLES / "demo.yaml"), "--var", "x"], "--var x: expected NAME=VALUE"),
        (["run", str(EXAMPLES / "demo.yaml"), "--var", "x=1"], "x"),
        (["run", str(EXAMPLES / "demo.yaml"), "--operatives", "shell=unheard-of"], "unheard-of"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_2(cli: Cli, arguments: list[str], said: str) -> None:
    done = cli.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "a terminal that goes away"])
def test_a_signal_cancels_the_job_and_leaves_nothing_behind(
    cli: Cli, sleeper: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    output = tmp_path / "output"
    process = cli.start("run", sleeper, output=output)
    wait_for_text(output, "sleep: running")
    assert finish(process, sign) == 130
    assert "cancelled after" in output.read_text()
    wait_for(lambda: left_behind(cli) == [], "everything is gone")


def test_nohup_is_heeded(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: x\ntasks:\n  - {name: a, task_type: shell, params: {command: 'kill -HUP $PPID; echo on'}}\n")
    done = subprocess.run(
        ["nohup", *GBE, "run", file, "--transport", "memory"],
        env=cli.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "| on" in done.stdout) == (0, True), done.stderr


def test_ctrl_c_while_it_starts(cli: Cli, sleeper: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = cli.start("run", sleeper, output=output)
    wait_for(lambda: child(process, "gbe_oracle") is not None, "the Oracle's process")
    assert finish(process, signal.SIGINT) == 130
    wait_for(lambda: left_behind(cli) == [], "everything is gone")


def test_a_killed_run_leaves_nothing_running(cli: Cli, sleeper: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = cli.start("run", sleeper, output=output)
    wait_for_text(output, "sleep: running")
    finish(process, signal.SIGKILL)
    # The Operative tries for a moment to hand its task back to a server that is gone.
    wait_for(lambda: not list(processes({"HOME": str(cli.home)})), "everything is gone", 10)
    # Its directory is left for the next one, once it has settled.
    (left,) = cli.home.glob("gbe-run-*")
    os.utime(left, (1, 1))
    assert cli.run("run", EXAMPLES / "diamond.yaml", "--quiet").returncode == 0
    assert left_behind(cli) == []


@pytest.mark.parametrize("victim", ["gbe_oracle", "gbe_operative", "nats-server"])
def test_kill_9_of_any_process_in_the_middle(cli: Cli, tmp_path: Path, victim: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "name: three\ntasks:\n"
        "  - {name: a, task_type: shell, params: {command: 'sleep 0.5'}}\n"
        "  - {name: b, task_type: shell, depends_on: [a], params: {command: 'sleep 0.1'}}\n"
        "  - {name: c, task_type: shell, depends_on: [b], params: {command: 'echo ended'}}\n"
    )
    output = tmp_path / "output"
    process = cli.start("run", file, output=output, GBE_ACK_WAIT="1")
    wait_for_text(output, "a: running")
    pid = child(process, victim)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert process.wait(60) == 0, output.read_text()
    assert "    | ended" in output.read_text()


def test_says_that_nobody_handles_a_type(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: x\ntasks:\n  - {name: a, task_type: x-rays}\n")
    output = tmp_path / "output"
    process = cli.start("run", file, output=output)
    wait_for_text(output, "waiting: no Operative handles 'x-rays'")
    assert finish(process, signal.SIGINT) == 130


def test_a_type_is_served_by_the_plug_in_one_names(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: x\ntasks:\n  - {name: a, task_type: data-fetch, params: {command: 'echo fetched'}}\n")
    done = cli.run("run", file, "--operatives", "data-fetch=shell:2")
    assert done.returncode == 0, done.stderr
    assert "| fetched" in done.stdout


def on_a_terminal(cli: Cli, *arguments: str | Path) -> tuple[str, int]:
    """Everything a terminal of 24 × 100 gets to see, and the exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {**cli.environment, "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [*GBE, *map(str, arguments)],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return seen.decode(), process.wait(30)


def test_a_live_tree_on_a_terminal(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "name: tree\ntasks:\n"
        "  - {name: a, task_type: shell, params: {command: 'sleep 0.4; echo first'}}\n"
        "  - {name: b, task_type: shell, depends_on: [a], max_retries: 1, retry: {delay: 0.01},\n"
        "     params: {command: 'test $GBE_ATTEMPT -gt 1 && echo last'}}\n"
    )
    seen, code = on_a_terminal(cli, "run", file)
    assert code == 0
    assert "└─ " in seen
    assert "✓ " in seen
    assert any(frame in seen for frame in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
    assert "attempt 2" in seen
    assert seen.rstrip().endswith("last")
    results = seen.rpartition("\x1b[?25h")[2]  # the cursor is given back
    assert "first" in results
    assert "completed" not in results  # that stands in the tree, which stays


def test_control_sequences_are_escaped_on_a_terminal(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "name: evil\ntasks:\n  - name: a\n    task_type: shell\n"
        "    params: {command: \"printf '\\\\033]0;owned\\\\007\\\\033[2J\\\\n'; sleep 0.6; exit 1\"}\n"
    )
    seen, code = on_a_terminal(cli, "run", file)
    assert code == 1
    assert "\\x1b]0;owned\\x07\\x1b[2J" in seen
    assert "\x1b]0;" not in seen
