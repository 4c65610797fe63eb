"""HTTP and LLM tasks on a real server, with their Operatives as processes (P6, P12-P16, P18)."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.definitions import TaskDefinition
from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline
from gbe_jobs_domain.ids import task_id
from gbe_jobs_domain.outcomes import TIMEOUT_EXIT_CODE, FailureKind
from gbe_jobs_domain.payloads import RetryPolicy, SecretRef
from gbe_nexus_nats.server import EmbeddedServer
from gbe_operative_http.testing import Received, Reply, Web, json_reply
from gbe_overseer.client import CancelAnswer
from tests.integration.gbe_cli import EXAMPLES, Cli
from tests.integration.site import QUICK, RoleProcess, Site, failure, outcome, output, shell

pytestmark = pytest.mark.server

MIB = 1 << 20
OPEN: dict[str, Any] = {"GBE_HTTP_ALLOW": "127.0.0.1"}


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web() as web:
        yield web


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(EmbeddedServer(), tmp_path) as site:
        await site.start(site.oracle(**QUICK))
        yield site


def http(name: str, url: str, needs: tuple[str, ...] = (), **fields: Any) -> TaskDefinition:
    params = {"url": url, **fields.pop("params", {})}
    return TaskDefinition(name, "http", depends_on=list(needs), params=params, **fields)


def data(task: Any) -> Any:
    edge = outcome(task).data  # type: ignore[union-attr]
    assert isinstance(edge, Inline)
    return edge.decoded()


def peak_memory(role: RoleProcess) -> int:
    """Bytes of the largest resident set the process had."""
    lines = Path(f"/proc/{role.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def once_hanging(then: Reply) -> Callable[[Received], Awaitable[Reply] | Reply]:
    """Never answers the first request, and any other at once."""
    asked = 0

    async def never() -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    def reply(received: Received) -> Awaitable[Reply] | Reply:
        nonlocal asked
        asked += 1
        return never() if asked == 1 else then

    return reply


def stream(size: int) -> AsyncIterator[bytes]:
    """So many bytes of lines."""

    async def generate() -> AsyncIterator[bytes]:
        piece = b"0123456789abcde\n" * 4096
        for _ in range(size // len(piece)):
            yield piece

    return generate()


@pytest.mark.parametrize("count", [1, 20_000])
async def test_whatever_the_size_of_the_answer(site: Site, web: Web, count: int) -> None:
    """P16: `stdin_ref: fetch.body_ref` and paths into the body, for a body inline and one by reference."""
    await site.start(site.operative("shell:2,http:2", **OPEN))
    web.routes["/usage"] = json_reply({"data": [{"name": f"item {n}", "n": n} for n in range(count)]})
    parse = "import json, sys; print(len(json.load(sys.stdin)['data']))"
    job_id = await site.submit(
        shell("render", f"printf '%s' '{json.dumps({'url': web.url + '/usage'})}'"),
        TaskDefinition(
            "fetch", "http", depends_on=["render"], input_from={"url": "render.url"}, params={"method": "GET"}
        ),
        shell(
            "extract",
            f'echo "$NAME"; python3 -c "{parse}"',
            ["fetch"],
            input_from={"stdin_ref": "fetch.body_ref", "NAME": "fetch.body.data.0.name"},
        ),
    )
    assert await site.end(job_id) == "completed", site.logs()
    tasks = await site.tasks(job_id)
    assert output(tasks["extract"]) == ["item 0", str(count)]
    assert ("body_ref" in data(tasks["fetch"])) == (count > 1)


async def test_killed_in_the_middle_of_a_request(site: Site, web: Web) -> None:
    """P14: it runs again on another worker, with the same key for the service."""
    first = site.operative("http:1", **OPEN)
    await site.start(first)
    web.routes["/"] = once_hanging(json_reply({"done": True}))
    job_id = await site.submit(http("post", web.url, params={"method": "POST", "body": "x"}))
    await asyncio.wait_for(web.arrived.wait(), 20)
    await first.kill()
    await asyncio.wait_for(web.left.wait(), 5)
    await site.start(site.operative("http:1", **OPEN))
    assert await site.end(job_id) == "completed"
    (task,) = (await site.history(job_id)).tasks
    assert (data(task)["body"], task.attempts) == ({"done": True}, 2)
    keys = {received.headers["idempotency-key"] for received in web.received}
    assert (len(web.received), keys) == (2, {task_id(job_id, 0)})


async def test_cancelled_in_the_middle_of_a_body(site: Site, web: Web) -> None:
    """P13: the connection is closed at once, and no part of the body stays."""
    await site.start(site.operative("http:1", **OPEN))
    flowing = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for number in range(1_000_000):
            yield b"x" * 65536
            if number == 20:
                flowing.set()
            await asyncio.sleep(0.001)

    web.routes["/"] = lambda received: Reply(200, {"Content-Type": "text/plain"}, endless())
    job_id = await site.submit(http("endless", web.url))
    await asyncio.wait_for(flowing.wait(), 20)
    assert (await site.client.cancel(job_id, "enough")).answer is CancelAnswer.CANCELLED
    await asyncio.wait_for(web.left.wait(), 5)
    await site.history(job_id)
    await site.clean()
    artifacts = await site.transport.artifact_store(ARTIFACT_STORE)
    async with asyncio.timeout(10):
        while await artifacts.keys(job_id):
            await asyncio.sleep(0.02)
    assert (await site.transport.stream_state(f"OBJ_{ARTIFACT_STORE}")).messages == 0


async def test_a_slow_service(site: Site, web: Web) -> None:
    """P6: `timeout_secs` ends it."""
    await site.start(site.operative("http:1", **OPEN))
    web.routes["/"] = once_hanging(Reply())
    job_id = await site.submit(http("slow", web.url, timeout_secs=1))
    assert await site.end(job_id) == "failed"
    (task,) = (await site.history(job_id)).tasks
    failed = failure(task)
    assert (failed.kind, failed.exit_code) == (FailureKind.TIMEOUT, TIMEOUT_EXIT_CODE)
    assert failed.error == "timed out after 1 s"
    if web.received:  # on a busy machine the second may be over before the request is out
        await asyncio.wait_for(web.left.wait(), 5)


async def test_a_busy_service_is_asked_again_when_it_says(site: Site, web: Web) -> None:
    """P12, with `Retry-After`."""
    await site.start(site.operative("http:1", **OPEN))
    answers = [Reply(503, {"Retry-After": "1"}), json_reply({"ok": True})]
    web.routes["/"] = lambda received: answers.pop(0)
    job_id = await site.submit(http("busy", web.url, max_retries=1, retry=RetryPolicy(delay=0)))
    assert await site.end(job_id) == "completed"
    said = [message["message"] for message in site.progress if message["kind"] == "retry"]
    assert said == [f"attempt 1 failed, next in 1 s: GET {web.url}: 503 Service Unavailable"]


async def test_failures_say_what_and_why(site: Site, web: Web) -> None:
    """P6, and a host that allows nothing of its own."""
    await site.start(site.operative("http:2", **OPEN))
    closed = await site.submit(http("closed", f"http://localhost:{web.port}/".replace("localhost", "127.0.0.2")))
    missing = await site.submit(http("missing", f"{web.url}/nothing", max_retries=3))
    wrong = await site.submit(http("wrong", web.url, params={"method": "YEET"}, max_retries=3))
    for job_id in (closed, missing, wrong):
        assert await site.end(job_id) == "failed"
    (task,) = (await site.history(closed)).tasks
    assert "127.0.0.2 (loopback) may not be reached from here" in failure(task).error
    (task,) = (await site.history(missing)).tasks
    assert (data(task)["status"], task.attempts) == (404, 1)
    (task,) = (await site.history(wrong)).tasks
    assert failure(task).kind is FailureKind.REJECTED
    assert [received.path for received in web.received] == ["/nothing"]


@pytest.mark.parametrize(
    "size", [50 * MIB, pytest.param(200 * MIB, marks=pytest.mark.slow), pytest.param(500 * MIB, marks=pytest.mark.slow)]
)
async def test_a_large_body_in_bounded_memory(site: Site, web: Web, size: int) -> None:
    """P6, P15: by reference, whatever its size; and up again from there."""
    worker = site.operative("http:2", **OPEN)
    await site.start(worker)
    web.routes["/large"] = lambda received: Reply(200, {"Content-Type": "text/plain"}, stream(size))
    web.routes["/small"] = Reply(200, {"Content-Type": "text/plain"}, b"x" * 300_000)
    assert await site.end(await site.submit(http("warm", f"{web.url}/small"))) == "completed"
    before = peak_memory(worker)
    job_id = await site.submit(http("large", f"{web.url}/large"))
    assert await site.end(job_id, patience=100) == "completed"
    (task,) = (await site.history(job_id)).tasks
    key = data(task)["body_ref"].removeprefix(f"store://{ARTIFACT_STORE}/")
    info = await (await site.transport.artifact_store(ARTIFACT_STORE)).info(key)
    assert info is not None
    assert info.size == size
    grown = peak_memory(worker) - before
    print(f"{size >> 20} MiB: {grown >> 20} MiB more")
    assert grown < 40 * MIB
    assert output(task)[-1] == "0123456789abcde"


async def test_the_server_is_killed_while_a_body_is_stored(site: Site, web: Web) -> None:
    """The body is asked for again when the bus is back: one attempt, one outcome, the whole body."""
    assert isinstance(site.server, EmbeddedServer)
    await site.start(site.operative("http:1", lease=10, **OPEN))
    flowing, go_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        for number in range(320):
            yield b"x" * 65536
            if number == 160 and not go_on.is_set():
                flowing.set()
                await go_on.wait()

    web.routes["/"] = lambda received: Reply(200, {"Content-Type": "text/plain"}, body())
    job_id = await site.submit(http("large", web.url))
    await asyncio.wait_for(flowing.wait(), 20)
    await site.server.kill()
    go_on.set()
    await site.server.start()
    assert await site.end(job_id, patience=60) == "completed", site.logs()
    (task,) = (await site.history(job_id)).tasks
    assert task.attempts == 1
    key = data(task)["body_ref"].removeprefix(f"store://{ARTIFACT_STORE}/")
    info = await (await site.transport.artifact_store(ARTIFACT_STORE)).info(key)
    assert info is not None
    assert info.size == 320 * 65536


async def test_an_artifact_is_streamed_up(site: Site, web: Web) -> None:
    worker = site.operative("shell:1,http:1", **OPEN)
    await site.start(worker)
    web.routes["/"] = json_reply({"ok": True})
    job_id = await site.submit(
        shell("make", "yes hello world | head -c 20000000"),
        http("send", web.url, ("make",), params={"method": "PUT"}, input_from={"body_ref": "make"}),
    )
    assert await site.end(job_id) == "completed"
    (received,) = web.received
    assert (len(received.body), received.headers["content-length"]) == (20_000_000, "20000000")
    assert received.headers["content-type"] == "text/plain"


async def test_settings_that_make_no_sense_stop_the_process(site: Site) -> None:
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("http:1", {"GBE_HTTP_ALLOW": "10.0.0.0/99"}, "GBE_HTTP_ALLOW"),
        ("http:1", {"GBE_HTTP_PROXY": "nonsense"}, "GBE_HTTP_PROXY"),
        ("llm:1", {"GBE_LLM_BASE_URL": "nonsense"}, "GBE_LLM_BASE_URL"),
    )
    for handles, variables, says in cases:
        role = site.operative(handles, **variables)
        with pytest.raises(AssertionError, match="did not get ready"):
            await role.start()
        assert await role.wait() == 2
        assert says in role.log.read_text()
        assert "Traceback" not in role.log.read_text()


async def test_a_language_model(site: Site, web: Web) -> None:
    """Killed in the middle, asked again by another worker; the key is in no log and in no message."""
    key = "sk-hunter2-and-more"
    host: dict[str, Any] = {"GBE_LLM_BASE_URL": f"{web.url}/v1", "GBE_LLM_API_KEY": key, "GBE_LOG_LEVEL": "debug"}
    answer = {"model": "m", "choices": [{"message": {"content": f"key {key}"}, "finish_reason": "stop"}]}
    web.routes["/v1/chat/completions"] = once_hanging(json_reply(answer))
    spy: list[bytes] = []
    await site.transport.listen(["gbe.>"], lambda subject, body: spy.append(body))
    first = site.operative("llm:1", **host)
    await site.start(first)
    job_id = await site.submit(TaskDefinition("ask", "llm", params={"model": "m", "prompt": "hi"}))
    await asyncio.wait_for(web.arrived.wait(), 20)
    first.send(signal.SIGKILL)
    await first.wait()
    await site.start(site.operative("llm:1,shell:1", **host))
    assert await site.end(job_id) == "completed"
    (task,) = (await site.history(job_id)).tasks
    assert (output(task), task.attempts) == (["key ***"], 2)
    assert len({received.headers["idempotency-key"] for received in web.received}) == 1
    job_id = await site.submit(shell("env", "env; echo end"))
    assert await site.end(job_id) == "completed"
    (task,) = (await site.history(job_id)).tasks
    assert "end" in output(task)
    assert not [line for line in output(task) if "GBE_LLM" in line or key in line]
    assert key not in site.logs()
    assert not [body for body in spy if key.encode() in body]


async def test_a_secret_header_stays_secret(site: Site, web: Web) -> None:
    """P18."""
    web.routes["/"] = lambda received: json_reply(received.headers, 500)
    await site.start(site.operative("http:1", GBE_SECRET_API="tr0ub4dor&3", GBE_LOG_LEVEL="debug", **OPEN))
    spy: list[bytes] = []
    await site.transport.listen(["gbe.>"], lambda subject, body: spy.append(body))
    task = http("t", web.url, params={"bearer_token": SecretRef("api")}, max_retries=1, retry=RetryPolicy(delay=0))
    assert await site.end(await site.submit(task)) == "failed"
    assert [received.headers["authorization"] for received in web.received] == ["Bearer tr0ub4dor&3"] * 2
    assert not [body for body in spy if b"tr0ub4dor" in body]
    assert "tr0ub4dor" not in site.logs()


async def test_the_example(web: Web, tmp_path: Path) -> None:
    """`GBE_HTTP_ALLOW=loopback gbe run docs/examples/http-json.yaml --var base=…`."""
    web.routes["/orders"] = json_reply({"orders": [{"id": "o-1"}, {"id": "o-2"}]})
    web.routes["/notes"] = json_reply({"id": 1}, 201)
    cli = Cli(tmp_path, {"GBE_HTTP_ALLOW": "loopback"})
    example = EXAMPLES / "http-json.yaml"
    done = await asyncio.to_thread(cli.run, "run", example, "--json", "--var", f"base={web.url}")
    assert done.returncode == 0, done.stderr
    tasks = {task["name"]: task for task in json.loads(done.stdout)["tasks"]}
    assert tasks["count"]["output"] == ["first: o-1", "open: 2"]
    orders, note = web.received
    assert orders.query == [("state", "open")]
    assert (note.method, json.loads(note.body)) == ("POST", ["first: o-1", "open: 2"])
    closed = await asyncio.to_thread(Cli(tmp_path).run, "run", example, "--var", f"base={web.url}")
    assert closed.returncode == 1
    assert "GBE_HTTP_ALLOW=127.0.0.1" in closed.stdout + closed.stderr
