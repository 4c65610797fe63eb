"""Jobs from the submit to the history, through an Oracle and an Operative in processes of their own.

One server, one Oracle and one Operative serve all tests of the module; the last test looks at what they leave behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gbe_jobs_domain.definitions import TaskDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline, Ref
from gbe_jobs_domain.ids import new_job_id, task_id
from gbe_jobs_domain.outcomes import FailureKind
from gbe_jobs_domain.payloads import RetryPolicy, SecretRef
from gbe_nexus_nats.server import EmbeddedServer
from gbe_overseer.client import CancelAnswer
from tests.integration.site import QUICK, Completed, Site, failure, gone, outcome, output, shell

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

SECRET = "hunter2-is-no-password"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with Site(EmbeddedServer(), tmp_path_factory.mktemp("jobs")) as site:
        await site.start(
            site.oracle(GBE_LOG_LEVEL="debug", **QUICK),
            site.operative("shell:8,data-fetch=shell:4,noop=mock:64", GBE_LOG_LEVEL="debug", GBE_SECRET_API_KEY=SECRET),
        )
        yield site
        for role in site.roles:
            assert await role.stop() == 0, role.log.read_text()


async def test_a_line(site: Site, tmp_path: Path) -> None:
    """O1: one after the other, each once."""
    file = tmp_path / "order"
    job_id = await site.submit(
        shell("a", f"echo a >> {file}; echo hello world"),
        shell("b", f"echo b >> {file}", ["a"]),
        shell("c", f"echo c >> {file}; echo one; echo two; echo three", ["b"]),
    )
    assert await site.end(job_id) == "completed"
    assert site.events(job_id) == ["created", "completed"]
    assert file.read_text().split() == ["a", "b", "c"]
    summary = await site.history(job_id)
    assert (summary.state, summary.task_count, summary.name, summary.job_type) == ("completed", 3, "test", "test")
    assert [(task.name, task.state, task.attempts) for task in summary.tasks] == [
        (name, "completed", 1) for name in "abc"
    ]
    assert [output(task) for task in summary.tasks] == [["hello world"], [], ["one", "two", "three"]]
    assert summary.created_at <= summary.tasks[0].started_at <= summary.tasks[2].ended_at <= summary.ended_at


async def test_a_diamond_passes_data_along_its_edges(site: Site) -> None:
    """P5: a key, a line, the whole value; resolved values come before static params."""
    job_id = await site.submit(
        shell("produce", """echo '{"url": "https://example.org/a", "count": 42, "deep": [{"x": null}]}'"""),
        shell(
            "left",
            'echo "$SOURCE_URL $N $X"',
            ["produce"],
            input_from={"SOURCE_URL": "produce.url", "N": "produce.count", "X": "produce.deep.0"},
            params={"SOURCE_URL": "static"},
        ),
        shell("right", "echo first; echo second", ["produce"]),
        shell(
            "join",
            'echo "$LEFT|$RIGHT|$BOTH"; cat',
            ["left", "right"],
            input_from={"LEFT": "left.0", "RIGHT": "right.0", "BOTH": "right", "stdin_ref": "right"},
        ),
    )
    assert await site.end(job_id) == "completed"
    tasks = await site.tasks(job_id)
    assert output(tasks["left"]) == ['https://example.org/a 42 {"x":null}']
    first, *rest = output(tasks["join"])
    assert first == 'https://example.org/a 42 {"x":null}|first|["first","second"]'
    assert rest == ["first", "second"]
    assert tasks["join"].started_at >= max(tasks["left"].ended_at, tasks["right"].ended_at)


async def test_a_path_that_is_not_there(site: Site) -> None:
    """P5: fails the task, naming the reference."""
    job_id = await site.submit(
        shell("produce", "echo '{\"url\": 1}'"),
        shell("consume", "echo $U", ["produce"], input_from={"U": "produce.uri"}),
    )
    assert await site.end(job_id) == "failed"
    body = site.bodies[job_id, "failed"]
    assert "produce.uri" in body["error"]
    assert (body["failed_task"], body["failed_task_id"]) == ("consume", task_id(job_id, 1))
    assert failure((await site.tasks(job_id))["consume"]).kind is FailureKind.REJECTED


async def test_a_fan_out_and_a_join(site: Site) -> None:
    """O1: a join waits for all. Shell tasks, and no-ops that an Operative does at once."""
    names = [f"t{number}" for number in range(60)]
    commands = [shell(name, f"echo {name}", ["root"]) for name in names]
    join = shell("join", "cat", names, input_from={"stdin_ref": "t7"})
    spawned = await site.submit(shell("root", "echo go"), *commands, join)
    wide = [f"n{number}" for number in range(1000)]
    noops = [TaskDefinition(name, "noop", depends_on=["root"]) for name in wide]
    at_once = await site.submit(TaskDefinition("root", "noop"), *noops, TaskDefinition("join", "noop", depends_on=wide))
    await site.completed([spawned, at_once])
    tasks = await site.tasks(spawned)
    assert output(tasks["join"]) == ["t7"]
    assert tasks["join"].started_at >= max(tasks[name].ended_at for name in names)
    many = await site.tasks(at_once)
    assert {(task.state, task.attempts) for task in many.values()} == {("completed", 1)}
    assert len(many) == 1002


async def test_the_first_failure_ends_the_job(site: Site, tmp_path: Path) -> None:
    """O2: nothing more is dispatched, running siblings are killed, the failed task's own error is told once."""
    file = tmp_path / "pid"
    job_id = await site.submit(
        shell("root", "true"),
        shell("slow", f"sleep 99 & echo $! > {file}; wait", ["root"]),
        shell("bad", f"until [ -s {file} ]; do sleep 0.02; done; echo boom >&2; exit 7", ["root"]),
        shell("never", "true", ["slow", "bad"]),
    )
    [pid] = await site.file(file)
    assert await site.end(job_id) == "failed"
    body = site.bodies[job_id, "failed"]
    assert (body["error"], body["failed_task"], body["failed_task_id"]) == ("boom", "bad", task_id(job_id, 2))
    await gone(int(pid), 5)
    tasks = await site.tasks(job_id)
    assert {name: task.state for name, task in tasks.items()} == {
        "root": "completed",
        "slow": "cancelled",
        "bad": "failed",
        "never": "cancelled",
    }
    assert (failure(tasks["bad"]).exit_code, failure(tasks["bad"]).error) == (7, "boom")
    assert tasks["never"].attempts == 0
    assert site.events(job_id) == ["created", "failed"]


async def test_a_cancel_that_comes_before_its_job(site: Site, tmp_path: Path) -> None:
    """O4."""
    job_id = new_job_id()
    await site.client.request_cancel(job_id, "test", "changed my mind")
    await site.submit(shell("a", f"touch {tmp_path}/ran"), job_id=job_id)
    assert await site.end(job_id) == "cancelled"
    assert site.events(job_id) == ["created", "cancelled"]
    assert site.bodies[job_id, "cancelled"]["reason"] == "changed my mind"
    assert not (tmp_path / "ran").exists()


async def test_a_cancel_right_after_the_submit(site: Site) -> None:
    """O4: whatever was first, the job is cancelled, once; and nothing of it runs a moment later."""
    ids = []
    for _ in range(10):
        job_id = await site.submit(shell("a", "sleep 99"), shell("b", "true", ["a"]))
        await site.client.request_cancel(job_id, "test", "too late?")
        ids.append(job_id)
    for job_id in ids:
        assert await site.end(job_id) == "cancelled"
        assert site.events(job_id) == ["created", "cancelled"]
        assert [task.state for task in (await site.history(job_id)).tasks] == ["cancelled", "cancelled"]


async def test_a_cancel_in_the_middle(site: Site, tmp_path: Path) -> None:
    """O4, P13: the commands and their children are gone, the job is cancelled with the reason."""
    file = tmp_path / "pids"
    command = f"sleep 99 & echo $! >> {file}; wait"
    job_id = await site.submit(
        shell("a", "echo done"), shell("b", command, ["a"]), shell("c", command, ["a"]), shell("d", "true", ["b", "c"])
    )
    pids = await site.file(file, 2)
    cancelled = await site.client.cancel(job_id, "enough")
    assert cancelled.answer is CancelAnswer.CANCELLED
    for pid in pids:
        await gone(int(pid), 5)
    assert await site.end(job_id) == "cancelled"
    assert site.bodies[job_id, "cancelled"]["reason"] == "enough"
    states = [task.state for task in (await site.history(job_id)).tasks]
    assert states == ["completed", "cancelled", "cancelled", "cancelled"]


async def test_a_cancel_in_the_middle_of_a_window(site: Site) -> None:
    """O4: with thousands of tasks queued, some running, some not even dispatched."""
    sleepers = [shell(f"t{number}", "sleep 99") for number in range(3000)]
    job_id = await site.submit(*sleepers)
    await site.until(lambda: any(p["job_id"] == job_id for p in site.progress), what="a task to run")
    cancelled = await site.client.cancel(job_id, "enough")
    assert cancelled.answer is CancelAnswer.CANCELLED
    assert await site.end(job_id) == "cancelled"
    assert {task.state for task in (await site.tasks(job_id)).values()} == {"cancelled"}


async def test_a_cancel_that_can_not_be(site: Site) -> None:
    """O4: of a finished and of an unknown job: a clear answer, no event."""
    job_id = await site.submit(shell("a", "true"))
    assert await site.end(job_id) == "completed"
    await site.history(job_id)
    assert (await site.client.cancel(job_id)).answer is CancelAnswer.ALREADY_OVER
    unknown = new_job_id()
    assert (await site.client.cancel(unknown)).answer is CancelAnswer.UNKNOWN
    assert site.events(job_id) == ["created", "completed"]
    assert site.events(unknown) == []


async def test_retries_and_their_pauses_can_be_seen(site: Site, tmp_path: Path) -> None:
    """P12: a flaky task succeeds at its third attempt, a broken one fails after three."""
    count = tmp_path / "count"
    retry = RetryPolicy(delay=0.1)
    flaky = shell(
        "flaky",
        f"echo x >> {count}; [ $(wc -l < {count}) -ge 3 ] && echo $GBE_ATTEMPT",
        max_retries=2,
        retry=retry,
    )
    job_id = await site.submit(flaky, shell("after", "echo $N", ["flaky"], input_from={"N": "flaky"}))
    assert await site.end(job_id) == "completed"
    tasks = await site.tasks(job_id)
    assert (tasks["flaky"].attempts, output(tasks["after"])) == (3, ["3"])

    def announced(job: str) -> list[str]:
        return [p["message"].split(",")[0] for p in site.progress if p["job_id"] == job and p["kind"] == "retry"]

    await site.until(lambda: len(announced(job_id)) == 2, what="retries to be announced")
    assert announced(job_id) == ["attempt 1 failed", "attempt 2 failed"]

    job_id = await site.submit(shell("broken", "echo no >&2; exit 3", max_retries=2, retry=retry))
    assert await site.end(job_id) == "failed"
    assert site.bodies[job_id, "failed"]["error"] == "no"
    tasks = await site.tasks(job_id)
    assert (tasks["broken"].attempts, failure(tasks["broken"]).exit_code) == (3, 3)
    await site.until(lambda: len(announced(job_id)) == 2, what="retries to be announced")


async def test_a_time_limit(site: Site, tmp_path: Path) -> None:
    """P12: exit code 124, and no process left."""
    file = tmp_path / "pid"
    job_id = await site.submit(shell("slow", f"sleep 99 & echo $! > {file}; wait", timeout_secs=0.3))
    assert await site.end(job_id) == "failed"
    failed = failure((await site.tasks(job_id))["slow"])
    assert (failed.kind, failed.exit_code) == (FailureKind.TIMEOUT, 124)
    await gone(int(file.read_text()), 5)


async def test_a_type_of_one_s_own(site: Site) -> None:
    """P17: the roles document's `data-fetch` is served by the shell Operative."""
    job_id = await site.submit(
        shell("fetch", """echo '{"rows": 3}'""", task_type="data-fetch"),
        shell("count", "echo $ROWS rows", ["fetch"], input_from={"ROWS": "fetch.rows"}),
        job_type="nightly-etl",
    )
    assert await site.end(job_id) == "completed"
    tasks = await site.tasks(job_id)
    assert tasks["fetch"].task_type == "data-fetch"
    assert output(tasks["count"]) == ["3 rows"]


async def test_a_task_without_a_command(site: Site) -> None:
    """P4."""
    job_id = await site.submit(TaskDefinition("empty", "shell", params={"FOO": "bar"}))
    assert await site.end(job_id) == "failed"
    assert site.bodies[job_id, "failed"]["error"] == "missing param: command"
    assert failure((await site.tasks(job_id))["empty"]).kind is FailureKind.REJECTED


async def test_five_inputs_of_250_kb(site: Site) -> None:
    """P15: together they are more than one message holds."""
    letters = "abcde"
    produce = [shell(letter, f"head -c 250000 /dev/zero | tr '\\0' {letter}") for letter in letters]
    consume = shell(
        "join",
        "cat | tr -d '\\n'; echo; env | grep _ref= | sort",
        list(letters),
        input_from={"stdin_ref": "a"} | {f"{letter}_ref": letter for letter in "bcde"},
    )
    job_id = await site.submit(*produce, consume)
    assert await site.end(job_id) == "completed"
    tasks = await site.tasks(job_id)
    whole = outcome(tasks["join"])
    assert isinstance(whole, Completed)
    text = await _whole(site, whole)
    first, *references = text.splitlines()
    assert first == "a" * 250_000
    store = await site.transport.artifact_store(ARTIFACT_STORE)
    for letter, line in zip("bcde", references, strict=True):
        name, _, uri = line.partition("=")
        assert name == f"{letter}_ref"
        key = uri.removeprefix(f"store://{ARTIFACT_STORE}/")
        assert letter * 250_000 in (await store.read(key, limit=1 << 20)).decode()


async def test_250000_nul_bytes(site: Site) -> None:
    """P15: 1.5 MB as JSON; the next task gets them all the same."""
    job_id = await site.submit(
        shell("nul", "head -c 250000 /dev/zero"),
        shell("count", "wc -c; echo $WHERE_ref", ["nul"], input_from={"stdin_ref": "nul", "WHERE_ref": "nul"}),
    )
    assert await site.end(job_id) == "completed"
    tasks = await site.tasks(job_id)
    count, where = output(tasks["count"])
    assert 250_000 <= int(count) <= 250_001  # a line's end
    assert where.startswith(f"store://{ARTIFACT_STORE}/{job_id}/")


async def test_an_environment_value_of_200_kb(site: Site) -> None:
    """P15: fails the task naming the param, whether it is static or comes along an edge."""
    job_id = await site.submit(shell("static", "true", params={"BIG": "x" * 200_000}))
    assert await site.end(job_id) == "failed"
    assert "BIG" in site.bodies[job_id, "failed"]["error"]
    job_id = await site.submit(
        shell("big", "head -c 200000 /dev/zero | tr '\\0' x"),
        shell("use", "true", ["big"], input_from={"VALUE": "big.0"}),
    )
    assert await site.end(job_id) == "failed"
    body = site.bodies[job_id, "failed"]
    assert body["failed_task"] == "use"
    assert "VALUE" in body["error"]
    assert "200000" in body["error"]
    assert "_ref" in body["error"]


async def test_a_definition_larger_than_a_message(site: Site) -> None:
    """It goes to the artifact store, and its tasks come from there; results that are as large come back."""
    filler = "x" * 60_000
    tasks = [shell(f"t{number}", "cat | wc -c", params={"stdin": filler}) for number in range(30)]
    job_id = await site.submit(*tasks)
    assert await site.end(job_id) == "completed"
    assert site.bodies[job_id, "created"]["definition_ref"]["size"] > site.transport.max_payload
    assert {tuple(output(task)) for task in (await site.tasks(job_id)).values()} == {("60000",)}
    job_id = await site.submit(
        *(shell(f"t{number}", "head -c 100000 /dev/zero | tr '\\0' y") for number in range(15)),
    )
    assert await site.end(job_id) == "completed"
    found = await site.tasks(job_id)
    assert len(found) == 15
    assert {tuple(output(task)) for task in found.values()} == {("y" * 100_000,)}


async def test_five_megabytes_of_output(site: Site) -> None:
    """P15: by reference, the tail inline."""
    job_id = await site.submit(
        shell("big", "yes 0123456 | head -c 5000000"),
        shell("next", "wc -c", ["big"], input_from={"stdin_ref": "big"}),
    )
    assert await site.end(job_id) == "completed"
    tasks = await site.tasks(job_id)
    big = outcome(tasks["big"])
    assert isinstance(big, Completed)
    assert isinstance(big.data, Ref)
    assert big.data.size == 5_000_000
    assert big.output[-1] == "0123456"
    assert output(tasks["next"]) == ["5000000"]


async def test_a_secret_is_nowhere_but_in_the_command(site: Site, tmp_path: Path) -> None:
    """P18: not on the bus (any subject, also the stores), not in logs, not in output."""
    heard: list[tuple[str, bytes]] = []
    listening = await site.transport.listen([">"], lambda subject, body: heard.append((subject, body)))
    file = tmp_path / "seen"
    key = SecretRef("api-key")
    job_id = await site.submit(
        shell("use", f"echo $KEY > {file}; echo key=$KEY; sleep 0.3; echo and $KEY >&2", params={"KEY": key}),
        shell("pass-on", "echo $DATA", ["use"], input_from={"DATA": "use.0"}),
        shell("large", "yes $KEY | head -c 600000; exit 0", params={"KEY": key}),
        shell("fail", "echo $KEY >&2; exit 9", ["use", "large", "pass-on"], params={"KEY": key}, max_retries=1),
    )
    assert await site.end(job_id) == "failed"
    tasks = await site.tasks(job_id)
    assert file.read_text().strip() == SECRET
    assert output(tasks["use"]) == ["key=***"]
    assert output(tasks["pass-on"]) == ["key=***"]
    assert site.bodies[job_id, "failed"]["error"] == "***"
    await listening.stop()
    subjects = {subject for subject, body in heard if SECRET.encode() in body}
    assert subjects == set()
    assert any(subject.startswith("$O.") for subject, _ in heard), "the large output went to the store"
    assert SECRET not in site.logs()


async def test_nothing_is_left_behind(site: Site) -> None:
    """Journals are purged, the queue and the inbox are empty, and so are the notes of tasks that were retried."""
    await site.clean()
    assert all(names[0] == "created" for names in map(site.events, _ids(site)))
    assert all(len(site.events(job_id)) == 2 for job_id in _ids(site))


def _ids(site: Site) -> list[str]:
    return list({job_id for job_id, _ in site.bodies})


async def _whole(site: Site, completed: Completed) -> str:
    """All that a task printed, wherever it is."""
    if isinstance(completed.data, Ref):
        store = await site.transport.artifact_store(ARTIFACT_STORE)
        return (await store.read(completed.data.key, limit=1 << 24)).decode()
    assert isinstance(completed.data, Inline)
    return "\n".join(completed.output)
