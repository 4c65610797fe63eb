"""The examples of Python tasks, run as their first lines say."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gbe_cli import EXAMPLES, Cli, finish, processes, wait_for, wait_for_text

pytestmark = pytest.mark.server


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(EXAMPLES)
    return Cli(tmp_path, {"PYTHONDONTWRITEBYTECODE": "1"})


def tasks(printed: str) -> dict[str, Any]:
    return {task["name"]: task for task in json.loads(printed)["tasks"]}


@pytest.mark.parametrize("transport", ["nats", "memory"])
def test_image_batch(cli: Cli, transport: str) -> None:
    done = cli.run("run", "--app", "image_tasks", "image-batch.yaml", "--json", "--transport", transport)
    assert done.returncode == 0, done.stderr
    found = tasks(done.stdout)
    assert found["check"]["output"] == ["sheet of 60x105 pixels"]
    assert found["small-red"]["output"] == ["240x120 -> 60x30"]
    assert found["summary"]["data"]["average"] == {"red": 41, "green": 32, "blue": 67}
    assert found["sheet"]["data"]["media_type"] == "image/png"


def test_a_picture_that_is_too_large_is_told_before_it_is_drawn(cli: Cli) -> None:
    done = cli.run("run", "--app", "image_tasks", "image-batch.yaml", "--json", "--var", "width=5000")
    assert done.returncode == 1
    assert "param 'width': found '5000', expected int <= 2000" in json.loads(done.stdout)["error"]


def test_python_modules(cli: Cli) -> None:
    done = cli.run("run", "--operatives", "count-words=python", "python-modules.yaml", "--json")
    assert done.returncode == 0, done.stderr
    found = tasks(done.stdout)
    assert found["count"]["data"]["total"] == 22
    assert found["top"]["data"] == ["the", "holds", "queue"]
    assert found["say"]["output"] == ["most frequent: the"]


def test_an_app_is_for_a_bus_of_ones_own(cli: Cli) -> None:
    done = cli.run("run", "--app", "image_tasks", "image-batch.yaml", "--nats", "nats://127.0.0.1:1")
    assert (done.returncode, "--app is for a bus of one's own" in done.stderr) == (2, True)


def test_an_app_that_is_not_there(cli: Cli) -> None:
    done = cli.run("run", "--app", "image_tasks", "--app", "more", "image-batch.yaml")
    assert (done.returncode, "given twice" in done.stderr) == (2, True)
    done = cli.run("run", "--app", "image_taks", "image-batch.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there is no module 'image_taks', neither in" in done.stderr


def test_up_serves_an_app_to_those_who_submit(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    served = "draw-image,resize-image:1,contact-sheet,summarise-image,shell"
    up = cli.start("up", "--data", str(tmp_path / "data"), "--app", "image_tasks", "--handles", served, output=log)
    try:
        wait_for_text(log, "is up")
        done = cli.run("submit", "image-batch.yaml", "--wait", "--json")
        assert done.returncode == 0, done.stderr + log.read_text()
        assert tasks(done.stdout)["check"]["output"] == ["sheet of 60x105 pixels"]
    finally:
        assert finish(up) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """P13. Killed, `gbe run` cleans up nothing itself: its processes notice that it is gone."""
    (tmp_path / "sleepy.py").write_text(
        "import time\nfrom gbe_operative_python import task\n@task\ndef sleep(seconds: float) -> None:\n"
        "    print('asleep', flush=True)\n    time.sleep(seconds)\n"
    )
    (tmp_path / "job.yaml").write_text("name: n\ntasks: [{name: s, task_type: sleep, params: {seconds: 600}}]\n")
    monkeypatch.chdir(tmp_path)
    cli = Cli(tmp_path)
    log = tmp_path / "run.log"
    run = cli.start("run", "--app", "sleepy", "job.yaml", output=log)
    wait_for_text(log, "asleep")
    assert len(list(processes({"HOME": str(tmp_path)}))) >= 4
    code = finish(run, number)
    assert code == (130 if number == signal.SIGINT else -number)
    wait_for(lambda: not list(processes({"HOME": str(tmp_path)})), "nothing of it runs")
    assert not list(tmp_path.glob("gbe-operative-*"))
