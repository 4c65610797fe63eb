"""Script, assert and template Operatives on a real server with real signals (P7-P9, P13-P15), their examples, and
`gbe run --junit`."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from msgspec import json as msgjson

from gbe_jobs_domain.definitions import TaskDefinition
from gbe_jobs_domain.documents import load_file
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, TaskOutcome
from gbe_jobs_domain.payloads import TaskSummary
from gbe_nexus_nats.server import EmbeddedServer
from gbe_operative_command.testing import runs
from tests.integration.gbe_cli import EXAMPLES, Cli, finish, wait_for_text
from tests.integration.site import RoleProcess, Site

pytestmark = pytest.mark.server

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"

# Says where it is, and stays there the first time.
ONCE = 'echo $$ >> "$PIDS"; if [ "$(wc -l < "$PIDS")" -eq 1 ]; then sleep 600 & echo $! >> "$PIDS"; wait; fi; echo done'


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(EmbeddedServer(), tmp_path) as site:
        await site.start(site.oracle())
        yield site


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples: one of them writes a file beside itself."""
    ignored = shutil.ignore_patterns("build")
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored))


def outcome(summary: TaskSummary) -> TaskOutcome:
    found: TaskOutcome = msgjson.decode(summary.outcome or b"null", type=TaskOutcome)
    return found


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


# --- the examples -------------------------------------------------------------------------------------


def test_the_ci_example_is_a_test_suite(cli: Cli, examples: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    done = cli.run("run", examples / "ci.yaml", "--json", "--junit", report)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"][-1]["output"] == ["published a program of 13 lines"]
    suite = Xml.parse(report).getroot()[0]
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("7", "0", "0")

    done = cli.run("run", examples / "ci.yaml", "--quiet", "--var", "version=oops", "--junit", report)
    assert done.returncode == 1
    suite = Xml.parse(report).getroot()[0]
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("1", "0")
    case = next(case for case in suite.findall("testcase") if case.attrib["name"] == "says-its-version")
    assert (case.findtext("failure") or "").startswith("stdout has no match for")
    assert "    !   sums oops" in done.stdout, "the whole of what was not as expected"
    publish = suite.findall("testcase")[-1]
    assert publish[0].attrib["message"] == "not run: says-its-version failed"


def test_the_other_examples(cli: Cli, examples: Path) -> None:
    done = cli.run("run", examples / "config-template.yaml", "--json", "--var", "domain=gbe.test")
    assert done.returncode == 0, done.stderr
    _, render, check, announce = json.loads(done.stdout)["tasks"]
    written = examples / "build" / "site.conf"
    assert render["data"]["path"] == str(written)
    assert "server 10.0.0.2:9090;" in written.read_text()
    assert check["output"] == [f"{written} has 10 lines"]
    assert announce["data"]["url"] == "https://gbe.test:80/acme"

    done = cli.run("run", examples / "script.yaml", "--json", "--transport", "memory")
    assert done.returncode == 0, done.stderr
    count, draw = json.loads(done.stdout)["tasks"]
    assert count["data"] == {"saw": 3, "bird": 2, "cat": 2}
    assert draw["output"][0] == "saw  ### 3"


def test_gbe_run_reaches_no_file_outside_of_the_jobs_directory(cli: Cli, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.sh").write_text("echo reached\n")
    job = inside / "job.yaml"
    job.write_text("""
name: leave
tasks:
  - {name: leave, task_type: script, params: {script_path: ../outside.sh, interpreter: sh}}
""")
    done = cli.run("run", job, "--transport", "memory")
    assert done.returncode == 1
    assert f"it is outside of {inside}" in done.stdout
    done = cli.run("run", job, "--transport", "memory", "--json", GBE_SCRIPT_ROOT=str(tmp_path))
    assert json.loads(done.stdout)["tasks"][0]["output"] == ["reached"], "relative to the file, within the named root"


# --- --junit ------------------------------------------------------------------------------------------


def test_a_report_of_a_run_that_was_interrupted(cli: Cli, tmp_path: Path) -> None:
    job, report, output = tmp_path / "job.yaml", tmp_path / "report.xml", tmp_path / "output"
    job.write_text("""
name: sleeper
tasks:
  - {name: first, task_type: shell, params: {command: "echo begun"}}
  - {name: sleep, task_type: shell, depends_on: [first], params: {command: "sleep 600"}}
  - {name: never, task_type: shell, depends_on: [sleep], params: {command: "true"}}
""")
    report.write_text("of an earlier run")
    process = cli.start("run", job, "--transport", "memory", "--junit", report, output=output)
    wait_for_text(output, "sleep: running")
    assert not report.exists(), "nobody shall take that of an earlier run for this one's"
    assert finish(process, signal.SIGINT) == 130
    suite = Xml.parse(report).getroot()[0]
    assert [case[0].tag for case in suite.findall("testcase")] == ["system-out", "skipped", "skipped"]
    assert [path.name for path in tmp_path.glob(".report*")] == []


def test_a_report_of_a_run_that_came_to_nothing(cli: Cli, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    nowhere = "nats://127.0.0.1:1"
    done = cli.run("run", EXAMPLES / "diamond.yaml", "--junit", report, "--nats", nowhere, GBE_CONNECT_TIMEOUT="0.5")
    assert done.returncode == 2
    suite = Xml.parse(report).getroot()[0]
    assert (suite.attrib["tests"], suite.attrib["errors"], suite.attrib["skipped"]) == ("5", "1", "4")
    assert "127.0.0.1:1" in suite.findall("testcase")[-1][0].attrib["message"]


def test_a_report_that_can_not_be_written(cli: Cli, tmp_path: Path) -> None:
    for path, says in [(tmp_path / "no" / "x.xml", "there is no directory"), (tmp_path, "is a directory, not a file")]:
        done = cli.run("run", EXAMPLES / "diamond.yaml", "--junit", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("gbe: --junit: ")
        assert says in done.stderr


# --- paths over a bus ---------------------------------------------------------------------------------


async def test_relative_paths_start_at_the_document_or_at_the_hosts_root(site: Site, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "here.sh").write_text("echo here\n")
    (tmp_path / "there.sh").write_text("echo there\n")
    await site.start(site.operative("script:2", GBE_SCRIPT_ROOT=str(tmp_path)))
    options = site.server.options
    cli = Cli(tmp_path, {"GBE_NATS_USER": options.user or "", "GBE_NATS_PASSWORD": options.password or ""})
    job = jobs / "job.yaml"
    job.write_text("name: x\ntasks: [{name: a, task_type: script, params: {script_path: here.sh, interpreter: sh}}]\n")
    done = cli.run("run", job, "--json", "--nats", site.server.url)
    assert json.loads(done.stdout)["tasks"][0]["output"] == ["here"], done.stderr
    # As from another host: the definition as it is, its path is the Operative's to understand.
    definition = load_file(job)
    params = {"script_path": "there.sh", "interpreter": "sh"}
    job_id = await site.submit(TaskDefinition("a", "script", params=dict(params)), job_type=definition.job_type)
    await site.completed([job_id])
    ended = outcome((await site.tasks(job_id))["a"])
    assert isinstance(ended, Completed)
    assert ended.output == ["there"]


# --- killed, cancelled --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["script", "assert"])
async def test_killed_mid_way(site: Site, tmp_path: Path, kind: str) -> None:
    """P14: its commands are gone within a second, and the task runs on another."""
    pids = tmp_path / "pids"
    (tmp_path / "once.sh").write_text(ONCE)
    params = {
        "script": {"script_path": "once.sh", "interpreter": "sh"},
        "assert": {"command": ONCE, "expect_stdout": "done"},
    }[kind]
    first = site.operative(f"{kind}:1")
    await site.start(first)
    job_id = await site.submit(TaskDefinition("once", kind, params={**params, "PIDS": str(pids)}))
    command, sleeper = map(int, await site.file(pids, 2))
    await first.kill()
    await site.until(lambda: not runs(command) and not runs(sleeper), 2.0, "the commands to be gone")
    await site.start(site.operative(f"{kind}:1", "another"))
    await site.completed([job_id])
    assert len(pids.read_text().splitlines()) == 3
    ended = outcome((await site.tasks(job_id))["once"])
    assert isinstance(ended, Completed)
    assert ended.output == ["done"]


async def test_a_template_killed_mid_way(site: Site) -> None:
    first = site.operative("template:1", GBE_TEMPLATE_TIMEOUT="600")
    await site.start(first)
    job_id = await site.submit(TaskDefinition("loop", "template", params={"template": ENDLESS}))
    rendering = await _rendering(site, first)
    await first.kill()
    await site.until(lambda: not any(map(runs, rendering)), 2.0, "the processes that render to be gone")
    await site.start(site.operative("template:1", "another", GBE_TEMPLATE_TIMEOUT="0.5"))
    assert await site.end(job_id) == "failed"
    ended = outcome((await site.tasks(job_id))["loop"])
    assert isinstance(ended, Failed)
    assert ended.error == "the template was not rendered within 0.5 s: does it loop without end?"


async def _rendering(site: Site, operative: RoleProcess) -> list[int]:
    """The fork server and the process that it forked, once there is one."""
    found: list[int] = []

    def there() -> bool:
        servers = [
            pid
            for pid in descendants(operative.pid)
            if b"fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes() and runs(pid)
        ]
        found[:] = servers
        return len(servers) >= 2

    await site.until(there, what="a process that renders")
    return list(found)


async def test_a_cancel_and_a_time_limit(site: Site, tmp_path: Path) -> None:
    """P13, P12: nothing is left of what was cancelled or took too long."""
    operative = site.operative("script:1,assert:1,template:2", GBE_TEMPLATE_TIMEOUT="600")
    await site.start(operative)
    pids = [tmp_path / "a", tmp_path / "b"]
    (tmp_path / "once.sh").write_text(ONCE)
    job_id = await site.submit(
        TaskDefinition("s", "script", params={"script_path": "once.sh", "interpreter": "sh", "PIDS": str(pids[0])}),
        TaskDefinition("a", "assert", params={"command": ONCE, "PIDS": str(pids[1])}),
        TaskDefinition("t", "template", params={"template": ENDLESS}),
    )
    commands = [int(pid) for file in pids for pid in await site.file(file, 2)]
    _, *rendering = await _rendering(site, operative)
    await site.client.cancel(job_id)
    assert await site.end(job_id) == "cancelled"
    await site.until(lambda: not any(map(runs, [*commands, *rendering])), what="everything to be gone")

    job_id = await site.submit(TaskDefinition("t", "template", params={"template": ENDLESS}, timeout_secs=0.3))
    assert await site.end(job_id) == "failed"
    ended = outcome((await site.tasks(job_id))["t"])
    assert isinstance(ended, Failed)
    assert (ended.kind, ended.exit_code) == (FailureKind.TIMEOUT, 124)
    await site.clean()


# --- much output --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5_000_000, pytest.param(500_000_000, marks=pytest.mark.slow)])
async def test_much_output(site: Site, tmp_path: Path, size: int) -> None:
    """P15: it goes by reference, and the worker's memory does not grow with it."""
    (tmp_path / "much.sh").write_text(f"head -c {size} /dev/zero | tr '\\0' x\necho; echo end\n")
    operative = site.operative("script:1,assert:1")
    await site.start(operative)
    before = _memory(operative.pid)
    much = {"script_path": "much.sh", "interpreter": "sh"}
    job_id = await site.submit(
        TaskDefinition("s", "script", params=dict(much)),
        TaskDefinition(
            "a",
            "assert",
            depends_on=["s"],
            input_from={"stdin_ref": "s"},
            params={"command": "cat", "expect_stdout_contains": "x\nend\n"},
        ),
    )
    assert await site.end(job_id, 110) == "completed", site.logs()
    for task in (await site.tasks(job_id)).values():
        ended = outcome(task)
        assert isinstance(ended, Completed)
        assert ended.data is not None
        assert getattr(ended.data, "size", 0) == size + 5
        assert sum(map(len, ended.output)) < 300_000
    assert _memory(operative.pid) - before < 150_000, "kilobytes"


def _memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
