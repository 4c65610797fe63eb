"""P11 over a bus: a molecule is a job of its own, run by the same Oracle."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gbe_jobs_domain.edges import Inline
from gbe_jobs_domain.ids import child_job_id, task_id
from gbe_jobs_domain.outcomes import FailureKind
from gbe_nexus import Transport
from gbe_operative.mock import Behaviour
from gbe_oracle.oracle import BusOracle
from tests.molecules.ecumene import PATIENCE, Ecumene

GREET = """
name: outer
tasks:
  - name: who
    task_type: shell
    params: {command: "echo '{\\"name\\": \\"Ada\\"}'"}
  - name: greet
    task_type: molecule
    depends_on: [who]
    input_from: {name: who.name}
    params:
      greeting: Hello
      molecule:
        molecule: greeting
        vars: {name: nobody, greeting: Hi, mark: "!"}
        steps:
          - name: say
            operative: shell
            params: {command: "echo '${{ vars.greeting }}, ${{ vars.name }}${{ vars.mark }}'"}
          - name: loud
            operative: shell
            depends_on: [say]
            input_from: {TEXT: say.0}
            params: {command: "printf '{\\"text\\": \\"%s\\"}' \\"$TEXT\\" | tr a-z A-Z | sed s/TEXT/text/"}
  - name: after
    task_type: shell
    depends_on: [greet]
    input_from: {TEXT: greet.loud.text}
    params: {command: "echo $TEXT"}
"""


async def test_inputs_become_variables_and_data_is_keyed_by_step(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(GREET)
        assert summary.state == "completed", summary.error
        assert await ecumene.data(summary, "greet") == {"say": ["Hello, Ada!"], "loud": {"text": "HELLO, ADA!"}}
        assert await ecumene.data(summary, "after") == ["HELLO, ADA!"]
        child = child_job_id(task_id(summary.job_id, 1), 0)
        assert summary.children == {"greet": child}
        inner = await ecumene.client.summary(child)
        assert inner is not None
        assert (inner.name, inner.job_type, inner.depth, inner.state) == ("greeting", "greeting", 1, "completed")
        assert inner.parent is not None
        assert inner.parent.job_id == summary.job_id


async def test_a_waiting_molecule_holds_no_slot(bus: Transport, oracle: BusOracle) -> None:
    """Four molecules within each other, with a single slot for molecules."""
    async with Ecumene.on(bus, slots=1) as ecumene:
        summary = await ecumene.run(nested(4))
        assert summary.state == "completed", summary.error


def nested(depth: int, step: str = "{name: leaf, operative: shell, params: {command: echo deep}}") -> str:
    """A job with molecules within molecules."""
    text = f"steps: [{step}]"
    for level in range(depth - 1, 0, -1):
        inner = f"{{molecule: m{level}, {text}}}"
        text = f"steps: [{{name: n{level}, operative: molecule, params: {{molecule: {inner}}}}}]"
    inner = f"{{molecule: m0, {text}}}"
    return f"{{name: outer, tasks: [{{name: n0, task_type: molecule, params: {{molecule: {inner}}}}}]}}"


class TestFailure:
    async def test_boom_7(self, bus: Transport, oracle: BusOracle) -> None:
        boom = {"boom": Behaviour(fail_times=9, error="boom", exit_code=7)}
        async with Ecumene.on(bus, boom) as ecumene:
            summary = await ecumene.run(nested(3, "{name: boom, operative: mock}"))
            assert (summary.state, summary.error, summary.failed_task) == ("failed", "boom", "n0")
            failed = await ecumene.failure(summary, "n0")
            assert (failed.error, failed.exit_code, failed.kind) == ("boom", 7, FailureKind.ERROR)
            assert isinstance(failed.data, Inline)
            assert failed.data.decoded()["failed_step"] == "n1.n2.boom"

    async def test_the_innermost_job_is_named(self, bus: Transport, oracle: BusOracle) -> None:
        boom = {"boom": Behaviour(fail_times=9)}
        async with Ecumene.on(bus, boom) as ecumene:
            summary = await ecumene.run(nested(2, "{name: boom, operative: mock}"))
            failed = await ecumene.failure(summary, "n0")
            assert isinstance(failed.data, Inline)
            where = failed.data.decoded()
            inner = await ecumene.client.summary(where["job_id"])
            assert inner is not None
            assert inner.failed_task == "boom"

    async def test_fail_fast_reaches_the_child(self, bus: Transport, oracle: BusOracle) -> None:
        behaviours = {"slow": Behaviour(hang=True), "bad": Behaviour(delay=0.2, fail_times=9, error="bad")}
        document = """
name: outer
tasks:
  - {name: bad, task_type: mock}
  - name: mol
    task_type: molecule
    params: {molecule: {molecule: m, steps: [{name: slow, operative: mock}]}}
"""
        async with Ecumene.on(bus, behaviours) as ecumene:
            summary = await ecumene.run(document)
            assert (summary.state, summary.error) == ("failed", "bad")
            child = await ecumene.end(child_job_id(task_id(summary.job_id, 1), 0))
            assert child.state == "cancelled"


class TestCancel:
    async def test_it_reaches_the_grandchild(self, bus: Transport, oracle: BusOracle) -> None:
        async with Ecumene.on(bus, {"slow": Behaviour(hang=True)}) as ecumene:
            job_id = await ecumene.submit(nested(3, "{name: slow, operative: mock}"))
            await asyncio.wait_for(ecumene.mock.started.wait(), PATIENCE)
            await ecumene.client.cancel(job_id, "enough")
            parent = job_id
            for _ in range(3):
                child = child_job_id(task_id(parent, 0), 0)
                summary = await ecumene.end(child)
                assert (summary.state, summary.reason) == ("cancelled", "enough")
                parent = child

    @pytest.mark.parametrize("moment", [0.0, 0.002, 0.01, 0.03, 0.06])
    async def test_at_any_moment(self, bus: Transport, oracle: BusOracle, moment: float) -> None:
        """Whatever was there of the tree by then: nothing of it goes on."""
        async with Ecumene.on(bus, {"slow": Behaviour(hang=True)}) as ecumene:
            job_id = await ecumene.submit(nested(3, "{name: slow, operative: mock}"))
            await asyncio.sleep(moment)
            await ecumene.client.cancel(job_id, "enough")
            assert (await ecumene.end(job_id)).state == "cancelled"
            await nothing_left(bus)


async def nothing_left(bus: Transport) -> None:
    """No journal is left: every job of the tree is over."""
    journal = await bus.journal("GBE_JOURNAL")
    async with asyncio.timeout(PATIENCE):
        while await journal.subjects("gbe.journal.>"):
            await asyncio.sleep(0.02)
    assert (await bus.stream_state("GBE_QUEUE")).messages == 0


class TestRetries:
    DOCUMENT = """
name: outer
tasks:
  - name: mol
    task_type: molecule
    max_retries: 2
    retry: {delay: 0.01, max_delay: 0.02}
    params: {molecule: {molecule: m, steps: [{name: ok, operative: mock}, {name: flaky, operative: shell, params: %s}]}}
"""

    async def test_a_failed_child_is_followed_by_another(
        self, bus: Transport, oracle: BusOracle, tmp_path: Path
    ) -> None:
        count = tmp_path / "count"
        command = f"echo x >> {count}; test $(wc -l < {count}) -ge 3"
        async with Ecumene.on(bus) as ecumene:
            summary = await ecumene.run(self.DOCUMENT % f"{{command: '{command}'}}")
            assert summary.state == "completed", summary.error
            assert summary.tasks[0].attempts == 3
            assert count.read_text() == "x\n" * 3
            assert [task.retry_count for task in ecumene.molecules.tasks] == [0, 1, 2]
            states = [
                (await ecumene.end(child_job_id(task_id(summary.job_id, 0), failed))).state for failed in range(3)
            ]
            assert states == ["failed", "failed", "completed"]

    async def test_until_none_is_left(self, bus: Transport, oracle: BusOracle) -> None:
        async with Ecumene.on(bus) as ecumene:
            summary = await ecumene.run(self.DOCUMENT % "{command: 'echo no >&2; exit 7'}")
            failed = await ecumene.failure(summary, "mol")
            assert (summary.state, failed.error, failed.exit_code) == ("failed", "no", 7)
            assert summary.tasks[0].attempts == 3

    async def test_a_cancel_between_two_attempts(self, bus: Transport, oracle: BusOracle) -> None:
        document = (self.DOCUMENT % "{command: exit 1}").replace("delay: 0.01, max_delay: 0.02", "delay: 60")
        async with Ecumene.on(bus) as ecumene:
            job_id = await ecumene.submit(document)
            async with asyncio.timeout(PATIENCE):
                notes = await bus.state_store("gbe-notes")
                while not await notes.keys():
                    await asyncio.sleep(0.01)
            await ecumene.client.cancel(job_id)
            assert (await ecumene.end(job_id)).state == "cancelled"


async def test_the_time_limit_is_the_childs_deadline(bus: Transport, oracle: BusOracle) -> None:
    document = """
name: outer
tasks:
  - name: mol
    task_type: molecule
    timeout_secs: 0.3
    params: {molecule: {molecule: m, steps: [{name: slow, operative: mock}]}}
"""
    async with Ecumene.on(bus, {"slow": Behaviour(hang=True)}) as ecumene:
        summary = await ecumene.run(document)
        failed = await ecumene.failure(summary, "mol")
        assert (failed.kind, failed.exit_code) == (FailureKind.TIMEOUT, 124)


async def test_a_redelivered_task_goes_on_with_the_same_job(bus: Transport, oracle: BusOracle) -> None:
    async with Ecumene.on(bus, {"slow": Behaviour(delay=0.3, data=1)}) as ecumene:
        job_id = await ecumene.submit(nested(1, "{name: slow, operative: mock}"))
        await asyncio.wait_for(ecumene.mock.started.wait(), PATIENCE)
        # As a server would that was killed: the queue message comes once more.
        from gbe_jobs_domain import subjects
        from gbe_nexus import encode_payload

        (task,) = ecumene.molecules.tasks
        await bus.publish(subjects.queue("molecule"), encode_payload("again", task))
        summary = await ecumene.end(job_id)
        assert summary.state == "completed", summary.error
        assert len(ecumene.molecules.tasks) == 2
        assert ecumene.mock.runs["slow"] == 1


async def test_five_hundred_steps(bus: Transport, oracle: BusOracle) -> None:
    steps = ", ".join(f"{{name: s{n}, operative: mock}}" for n in range(500))
    document = (
        f"name: o\ntasks: [{{name: m, task_type: molecule, params: {{molecule: {{molecule: m, steps: [{steps}]}}}}}}]"
    )
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(document)
        assert summary.state == "completed", summary.error
        assert len(await ecumene.data(summary, "m")) == 500
