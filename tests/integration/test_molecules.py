"""P11 over a real server, with processes that are killed: a molecule is a job of its own, whoever dies."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gbe_jobs_domain.definitions import TaskDefinition
from gbe_jobs_domain.documents import load_document
from gbe_jobs_domain.ids import child_job_id, task_id
from gbe_jobs_domain.outcomes import Completed, FailureKind
from gbe_nexus_nats.server import EmbeddedServer
from gbe_overseer.client import CancelAnswer
from tests.integration.gbe_cli import Cli
from tests.integration.site import PATIENCE, QUICK, Site, applied, failure, gone, outcome, shell

pytestmark = pytest.mark.server


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(EmbeddedServer(), tmp_path) as made:
        yield made


def molecule(name: str, *steps: str, **fields: object) -> TaskDefinition:
    """A task that is a molecule of these shell steps; they run one after the other."""
    lines = [f"molecule: {name}", "steps:"]
    for number, command in enumerate(steps):
        after = f", depends_on: [s{number - 1}]" if number else ""
        lines.append(f"- {{name: s{number}, operative: shell{after}, params: {{command: {command!r}}}}}")
    text = "\n".join(lines)
    load_document(text, source="test")
    params = {"molecule": text, **fields.pop("params", {})}  # type: ignore[dict-item]
    return TaskDefinition(name, "molecule", params=params, **fields)  # type: ignore[arg-type]


def within(levels: int, command: str) -> TaskDefinition:
    """A molecule within molecules, and a command in the innermost."""
    steps = f"[{{name: leaf, operative: shell, params: {{command: {command!r}}}}}]"
    for level in range(levels - 1):
        inner = f"{{molecule: m{level}, steps: {steps}}}"
        steps = f"[{{name: n, operative: molecule, params: {{molecule: {inner}}}}}]"
    return TaskDefinition("n", "molecule", params={"molecule": f"{{molecule: outer, steps: {steps}}}"})


def family(job_id: str, levels: int) -> list[str]:
    """The ids of the jobs below, where the first task of each is the molecule."""
    found = [job_id]
    for _ in range(levels):
        found.append(child_job_id(task_id(found[-1], 0), 0))
    return found[1:]


async def test_many_molecules_and_the_molecule_operative_killed_in_between(site: Site, tmp_path: Path) -> None:
    """Whenever it dies: the same inner jobs, each step run once (its own Operative lives)."""
    file = tmp_path / "ran"
    oracle, shells = site.oracle(**QUICK), site.operative("shell:8", "shells")
    molecules = site.operative("molecule:2", "molecules")
    await site.start(oracle, shells, molecules)
    count = 40
    job_id = await site.submit(*(molecule(f"m{n}", f"echo {n} >> {file}", "echo done") for n in range(count)))
    for lines in (4, 20):
        await site.file(file, lines)
        await molecules.kill()
        await molecules.start()
    assert await site.end(job_id) == "completed"
    assert Counter(file.read_text().split()) == {str(n): 1 for n in range(count)}
    summary = await site.history(job_id)
    assert summary.children == {f"m{n}": child_job_id(task_id(job_id, n), 0) for n in range(count)}
    await site.clean()


KILLED = """
import os, pathlib, signal
import gbe_operative_molecule.operative as operative
from gbe_operative_molecule import MoleculeOperative

real, mark = operative.submit_child, pathlib.Path("died")

def die_once():
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

async def submit_child(*arguments):
    if os.environ["DIES"] == "before":
        die_once()
    await real(*arguments)
    if os.environ["DIES"] == "after":
        die_once()

operative.submit_child = submit_child
"""


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_the_molecule_operative_killed_at_the_submit(site: Site, tmp_path: Path, dies: str) -> None:
    """Whether the child was submitted or not by then: there is one, and each of its steps runs once."""
    (tmp_path / "killed.py").write_text(KILLED)
    file = tmp_path / "ran"
    argv = [sys.executable, "-m", "gbe_operative.command", "--app", "killed:MoleculeOperative"]
    molecules = site.role("molecules", argv, {"GBE_ACK_WAIT": "1", "DIES": dies})
    await site.start(site.oracle(**QUICK), site.operative("shell:2", "shells"), molecules)
    job_id = await site.submit(molecule("m", f"echo a >> {file}; sleep 0.5", f"echo b >> {file}"))
    await molecules.wait()
    await molecules.start()
    assert await site.end(job_id) == "completed"
    assert file.read_text().split() == ["a", "b"]
    assert {job for job, _ in site.bodies} == {job_id, *family(job_id, 1)}
    await site.clean()


async def test_the_oracle_killed_in_mid_molecule(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "ran"
    oracle = site.oracle(**QUICK)
    await site.start(oracle, site.operative("molecule:2,shell:4"))
    steps = [f"echo {n} >> {file}; sleep 0.05" for n in range(6)]
    job_id = await site.submit(molecule("a", *steps), molecule("b", *steps))
    for lines in (2, 7):
        await site.file(file, lines)
        await oracle.kill()
        await oracle.start()
    assert await site.end(job_id) == "completed"
    for child in (await site.history(job_id)).children.values():
        assert site.events(child) == ["created", "completed"]
    assert Counter(file.read_text().split()) == {str(n): 2 for n in range(6)}
    await site.clean()


async def test_a_cancel_reaches_the_innermost_command(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    await site.start(site.oracle(**QUICK), site.operative("molecule:1,shell:1"))
    job_id = await site.submit(within(4, f"sleep 99 & echo $! >> {file}; wait"))
    (pid,) = await site.file(file, 1)
    assert (await site.client.cancel(job_id, "enough")).answer is CancelAnswer.CANCELLED
    await gone(int(pid), 5)
    for child in family(job_id, 4):
        assert await site.end(child) == "cancelled"
        assert site.bodies[child, "cancelled"]["reason"] == "enough"
    await site.clean()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
async def test_a_cancel_at_any_moment_leaves_nothing(site: Site, tmp_path: Path, seed: int) -> None:
    """Ten jobs, each cancelled a little later in its life: no command, no queue message, no journal is left."""
    file = tmp_path / "pids"
    await site.start(site.oracle(**QUICK), site.operative("molecule:4,shell:10"))
    chance = random.Random(seed)
    jobs = []
    for _ in range(10):
        jobs.append(await site.submit(within(3, f"echo $$ >> {file}; exec sleep 99")))
        await asyncio.sleep(chance.random() * 0.05)
        await site.client.request_cancel(jobs[-1], "test", "enough")
    for job_id in jobs:
        assert await site.end(job_id) == "cancelled"
    await site.clean()
    for pid in file.read_text().split() if file.exists() else []:
        await gone(int(pid), 5)


async def test_fail_fast_reaches_the_child(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    await site.start(site.oracle(**QUICK), site.operative("molecule:1,shell:2"))
    wait = f"until test -s {file}; do sleep 0.01; done; echo no >&2; exit 3"
    job_id = await site.submit(within(2, f"echo $$ >> {file}; exec sleep 99"), shell("bad", wait))
    assert await site.end(job_id) == "failed"
    (pid,) = await site.file(file, 1)
    await gone(int(pid), 5)
    assert [await site.end(child) for child in family(job_id, 2)] == ["cancelled", "cancelled"]
    await site.clean()


async def test_boom_7_through_three_levels(site: Site) -> None:
    await site.start(site.oracle(**QUICK), site.operative("molecule:1,shell:1"))
    job_id = await site.submit(within(3, "echo boom >&2; exit 7"))
    assert await site.end(job_id) == "failed"
    assert (site.bodies[job_id, "failed"]["error"], site.bodies[job_id, "failed"]["failed_task"]) == ("boom", "n")
    failed = failure((await site.tasks(job_id))["n"])
    assert (failed.error, failed.exit_code, failed.kind) == ("boom", 7, FailureKind.ERROR)
    await site.clean()


async def test_the_time_limit_of_a_molecule_ends_its_commands(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    await site.start(site.oracle(**QUICK), site.operative("molecule:1,shell:1"))
    job_id = await site.submit(molecule("slow", f"echo $$ >> {file}; exec sleep 99", timeout_secs=0.5))
    assert await site.end(job_id) == "failed"
    failed = failure((await site.tasks(job_id))["slow"])
    assert (failed.kind, failed.exit_code) == (FailureKind.TIMEOUT, 124)
    (pid,) = await site.file(file, 1)
    await gone(int(pid), 5)
    await site.clean()


async def test_retries_survive_the_death_of_everybody(site: Site, tmp_path: Path) -> None:
    """P12 of a molecule: its third run succeeds, though after the first nobody lives for a while."""
    file = tmp_path / "ran"
    oracle, operative = site.oracle(**QUICK), site.operative("molecule:1,shell:1")
    await site.start(oracle, operative)
    command = f"echo x >> {file}; test $(wc -l < {file}) -ge 3"
    retry = load_document(
        "name: r\ntasks: [{name: a, task_type: x, max_retries: 2, retry: {delay: 0.3, max_delay: 0.3}}]", source="r"
    ).definition.tasks[0]
    job_id = await site.submit(molecule("flaky", command, max_retries=retry.max_retries, retry=retry.retry))
    await site.file(file, 1)
    await asyncio.gather(oracle.kill(), operative.kill())
    await site.start(oracle, operative)
    assert await site.end(job_id) == "completed"
    summary = await site.history(job_id)
    assert len(file.read_text().split()) == 3
    # Where the kill came before the report of the first run, that run is repeated within its attempt.
    assert summary.tasks[0].attempts in (2, 3)
    assert applied(await site.records(job_id)) in ({0: 1}, {})
    await site.clean()


async def test_a_local_molecule_whose_worker_is_killed_begins_anew(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    operative = site.operative("molecule:1", lease=1.0)
    await site.start(site.oracle(**QUICK), operative)
    task = molecule("m", f"echo $$ >> {file}; test $(wc -l < {file}) -gt 1 || exec sleep 99", params={"mode": "local"})
    job_id = await site.submit(task)
    (pid,) = await site.file(file, 1)
    await operative.kill()
    await gone(int(pid), 2)
    await operative.start()
    assert await site.end(job_id) == "completed"
    assert isinstance(outcome((await site.tasks(job_id))["m"]), Completed)
    await site.clean()


async def test_a_server_that_is_killed_in_mid_molecule(tmp_path: Path) -> None:
    file = tmp_path / "ran"
    async with Site(EmbeddedServer(tmp_path / "data"), tmp_path) as site:
        await site.start(site.oracle(**QUICK), site.operative("molecule:2,shell:4"))
        steps = [f"echo {n} >> {file}; sleep 0.05" for n in range(8)]
        job_id = await site.submit(molecule("a", *steps), molecule("b", *steps))
        await site.file(file, 3)
        assert isinstance(site.server, EmbeddedServer)
        await site.server.kill()
        await site.server.start()
        assert await site.end(job_id, 2 * PATIENCE) == "completed"


async def test_the_registry_and_the_commands_that_show_a_molecule(site: Site, tmp_path: Path) -> None:
    await site.start(site.oracle(**QUICK), site.operative("molecule:2,shell:4"))
    options = site.server.options
    cli = Cli(
        tmp_path,
        {
            "GBE_NATS_URL": site.server.url,
            "GBE_NATS_USER": options.user or "",
            "GBE_NATS_PASSWORD": options.password or "",
        },
    )

    async def gbe(*arguments: str | Path) -> str:
        done = await asyncio.to_thread(cli.run, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    document = tmp_path / "greet.yaml"
    text = "molecule: greet\nvars: {name: you}\nsteps:\n- name: say\n  operative: shell\n"
    document.write_text(text + "  params: {command: 'echo hi ${{ vars.name }}'}\n")
    assert await gbe("molecule", "put", document) == "greet@1\n"
    assert await gbe("molecule", "put", document) == "greet@1\n"
    assert "greet@1" in await gbe("molecule", "list")
    assert await gbe("molecule", "show", "greet") == document.read_text()

    job = tmp_path / "job.yaml"
    job.write_text("name: j\ntasks:\n- {name: g, task_type: molecule, params: {molecule_ref: greet, name: Ada}}\n")
    job_id = (await gbe("submit", job)).strip()
    assert await site.end(job_id) == "completed"
    await site.history(job_id)
    await site.history(child_job_id(task_id(job_id, 0), 0))
    assert "    say: completed" in await gbe("show", job_id)
    assert '"child_job_id":"job_c' in await gbe("show", job_id, "--json")
    assert "g/say: completed" in await gbe("watch", job_id)
    assert "g/say | hi Ada" in await gbe("logs", job_id)

    unknown = await asyncio.to_thread(cli.run, "molecule", "show", "nope")
    assert (unknown.returncode, unknown.stderr) == (2, "gbe: no molecule 'nope' is registered\n")
