"""Every job in `docs/examples` runs as a reader would run it, `gbe run FILE`, with its web service on this host."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.integration.gbe_cli import EXAMPLES, Cli

pytestmark = pytest.mark.server

Results = dict[str, dict[str, Any]]
"""The tasks of a result, by name."""


class Service(BaseHTTPRequestHandler):
    """The web service that the examples ask."""

    ANSWERS: ClassVar[dict[str, Any]] = {
        "/orders": {"orders": [{"id": "o-17", "total": 40}, {"id": "o-18", "total": 2}]},
        "/acme/usage": {"data": [{"host": "a", "hours": 3}, {"host": "b", "hours": 39}]},
    }

    def do_GET(self) -> None:
        answer = self.ANSWERS.get(self.path.split("?")[0])
        self._reply(404 if answer is None else 200, answer or {"error": f"no {self.path}"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._reply(201, {"stored": True})

    def _reply(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def jq(folder: Path) -> Path:
    """A directory with as much of jq as the examples need, the same on every host."""
    place = folder / "bin"
    place.mkdir()
    program = place / "jq"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nassert sys.argv[1:] == ['.data[]'], sys.argv\n"
        "for item in json.load(sys.stdin)['data']:\n    print(json.dumps(item))\n"
    )
    program.chmod(0o755)
    return place


@dataclass(frozen=True)
class Example:
    """How it is run and what it has to come to. `asks`: it takes the variable `base`, where the service is."""

    check: Callable[[Results], object]
    code: int = 0
    asks: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def output(name: str, *lines: str) -> Callable[[Results], object]:
    """The task said exactly that."""
    return lambda tasks: tasks[name]["output"] == list(lines)


EXAMPLES_RUN: dict[str, Example] = {
    "aether-sweep.yaml": Example(
        output("table", "even       [20,20,20,20,20]", "steep      [30,22,13,13,22]", "negative   [-3,-9,0,9,3]")
    ),
    "build.yaml": Example(lambda tasks: tasks["compile"]["data"]["file"] == "app-0.0.0-linux.bin"),
    "ci.yaml": Example(
        lambda tasks: tasks["publish"]["state"] == "completed" and tasks["adds"]["state"] == "completed"
    ),
    "config-template.yaml": Example(lambda tasks: tasks["announce"]["data"]["url"] == "https://example.org:80/acme"),
    "demo.yaml": Example(output("report", "warmest on average: Basel with 7 C")),
    "diamond.yaml": Example(lambda tasks: tasks["d"]["state"] == "completed"),
    "etl.yaml": Example(output("load", "loaded 380")),
    "failing.yaml": Example(lambda tasks: tasks["fails"]["error"] == "there is no disk left", code=1),
    "http-etl.yaml": Example(
        output("load", "# Open orders", "", "2 orders, 42 in all", "- o-17: 40", "- o-18: 2"), asks=True
    ),
    "http-json.yaml": Example(output("count", "first: o-17", "open: 2"), asks=True),
    "image-batch.yaml": Example(output("check", "sheet of 60x105 pixels")),
    "nested-molecules.yaml": Example(output("report", 'Basel north: 7 C; stations: ["north","south"]')),
    "python-modules.yaml": Example(output("say", "most frequent: the")),
    "release.yaml": Example(lambda tasks: tasks["manifest"]["output"][1].endswith("app-1.4.0-macos.bin")),
    "script.yaml": Example(output("draw", "saw  ### 3", "bird ## 2", "cat  ## 2")),
    "web-extract.yaml": Example(
        output("extract", '{"host": "a", "hours": 3}', '{"host": "b", "hours": 39}'), asks=True
    ),
}

NOT_A_JOB = {"broken.yaml"}
"""What `gbe validate` is to be tried with."""


def test_every_example_is_run_here_and_in_the_list() -> None:
    files = {file.name for file in EXAMPLES.glob("*.yaml")}
    assert files == EXAMPLES_RUN.keys() | NOT_A_JOB
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in sorted(files) if f"({name})" not in listed] == []


@pytest.mark.parametrize("name", EXAMPLES_RUN)
def test_an_example_runs_as_it_stands(name: str, tmp_path: Path, service: str) -> None:
    example = EXAMPLES_RUN[name]
    # Some write beside themselves.
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    cli = Cli(tmp_path, {"PYTHONDONTWRITEBYTECODE": "1", **example.environment})
    more = ["--var", f"base={service}"] if example.asks else []
    if example.asks:
        cli.extra |= {"GBE_HTTP_ALLOW": "loopback", "PATH": f"{jq(tmp_path)}{os.pathsep}{os.environ['PATH']}"}
    done = cli.run("run", tmp_path / "examples" / name, "--json", *more)
    assert done.returncode == example.code, done.stderr
    found = json.loads(done.stdout)
    tasks = {task["name"]: task for task in found["tasks"]}
    assert example.check(tasks), tasks
