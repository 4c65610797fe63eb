"""Edge data end to end, over a real server: what one command prints is what the next one gets, however large it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.documents import load_file
from gbe_jobs_domain.edges import ARTIFACT_STORE, Ref
from gbe_jobs_domain.outcomes import Completed, FailureKind
from gbe_nexus import Transport
from gbe_nexus_nats.server import EmbeddedServer
from tests.integration.site import QUICK, Site, failure, outcome, output, shell

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

PRINT_ITEMS = (
    """python3 -c 'import json; print(json.dumps({"items": [{"price": n, "pad": "x" * 100} for n in range(%d)]}))'"""
)
ITEMS = {
    "type": "object",
    "properties": {"items": {"items": {"properties": {"price": {"type": "number", "maximum": 4_998}}}}},
    "required": ["items"],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with Site(EmbeddedServer(), tmp_path_factory.mktemp("edges")) as site:
        await site.start(
            site.oracle(**QUICK),
            site.operative("shell:8", GBE_FETCH_LIMIT="2000000", GBE_ARTIFACT_LIMIT="8000000", GBE_CHECK_LIMIT="2"),
        )
        yield site
        for role in site.roles:
            assert await role.stop() == 0, role.log.read_text()


async def stored(bus: Transport, ref: Ref) -> bytes:
    return await (await bus.artifact_store(ARTIFACT_STORE)).read(ref.key, limit=ref.size)


async def test_small_and_large_data_look_alike_to_the_author(site: Site) -> None:
    """Inline below the threshold, a reference above it; values, paths and whole references work with both."""
    job_id = await site.submit(
        *(shell(f"items-{count}", PRINT_ITEMS % count) for count in (5, 5_000)),
        *(
            shell(
                f"take-{count}",
                'echo "$PRICE $PAD"; wc -c; python3 -c "import json, os; print(len(json.loads(os.environ[\'ITEM\'])))"',
                [f"items-{count}"],
                input_from={
                    "PRICE": f"items-{count}.items.4.price",
                    "PAD": f"items-{count}.items.0.pad",
                    "ITEM": f"items-{count}.items.3",
                    "stdin_ref": f"items-{count}",
                },
            )
            for count in (5, 5_000)
        ),
    )
    assert await site.end(job_id) == "completed"
    tasks = await site.tasks(job_id)
    small, large = outcome(tasks["items-5"]), outcome(tasks["items-5000"])
    assert isinstance(small, Completed)
    assert isinstance(large, Completed)
    assert not isinstance(small.data, Ref)
    assert isinstance(large.data, Ref)
    assert (large.data.media_type, large.data.key.startswith(job_id + "/")) == ("application/json", True)
    content = await stored(site.transport, large.data)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (large.data.size, large.data.sha256)
    for count, size in ((5, None), (5_000, large.data.size)):
        first, second, third = output(tasks[f"take-{count}"])
        assert first == "4 " + "x" * 100
        assert size is None or int(second) == size
        assert third == "2"


async def test_a_digest_that_does_not_match_is_noticed_by_the_next_task(site: Site) -> None:
    """Somebody writes over the artifact between the two."""
    gate = site.folder / "gate"
    job_id = await site.submit(
        shell("make", PRINT_ITEMS % 5_000),
        shell("wait", f"while ! test -e {gate}; do sleep 0.02; done"),
        shell("use", 'echo "$PRICE"', ["make", "wait"], input_from={"PRICE": "make.items.0.price"}),
    )
    store = await site.transport.artifact_store(ARTIFACT_STORE)
    keys: list[str] = []

    async def made() -> bool:
        keys[:] = await store.keys(job_id + "/")
        applied = [o for record in await site.records(job_id) for o in record.outcomes]
        return bool(keys and applied)

    while not await made():
        await asyncio.sleep(0.02)
    await store.put(keys[0], b'{"items":[{"price":"free"}]}', media_type="application/json")
    gate.touch()
    assert await site.end(job_id) == "failed"
    failed = failure((await site.tasks(job_id))["use"])
    assert failed.kind is FailureKind.REJECTED
    assert "input 'make.items.0.price': store://" in failed.error
    assert "is not what was handed on: its sha256 is" in failed.error


@pytest.mark.parametrize(
    ("command", "reads", "says"),
    [
        # what to open is larger than it may be: the reference, its size, the limit
        (PRINT_ITEMS % 20_000, {"X": "make.items.0.price"}, "input 'make.items.0.price': 2"),
        # what to store is: the step, the artifact, its size, the limit
        ("head -c 9000000 /dev/zero", {}, "task 'make': artifact 'stdout.txt' is 9,000,000 bytes"),
        # a path that isn't there, in what went by reference
        (PRINT_ITEMS % 5_000, {"X": "make.items.9999"}, "input 'make.items.9999': no index 9999; the array has"),
    ],
)
async def test_limits_say_what_of_what_is_too_large(site: Site, command: str, reads: dict[str, str], says: str) -> None:
    job_id = await site.submit(shell("make", command), shell("use", "true", ["make"], input_from=reads))
    assert await site.end(job_id) == "failed"
    error = (await site.history(job_id)).error
    assert error.startswith(says)
    if reads.get("X") == "make.items.0.price":
        assert "bytes are too large to open (limit 2000000 bytes); take it by reference" in error


async def test_declared_data_is_checked_where_it_is_made_and_where_it_is_taken(site: Site, tmp_path: Path) -> None:
    """From the document, a schema in a file beside it, to the history."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "items.json").write_text(json.dumps(ITEMS))
    document = tmp_path / "job.yaml"

    def write(count: int, minimum: int) -> JobDefinition:
        document.write_text(
            json.dumps(
                {
                    "name": "declared",
                    "tasks": [
                        {
                            "name": "make",
                            "task_type": "shell",
                            "params": {"command": PRINT_ITEMS % count},
                            "output_schema": "schemas/items.json",
                        },
                        {
                            "name": "use",
                            "task_type": "shell",
                            "params": {"command": "echo $PRICE"},
                            "depends_on": ["make"],
                            "input_from": {"PRICE": "make.items.3.price"},
                            "input_schema": {"properties": {"PRICE": {"type": "integer", "minimum": minimum}}},
                        },
                    ],
                }
            )
        )
        return load_file(document)

    async def run(count: int, minimum: int) -> tuple[str, str]:
        accepted = await site.client.submit(write(count, minimum))
        return await site.end(accepted.job_id), (await site.history(accepted.job_id)).error

    assert await run(4_999, 3) == ("completed", "")
    assert await run(5_000, 3) == (
        "failed",
        "output does not match output_schema at $.items[4999].price: 4999 is greater than the maximum of 4998",
    )
    assert await run(10, 5) == (
        "failed",
        "input does not match input_schema at $.PRICE: 3 is less than the minimum of 5",
    )


async def test_a_hostile_schema_costs_its_own_job_and_nobody_else(site: Site) -> None:
    evil = {"items": {"pattern": "^(a|aa)+$"}}
    hostile = await site.submit(shell("evil", f"echo {'a' * 60}!", output_schema=evil))
    others = [await site.submit(shell("a", "echo 1", output_schema={"items": {"const": "1"}})) for _ in range(5)]
    await site.completed(others)
    assert await site.end(hostile) == "failed"
    assert (await site.history(hostile)).error == (
        "output can't be checked against output_schema: it takes more than 2 s"
    )
