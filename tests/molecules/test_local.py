"""`mode: local`: the inner job within the process of its Operative. The same documents give the same results."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gbe_jobs_domain.edges import Inline, Ref
from gbe_jobs_domain.outcomes import Completed, FailureKind
from gbe_nexus import Transport
from gbe_operative.mock import Behaviour
from gbe_oracle.oracle import BusOracle
from tests.integration.site import gone
from tests.molecules.ecumene import PATIENCE, Ecumene


def local(steps: str, task: str = "", params: str = "", more: str = "") -> str:
    """A job of one local molecule with these steps."""
    indented = "\n".join(f"          {line}" for line in steps.strip().splitlines())
    return (
        f"name: outer\ntasks:\n  - name: mol\n    task_type: molecule\n    {task}\n    params:\n      mode: local\n"
        f"      {params}\n      molecule:\n        molecule: inner\n        {more}\n        steps:\n{indented}\n"
    )


PIPELINE = """
- {name: make, operative: shell, params: {command: "echo '{\\"n\\": [1, 2]}'"}}
- {name: left, operative: shell, depends_on: [make], input_from: {N: make.n.0}, params: {command: "echo $N"}}
- {name: right, operative: shell, depends_on: [make], input_from: {N: make.n.1}, params: {command: "echo $N"}}
- name: join
  operative: shell
  depends_on: [make, left, right]
  input_from: {A: left, B: right, DOC_ref: make}
  params: {command: "echo $((A + B)) $(basename $(dirname $DOC_ref))"}
"""


@pytest.mark.parametrize("mode", ["local", "bus"])
async def test_both_modes_give_the_same(bus: Transport, oracle: BusOracle, mode: str) -> None:
    steps = PIPELINE.replace(", DOC_ref: make", "").replace(" $(basename $(dirname $DOC_ref))", "")
    document = local(steps).replace("mode: local", f"mode: {mode}")
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(document)
        assert await ecumene.data(summary, "mol") == {"make": {"n": [1, 2]}, "left": 1, "right": 2, "join": 3}
        assert bool(summary.children) == (mode == "bus")


GOES_ON = """
- {name: bad, operative: shell, params: {command: "echo boom >&2; exit 7"}}
- {name: after-bad, operative: shell, depends_on: [bad], params: {command: "touch $DIR/after-bad"}}
- {name: slow, operative: shell, params: {command: "while ! [ -e $DIR/worse ]; do sleep 0.01; done"}}
- {name: after-slow, operative: shell, depends_on: [slow], params: {command: "touch $DIR/after-slow"}}
- {name: worse, operative: shell, params: {command: "sleep 0.2; touch $DIR/worse; exit 8"}}
"""


@pytest.mark.parametrize("mode", ["local", "bus"])
async def test_without_fail_fast_the_other_steps_go_on_in_both_modes(
    bus: Transport, oracle: BusOracle, tmp_path: Path, mode: str
) -> None:
    document = local(GOES_ON.replace("$DIR", str(tmp_path)), more="fail_fast: false")
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(document.replace("mode: local", f"mode: {mode}"))
        assert (summary.state, summary.error) == ("failed", "boom")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["after-slow", "worse"]


async def test_references_belong_to_the_outer_job(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(local(PIPELINE))
        assert summary.state == "completed", summary.error
        store = await bus.artifact_store("gbe-artifacts")
        assert {key.split("/")[0] for key in await store.keys()} == {summary.job_id}


async def test_large_data_is_spilled_and_read_again(bus: Transport, oracle: BusOracle) -> None:
    steps = """
- {name: big, operative: shell, params: {command: "seq 200000 | tr '\\\\n' ' ' | sed 's/^/{\\"x\\": \\"/; s/$/\\"}/'"}}
- name: cut
  operative: shell
  depends_on: [big]
  input_from: {stdin_ref: big}
  params: {command: "wc -c"}
"""
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(local(steps, more="output: big"))
        outcome = await ecumene.outcome(summary, "mol")
        assert isinstance(outcome, Completed)
        assert isinstance(outcome.data, Ref)
        assert outcome.data.key.startswith(summary.job_id)
        assert len((await ecumene.data(summary, "mol"))["x"]) > 1_000_000


class TestFailure:
    async def test_boom_7(self, bus: Transport, oracle: BusOracle) -> None:
        steps = "- {name: boom, operative: shell, params: {command: 'echo boom >&2; exit 7'}}"
        async with Ecumene.on(bus) as ecumene:
            summary = await ecumene.run(local(steps))
            failed = await ecumene.failure(summary, "mol")
            assert (failed.error, failed.exit_code) == ("boom", 7)
            assert isinstance(failed.data, Inline)
            # There is no inner job to be looked at.
            assert failed.data.decoded() == {"failed_step": "boom", "job_id": summary.job_id}

    async def test_it_ends_what_runs_beside_it(self, bus: Transport, oracle: BusOracle, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        steps = f"""
- {{name: slow, operative: shell, params: {{command: "echo $$ > {pid}; exec sleep 60"}}}}
- {{name: bad, operative: shell, params: {{command: "until test -s {pid}; do sleep 0.01; done; exit 3"}}}}
- {{name: never, operative: shell, depends_on: [bad], params: {{command: "touch {tmp_path}/never"}}}}
"""
        async with Ecumene.on(bus) as ecumene:
            summary = await ecumene.run(local(steps))
            assert (await ecumene.failure(summary, "mol")).exit_code == 3
            await gone(int(pid.read_text()), 1)
            assert not (tmp_path / "never").exists()

    async def test_steps_are_retried(self, bus: Transport, oracle: BusOracle, tmp_path: Path) -> None:
        count = tmp_path / "count"
        command = f"echo x >> {count}; test $(wc -l < {count}) -ge 3"
        retry = "max_retries: 2, retry: {delay: 0}"
        steps = f"- {{name: flaky, operative: shell, {retry}, params: {{command: '{command}'}}}}"
        async with Ecumene.on(bus) as ecumene:
            assert (await ecumene.run(local(steps))).state == "completed"

    async def test_the_time_limit_of_a_step(self, bus: Transport, oracle: BusOracle) -> None:
        steps = "- {name: slow, operative: shell, timeout_secs: 0.2, params: {command: sleep 60}}"
        async with Ecumene.on(bus) as ecumene:
            failed = await ecumene.failure(await ecumene.run(local(steps)), "mol")
            assert (failed.kind, failed.exit_code, failed.error) == (FailureKind.TIMEOUT, 124, "timed out after 0.2 s")

    async def test_the_time_limit_of_the_whole(self, bus: Transport, oracle: BusOracle, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        steps = f"- {{name: slow, operative: shell, params: {{command: 'echo $$ > {pid}; exec sleep 60'}}}}"
        async with Ecumene.on(bus) as ecumene:
            failed = await ecumene.failure(await ecumene.run(local(steps, "timeout_secs: 0.3")), "mol")
            assert (failed.kind, failed.exit_code) == (FailureKind.TIMEOUT, 124)
            await gone(int(pid.read_text()), 1)

    @pytest.mark.parametrize(
        ("step", "says"),
        [
            ("{name: a, operative: x-rays}", "mode: local: no Operative 'x-rays' is installed here"),
            ("{name: a, operative: shell, params: {command: 'true', K: {secret: key}}}", "secret 'key' is not given"),
            ("{name: a, operative: shell}", "missing param: command"),
        ],
    )
    async def test_what_can_not_be_run_is_said(self, bus: Transport, oracle: BusOracle, step: str, says: str) -> None:
        async with Ecumene.on(bus) as ecumene:
            failed = await ecumene.failure(await ecumene.run(local(f"- {step}")), "mol")
            assert says in failed.error
            assert failed.kind is FailureKind.REJECTED


async def test_cancel_ends_its_commands(bus: Transport, oracle: BusOracle, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    steps = f"- {{name: slow, operative: shell, params: {{command: 'echo $$ > {pid}; exec sleep 60'}}}}"
    async with Ecumene.on(bus) as ecumene:
        job_id = await ecumene.submit(local(steps))
        async with asyncio.timeout(PATIENCE):
            while not pid.exists() or not pid.read_text().strip():
                await asyncio.sleep(0.01)
        await ecumene.client.cancel(job_id)
        assert (await ecumene.end(job_id)).state == "cancelled"
        await gone(int(pid.read_text()), 3)


async def test_molecules_within_are_local_too(bus: Transport, oracle: BusOracle) -> None:
    steps = """
- name: inner
  operative: molecule
  params:
    who: Ada
    molecule:
      molecule: deep
      vars: {who: x}
      steps: [{name: say, operative: shell, params: {command: "echo ${{ vars.who }}"}}]
"""
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(local(steps))
        assert await ecumene.data(summary, "mol") == {"inner": {"say": ["Ada"]}}
        assert not summary.children


async def test_no_more_steps_at_once_than_there_are_slots(bus: Transport, oracle: BusOracle, tmp_path: Path) -> None:
    command = f"mkdir {tmp_path}/one && sleep 0.02 && rmdir {tmp_path}/one"
    steps = "\n".join(f"- {{name: s{n}, operative: shell, params: {{command: '{command}'}}}}" for n in range(5))
    async with Ecumene.on(bus, environment={"GBE_MOLECULE_LOCAL_SLOTS": "1"}) as ecumene:
        assert (await ecumene.run(local(steps))).state == "completed"


async def test_five_hundred_steps(bus: Transport, oracle: BusOracle) -> None:
    steps = "\n".join(f"- {{name: s{n}, operative: mock}}" for n in range(500))
    async with Ecumene.on(bus, {"s1": Behaviour(data=7)}) as ecumene:
        summary = await ecumene.run(local(steps))
        assert (await ecumene.data(summary, "mol"))["s499"] is None


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("input_schema: {properties: {N: {pattern: '^[0-9]+$'}}}", "input does not match input_schema at $.N"),
        ("output_schema: {type: object}", "output does not match output_schema at $"),
    ],
)
async def test_declared_data_is_checked_here_too(bus: Transport, oracle: BusOracle, schema: str, says: str) -> None:
    steps = f"- {{name: a, operative: shell, {schema}, params: {{N: x, command: 'echo 1'}}}}"
    async with Ecumene.on(bus) as ecumene:
        failed = await ecumene.failure(await ecumene.run(local(steps)), "mol")
        assert says in failed.error
