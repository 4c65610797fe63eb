"""Registered molecules: versions, and what a task makes of them."""

from __future__ import annotations

import asyncio

import pytest

from gbe_jobs_domain.ids import child_job_id, task_id
from gbe_jobs_domain.outcomes import FailureKind
from gbe_nexus import Transport
from gbe_operative.mock import Behaviour
from gbe_oracle.oracle import BusOracle
from gbe_overseer.registry import MoleculeRegistry, RegistryError
from tests.molecules.ecumene import PATIENCE, Ecumene


def greeting(word: str) -> bytes:
    text = "molecule: greeting\nvars: {name: you}\nsteps:\n- name: say\n  operative: shell\n"
    return f"{text}  params: {{command: 'echo {word} ${{{{ vars.name }}}}'}}\n".encode()


def calling(reference: str, more: str = "") -> str:
    task = f"name: call\n  task_type: molecule\n  params: {{molecule_ref: '{reference}', {more}}}"
    return f"name: outer\ntasks:\n- {task}\n"


def including(*references: str) -> bytes:
    steps = "".join(
        f"- {{name: s{n}, operative: molecule, params: {{molecule_ref: '{ref}'}}}}\n"
        for n, ref in enumerate(references)
    )
    return f"molecule: m\nsteps:\n{steps}".encode()


class TestVersions:
    async def test_the_same_bytes_are_the_same_version(self, bus: Transport) -> None:
        registry = await MoleculeRegistry.on(bus)
        puts = [await registry.put("greet", greeting(word)) for word in ("hi", "hello", "hello", "hi")]
        assert [(put.reference, put.existed) for put in puts] == [
            ("greet@1", False),
            ("greet@2", False),
            ("greet@2", True),
            ("greet@1", True),  # and it is the latest again
        ]
        assert (await registry.index("greet")).latest == 1

    async def test_what_is_put_is_shown(self, bus: Transport) -> None:
        registry = await MoleculeRegistry.on(bus)
        await registry.put("greet", greeting("hi"), "greeting")
        await registry.put("greet", greeting("hello"))
        assert (await registry.show("greet"))[1] == greeting("hello")
        found, text = await registry.show("greet@1")
        assert (found.reference, text, found.version.title) == ("greet@1", greeting("hi"), "greeting")

    async def test_twenty_writers_at_once(self, bus: Transport) -> None:
        registry = await MoleculeRegistry.on(bus)
        puts = await asyncio.gather(*(registry.put("greet", greeting(f"w{n}")) for n in range(10)))
        assert sorted(put.version.version for put in puts) == list(range(1, 11))

    @pytest.mark.parametrize(("reference", "says"), [("x", "no molecule 'x'"), ("greet@9", "the latest is greet@1")])
    async def test_what_is_not_there(self, bus: Transport, reference: str, says: str) -> None:
        registry = await MoleculeRegistry.on(bus)
        await registry.put("greet", greeting("hi"))
        with pytest.raises(RegistryError, match=says):
            await registry.show(reference)

    @pytest.mark.parametrize("name", ["a.b", "a@1", "", "x" * 65, "a/b", "a b"])
    async def test_bad_names(self, bus: Transport, name: str) -> None:
        with pytest.raises(RegistryError, match="no name for a molecule"):
            await (await MoleculeRegistry.on(bus)).put(name, greeting("hi"))

    async def test_a_circle_is_refused_where_it_is_closed(self, bus: Transport) -> None:
        registry = await MoleculeRegistry.on(bus)
        await registry.put("a", including("b"))
        await registry.put("b", including("c"))
        with pytest.raises(RegistryError, match="cyclic molecules: c@1 → a@1 → b@1 → c@1"):
            await registry.put("c", including("a"))
        await registry.put("c", greeting("hi"))

    async def test_an_older_version_of_itself_is_no_circle(self, bus: Transport) -> None:
        registry = await MoleculeRegistry.on(bus)
        await registry.put("a", greeting("hi"))
        assert (await registry.put("a", including("a@1"))).reference == "a@2"
        with pytest.raises(RegistryError, match="a@3 → a@3"):
            await registry.put("a", including("a"))


class TestTasks:
    async def test_the_latest_or_the_named_one(self, bus: Transport, oracle: BusOracle) -> None:
        registry = await MoleculeRegistry.on(bus)
        await registry.put("greet", greeting("hi"))
        await registry.put("greet", greeting("hello"))
        async with Ecumene.on(bus) as ecumene:
            latest, first = await ecumene.run(calling("greet", "name: Ada")), await ecumene.run(calling("greet@1"))
            assert await ecumene.data(latest, "call") == {"say": ["hello Ada"]}
            assert await ecumene.data(first, "call") == {"say": ["hi you"]}

    @pytest.mark.parametrize(
        ("reference", "more", "says"),
        [
            ("nope", "", "no molecule 'nope' is registered"),
            ("greet@7", "", "the latest is greet@1"),
            ("greet", "nam: x", "param 'nam': the molecule declares no such variable, did you mean 'name'?"),
        ],
    )
    async def test_what_is_wrong_is_said(
        self, bus: Transport, oracle: BusOracle, reference: str, more: str, says: str
    ) -> None:
        await (await MoleculeRegistry.on(bus)).put("greet", greeting("hi"))
        async with Ecumene.on(bus) as ecumene:
            failed = await ecumene.failure(await ecumene.run(calling(reference, more)), "call")
            assert says in failed.error
            assert failed.kind is FailureKind.REJECTED

    async def test_a_redelivered_task_goes_on_with_the_version_it_began_with(
        self, bus: Transport, oracle: BusOracle
    ) -> None:
        from gbe_jobs_domain import subjects
        from gbe_nexus import encode_payload

        registry = await MoleculeRegistry.on(bus)
        slow = b"molecule: m\nsteps:\n- {name: slow, operative: mock}\n"
        await registry.put("m", slow)
        async with Ecumene.on(bus, {"slow": Behaviour(delay=0.3, data="first")}) as ecumene:
            job_id = await ecumene.submit(calling("m"))
            await asyncio.wait_for(ecumene.mock.started.wait(), PATIENCE)
            await registry.put("m", greeting("another"))
            (task,) = ecumene.molecules.tasks
            await bus.publish(subjects.queue("molecule"), encode_payload("again", task))
            summary = await ecumene.end(job_id)
            assert len(ecumene.molecules.tasks) == 2
            assert await ecumene.data(summary, "call") == {"slow": "first"}

    async def test_a_circle_that_was_not_seen_before_is_spelled_out(self, bus: Transport, oracle: BusOracle) -> None:
        """The names are in variables: nothing but the run itself can tell."""
        hop = b"""
molecule: hop
vars: {next: none, then: none}
steps:
- name: call
  operative: molecule
  params: {molecule_ref: "${{ vars.next }}", next: "${{ vars.then }}", then: "${{ vars.next }}"}
"""
        registry = await MoleculeRegistry.on(bus)
        await registry.put("a", hop)
        await registry.put("b", hop)
        async with Ecumene.on(bus) as ecumene:
            failed = await ecumene.failure(await ecumene.run(calling("a", "next: b, then: a")), "call")
            assert failed.error == "cyclic molecules: a@1 → b@1 → a@1"

    async def test_the_depth_limit(self, bus: Transport, oracle: BusOracle) -> None:
        registry = await MoleculeRegistry.on(bus)
        await registry.put("m0", greeting("hi"))
        for level in range(1, 4):
            await registry.put(f"m{level}", including(f"m{level - 1}"))
        async with Ecumene.on(bus, environment={"GBE_MOLECULE_MAX_DEPTH": "3"}) as ecumene:
            assert (await ecumene.run(calling("m2"))).state == "completed"
            failed = await ecumene.failure(await ecumene.run(calling("m3")), "call")
            assert failed.error == "molecules within molecules, more than 3 levels deep"

    async def test_the_lineage_travels(self, bus: Transport, oracle: BusOracle) -> None:
        registry = await MoleculeRegistry.on(bus)
        await registry.put("leaf", greeting("hi"))
        await registry.put("mid", including("leaf"))
        async with Ecumene.on(bus) as ecumene:
            summary = await ecumene.run(calling("mid"))
            assert [task.lineage for task in ecumene.molecules.tasks] == [[], ["mid@1"]]
            child = await ecumene.client.summary(child_job_id(task_id(summary.job_id, 0), 0))
            assert child is not None
            assert child.depth == 1
