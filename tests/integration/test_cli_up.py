"""`gbe up`, and the commands against it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.integration.gbe_cli import EXAMPLES, Cli, child, finish, processes, wait_for, wait_for_text

pytestmark = pytest.mark.server

STEPS = """
name: steps
tasks:
  - {name: a, task_type: shell, params: {command: "while [ ! -e FLAG ]; do sleep 0.05; done; echo a"}}
  - {name: b, task_type: shell, depends_on: [a], params: {command: "echo b"}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path, {"GBE_ACK_WAIT": "2", "GBE_STOP_GRACE": "0.2"})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "up.log"


@pytest.fixture
def up(cli: Cli, log: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An ecumene on this host, for one test."""
    process = start_up(cli, log, tmp_path)
    yield process
    finish(process)
    wait_for(lambda: not list(processes({"HOME": str(cli.home)})), "everything is gone")


def start_up(cli: Cli, log: Path, tmp_path: Path) -> subprocess.Popen[bytes]:
    process = cli.start("up", "--data", tmp_path / "data", output=log)
    wait_for_text(log, "the ecumene is up")
    return process


def another(up: subprocess.Popen[bytes], word: str, before: int) -> bool:
    """Whether a child with this word in its command line has taken the place of that one."""
    return child(up, word) not in (None, before)


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """A job whose first task waits for the file `flag`."""
    file = tmp_path / "steps.yaml"
    file.write_text(STEPS.replace("FLAG", str(tmp_path / "flag")))
    return file


def test_submit_show_list_log_and_cancel(cli: Cli, up: subprocess.Popen[bytes], tmp_path: Path) -> None:
    waited = cli.run("submit", EXAMPLES / "diamond.yaml", "--wait", "--json", "--job-id", "job_one")
    assert waited.returncode == 0, waited.stderr
    assert json.loads(waited.stdout)["state"] == "completed"
    again = cli.run("submit", EXAMPLES / "diamond.yaml", "--job-id", "job_one")
    assert (again.returncode, again.stdout) == (0, "job_one\n")
    assert "the same job" in again.stderr
    other = cli.run("submit", EXAMPLES / "failing.yaml", "--job-id", "job_one")
    assert other.returncode == 2
    assert "another definition" in other.stderr
    commands = [
        ("show", "job_one", "--json"),
        ("jobs",),
        ("jobs", "--json"),
        ("logs", "job_one"),
        ("logs", "job_one", "d"),
        ("cancel", "job_one"),
        ("cancel", "job_two"),
    ]
    with ThreadPoolExecutor(4) as pool:
        show, jobs, jobs_json, logs, one_log, over, unknown = pool.map(lambda words: cli.run(*words), commands)
    assert json.loads(show.stdout)["job_id"] == "job_one"
    assert "job_one" in jobs.stdout
    assert [job["state"] for job in json.loads(jobs_json.stdout)["jobs"]] == ["completed"]
    assert logs.stdout == "a | start\nb | left\nc | right\nd | done\n"
    assert one_log.stdout == "done\n"
    assert (over.returncode, "completed already" in over.stderr) == (1, True)
    assert (unknown.returncode, "no job job_two" in unknown.stderr) == (2, True)
    connection = tmp_path / ".local/state/gbe/connection.json"
    assert stat.S_IMODE(connection.stat().st_mode) == 0o600


def test_cancel_of_a_running_job(cli: Cli, up: subprocess.Popen[bytes], steps: Path, tmp_path: Path) -> None:
    cli.run("submit", steps, "--job-id", "job_one")
    output = tmp_path / "watched"
    watching = cli.start("watch", "job_one", output=output)
    wait_for_text(output, "a: running")
    assert cli.run("cancel", "job_one", "--reason", "enough").stdout == "job_one: cancelled\n"
    assert watching.wait(30) == 1
    assert "cancelled after" in output.read_text()
    assert "enough" in output.read_text()


def test_survives_kill_9_of_each_of_its_processes(
    cli: Cli, up: subprocess.Popen[bytes], log: Path, steps: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    waiting = cli.start("submit", steps, "--wait", output=output)
    wait_for_text(output, "a: running")
    for word in ("gbe_oracle", "gbe_operative", "nats-server"):
        before = child(up, word)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_for(partial(another, up, word, before), f"another {word}")
    (tmp_path / "flag").touch()
    assert waiting.wait(60) == 0, output.read_text() + log.read_text()
    assert "    | b" in output.read_text()


def test_unfinished_jobs_go_on_after_a_restart(cli: Cli, log: Path, steps: Path, tmp_path: Path) -> None:
    first = start_up(cli, log, tmp_path)
    cli.run("submit", steps, "--job-id", "job_one")
    assert finish(first) == 0
    (tmp_path / "flag").touch()
    second = start_up(cli, log, tmp_path)
    done = cli.run("watch", "job_one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert finish(second) == 0
    gone = cli.run("jobs")
    assert (gone.returncode, len(gone.stderr.splitlines())) == (2, 1)


def test_a_second_one_on_the_same_data_is_refused(cli: Cli, up: subprocess.Popen[bytes], tmp_path: Path) -> None:
    done = cli.run("up", "--data", tmp_path / "data")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "in use by another server" in done.stderr


def test_watch_says_that_nobody_handles_a_type(cli: Cli, up: subprocess.Popen[bytes], tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: x\ntasks:\n  - {name: a, task_type: x-rays}\n")
    cli.run("submit", file, "--job-id", "job_one")
    output = tmp_path / "watched"
    watching = cli.start("watch", "job_one", output=output)
    wait_for_text(output, "waiting: no Operative handles 'x-rays'")
    assert finish(watching, signal.SIGINT) == 130


def test_a_taken_port_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli.run("up", "--data", tmp_path / "data", "--port", str(port))
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [f"gbe up: port {port} on 127.0.0.1 is taken by another process"],
    )


def test_no_server_is_one_clear_line(cli: Cli) -> None:
    for command in (["jobs"], ["--nats", "nats://127.0.0.1:1", "jobs"], ["run", str(EXAMPLES / "diamond.yaml")]):
        url = "nats://127.0.0.1:1" if command[0] == "run" else ""
        done = cli.run(*command, GBE_CONNECT_TIMEOUT="0.5", GBE_NATS_URL=url)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr


def test_wrong_credentials_are_one_clear_line(cli: Cli, up: subprocess.Popen[bytes], tmp_path: Path) -> None:
    url = json.loads((tmp_path / "data" / "connection.json").read_text())["url"]
    done = cli.run("jobs", GBE_NATS_URL=url, GBE_NATS_USER="gbe", GBE_NATS_PASSWORD="wrong")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "wrong" not in done.stderr


def test_a_server_without_jetstream_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    from gbe_nexus_nats.binary import find_server
    from gbe_nexus_nats.server import free_port

    port = free_port()
    log = tmp_path / "plain.log"
    with log.open("wb") as output:
        server = subprocess.Popen([find_server(), "-a", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output)
    try:
        wait_for_text(log, "Server is ready")
        done = cli.run("jobs", GBE_NATS_URL=f"nats://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(10)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "JetStream" in done.stderr
