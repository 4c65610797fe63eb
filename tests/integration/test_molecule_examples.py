"""The examples of molecules, run as a user runs them; the mission's own against a local web server (P11, P16)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gbe_operative_http.testing import Web, json_reply
from tests.integration.gbe_cli import EXAMPLES, Cli

# The molecule of the mission document "operative types", word for word but for the host of its URL.
MISSION = """
molecule: "web-extract"
vars: {base: "https://api.example.com"}
steps:
  - name: "render-url"
    operative: template
    params: { template: "${{ vars.base }}/{{org}}/usage" }
    # output: { "url": "https://api.example.com/acme/usage" }

  - name: "fetch"
    operative: http
    depends_on: ["render-url"]
    input_from: { url: "render-url.url" }
    params: { method: GET }
    # output: { "body_ref": "store://tmp/fetch-result.json", "status": 200 }

  - name: "extract"
    operative: shell
    depends_on: ["fetch"]
    input_from: { stdin_ref: "fetch.body_ref" }
    params: { command: "jq '.data[]'" }
"""

JQ = """#!{python}
import json, sys
assert sys.argv[1:] == [".data[]"], sys.argv
for item in json.load(sys.stdin)["data"]:
    print(json.dumps(item, indent=2))
"""


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web() as web:
        yield web


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    path = os.environ["PATH"]
    if shutil.which("jq") is None:  # what the example needs of it
        jq = tmp_path / "bin" / "jq"
        jq.parent.mkdir()
        jq.write_text(JQ.format(python=sys.executable))
        jq.chmod(0o755)
        path = f"{jq.parent}{os.pathsep}{path}"
    return Cli(tmp_path, {"GBE_HTTP_ALLOW": "127.0.0.1", "PATH": path})


async def run(cli: Cli, *arguments: str | Path) -> dict[str, Any]:
    done = await asyncio.to_thread(cli.run, "run", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def usage(web: Web, count: int) -> None:
    """Serve the usage of two organisations."""
    for org in ("default", "org_default", "acme", "org_acme"):
        web.routes[f"/{org}/usage"] = json_reply({"data": [{"n": n} for n in range(count)]})


@pytest.mark.server
@pytest.mark.parametrize("count", [3, 60_000])
async def test_the_missions_molecule(cli: Cli, web: Web, tmp_path: Path, count: int) -> None:
    """As a document of its own; the answer may be small or by reference."""
    usage(web, count)
    document = tmp_path / "web-extract.yaml"
    document.write_text(MISSION)
    tasks = (await run(cli, document, "--var", f"base={web.url}"))["tasks"]
    assert [task["name"] for task in tasks] == ["render-url", "fetch", "extract"]
    assert tasks[0]["data"] == {"text": f"{web.url}/default/usage", "url": f"{web.url}/default/usage"}
    assert tasks[1]["data"]["status"] == 200
    assert len(web.received) == 1
    if count == 3:
        assert "".join(tasks[2]["output"]).replace(" ", "") == '{"n":0}{"n":1}{"n":2}'
    else:
        assert tasks[2]["data"]["size"] > 100_000


@pytest.mark.server
@pytest.mark.parametrize(("mode", "transport"), [("bus", "nats"), ("bus", "memory"), ("local", "memory")])
async def test_the_missions_molecule_in_a_job(cli: Cli, web: Web, tmp_path: Path, mode: str, transport: str) -> None:
    """The example is the mission's text, as a task of an outer job."""
    usage(web, 2)
    assert (EXAMPLES / "web-extract.yaml").read_text().split("steps:")[1].replace("store://…", "") == MISSION.split(
        "steps:"
    )[1].replace("store://tmp/fetch-result.json", "")
    job = tmp_path / "job.yaml"
    shutil.copy(EXAMPLES / "web-extract.yaml", tmp_path)
    job.write_text(
        f"name: outer\norg: org_acme\ntasks:\n- name: web\n  task_type: molecule\n"
        f"  params: {{molecule_path: web-extract.yaml, base: '{web.url}', mode: {mode}}}\n"
    )
    (task,) = (await run(cli, job, "--transport", transport))["tasks"]
    assert task["data"]["render-url"]["url"] == f"{web.url}/acme/usage"
    assert task["data"]["fetch"]["status"] == 200
    assert ("tasks" in task) == (mode == "bus")


@pytest.mark.server
async def test_nested_molecules(cli: Cli) -> None:
    measure, report = (
        await run(cli, EXAMPLES / "nested-molecules.yaml", "--var", "city=Bern", "--transport", "memory")
    )["tasks"]
    assert measure["data"]["first"] == {"where": "Bern north", "celsius": 7}
    assert report["output"] == ['Bern north: 7 C; stations: ["north","south"]']
    assert [task["name"] for task in measure["tasks"]] == ["stations", "north"]
    assert [task["name"] for task in measure["tasks"][1]["tasks"]] == ["read"]


@pytest.mark.server
async def test_a_molecule_used_twice(cli: Cli) -> None:
    linux, macos, manifest = (await run(cli, EXAMPLES / "release.yaml", "--var", "version=2.0"))["tasks"]
    assert (linux["data"]["file"], macos["data"]["file"]) == ("app-2.0-linux.bin", "app-2.0-macos.bin")
    assert manifest["output"] == [f"{task['data']['sha256']}  {task['data']['file']}" for task in (linux, macos)]


def test_the_file_of_a_molecule_need_not_be_where_it_runs(tmp_path: Path, cli: Cli) -> None:
    """It is a part of what is submitted."""
    shutil.copy(EXAMPLES / "release.yaml", tmp_path)
    missing = cli.run("validate", tmp_path / "release.yaml")
    assert missing.returncode == 2
    assert f"{tmp_path}/release.yaml:9:29: tasks[0].params.molecule_path: {tmp_path}/build.yaml can't be read" in (
        missing.stderr
    )
