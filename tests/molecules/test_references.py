"""Large values go by reference, into a molecule and out of it."""

from __future__ import annotations

import pytest

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.ids import child_job_id, task_id
from gbe_jobs_domain.outcomes import Completed, FailureKind
from gbe_nexus import Transport
from gbe_oracle.leftovers import PATIENCE as FORGET_AFTER
from gbe_oracle.leftovers import Leftovers
from gbe_oracle.oracle import BusOracle
from tests.molecules.ecumene import Ecumene

BIG = "seq 100000"  # 588,895 bytes

OUT = """
name: outer
tasks:
  - name: mol
    task_type: molecule
    params:
      molecule:
        molecule: inner
        steps:
          - {name: big, operative: shell, params: {command: seq 100000}}
        %s
  - name: read
    task_type: shell
    depends_on: [mol]
    input_from: {%s}
    params: {command: "%s"}
"""


@pytest.mark.parametrize(
    ("output", "inputs", "command", "expected"),
    [
        ("", "stdin_ref: mol.big", "wc -l | tr -d ' '", 100_000),
        ("", "stdin_ref: mol.big_ref", "wc -l | tr -d ' '", 100_000),
        ("", "N: mol.big.99999", "echo $N", 100_000),
        ("output: big", "stdin_ref: mol", "wc -l | tr -d ' '", 100_000),
        ("output: big", "N: mol.99999", "echo $N", 100_000),
        ("output: {all: big, last: big.99999}", "N: mol.last", "echo $N", 100_000),
        ("output: {all: big, last: big.99999}", "stdin_ref: mol.all", "wc -l | tr -d ' '", 100_000),
    ],
)
async def test_what_a_child_stored_is_read_by_its_parents_tasks(
    bus: Transport, oracle: BusOracle, output: str, inputs: str, command: str, expected: int
) -> None:
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(OUT % (output, inputs, command))
        assert summary.state == "completed", summary.error
        assert await ecumene.data(summary, "read") == expected


async def test_nobody_elses_tasks_may_read_it(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(OUT % ("output: big", "X: mol.0", "echo $X"))
        child = child_job_id(task_id(summary.job_id, 0), 0)
        store = await bus.artifact_store("gbe-artifacts")
        key = next(key for key in await store.keys(child) if key.endswith("data.json") or "stdout" in key)
        thief = f"""
name: thief
tasks:
  - {{name: say, task_type: shell, params: {{command: "echo store://gbe-artifacts/{key}"}}}}
  - {{name: read, task_type: shell, depends_on: [say], input_from: {{stdin_ref: say.0}}, params: {{command: cat}}}}
"""
        failed = await ecumene.failure(await ecumene.run(thief), "read")
        assert "is not of this job, nor of one that it ran as a molecule" in failed.error


async def test_a_reference_passed_into_a_molecule_is_copied(bus: Transport, oracle: BusOracle) -> None:
    document = """
name: outer
tasks:
  - {name: big, task_type: shell, params: {command: seq 100000}}
  - name: mol
    task_type: molecule
    depends_on: [big]
    input_from: {data_ref: big}
    params:
      molecule:
        molecule: inner
        vars: {data_ref: ""}
        steps:
          - {name: count, operative: shell, params: {stdin_ref: "${{ vars.data_ref }}", command: "wc -l | tr -d ' '"}}
        output: count
"""
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(document)
        assert summary.state == "completed", summary.error
        assert await ecumene.data(summary, "mol") == 100_000


async def test_an_output_that_is_not_there_fails_the_task(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus) as ecumene:
        failed = await ecumene.failure(await ecumene.run(OUT % ("output: big.x", "X: mol", "echo $X")), "mol")
        assert failed.error == "output 'big.x': 'x' is no index of an array of 100000"
        assert failed.kind is FailureKind.REJECTED


async def test_a_child_is_kept_for_as_long_as_its_parent(bus: Transport, oracle: BusOracle) -> None:
    """The history forgets the child first; what its parent was handed of it stays until the parent is forgotten."""
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(OUT % ("output: big", "X: mol.0", "echo $X"))
        outcome = await ecumene.outcome(summary, "mol")
        assert isinstance(outcome, Completed)
        assert isinstance(outcome.data, Ref)
        child = outcome.data.key.split("/")[0]
        assert child == child_job_id(task_id(summary.job_id, 0), 0)
    store = await bus.artifact_store("gbe-artifacts")
    history, journal = await bus.journal("GBE_HISTORY"), await bus.journal("GBE_JOURNAL")
    leftovers = Leftovers(store, journal, history, history_age=0)
    await journal.purge(f"gbe.journal.inner.{child}")  # as the Oracle does, in its own time
    await journal.purge(f"gbe.journal.outer.{summary.job_id}")
    await history.purge(f"gbe.history.inner.{child}")
    await leftovers.sweep(0.0)
    assert await leftovers.sweep(FORGET_AFTER + 1) == 0
    assert await store.info(outcome.data.key)
    await history.purge(f"gbe.history.outer.{summary.job_id}")
    await leftovers.sweep(FORGET_AFTER + 2)
    await leftovers.sweep(2 * FORGET_AFTER + 3)
    assert await store.info(outcome.data.key) is None


async def test_a_molecule_that_came_along_an_edge(bus: Transport, oracle: BusOracle) -> None:
    document = """
name: outer
tasks:
  - name: write
    task_type: shell
    params:
      command: |
        echo '{"molecule": "made", "steps": [
          {"name": "say", "operative": "shell", "params": {"command": "echo made"}}]}'
  - {name: by-value, task_type: molecule, depends_on: [write], input_from: {molecule: write}}
  - {name: by-reference, task_type: molecule, depends_on: [write], input_from: {molecule_ref: write}}
"""
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(document)
        assert summary.state == "completed", summary.error
        assert (
            await ecumene.data(summary, "by-value") == await ecumene.data(summary, "by-reference") == {"say": ["made"]}
        )


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("yes x | head -c 1000000", "too large"),
        ("printf 'a: &a [x]\\nb: [*a, *a, *a]\\n'", "aliases are not supported"),
        ("printf '[%.0s' $(seq 3000)", "nested deeper than 50 levels"),
        ("echo no job", "molecule:1:1: expected a mapping with a job's keys"),
        ("echo '{}'", "missing key 'name'"),
        ("head -c 100 /dev/urandom", "molecule"),
    ],
    ids=["a megabyte", "an alias bomb", "deep", "text", "empty", "binary"],
)
@pytest.mark.parametrize("param", ["molecule", "molecule_ref"])
async def test_hostile_documents_along_an_edge(
    bus: Transport, oracle: BusOracle, command: str, says: str, param: str
) -> None:
    document = f"""
name: outer
tasks:
  - {{name: write, task_type: shell, params: {{command: "{command}"}}}}
  - {{name: run, task_type: molecule, depends_on: [write], input_from: {{{param}: write}}}}
"""
    async with Ecumene.on(bus) as ecumene:
        failed = await ecumene.failure(await ecumene.run(document), "run")
        assert failed.kind is FailureKind.REJECTED
        assert len(failed.error) < 5000
        if param == "molecule_ref":  # lines as they are; as a value they are a JSON array of lines
            assert says in failed.error or "limit is" in failed.error
