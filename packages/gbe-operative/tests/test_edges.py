"""Edge data at its two ends: hard limits, digests, and what a task declares of what it takes and hands on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gbe_jobs_domain.edges import ARTIFACT_STORE, Inline, Ref, inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped, TaskOutcome
from gbe_jobs_domain.payloads import OnLost, RetryPolicy, SecretRef, encode
from gbe_jobs_domain.records import JournalRecord, OutcomeRecord
from gbe_nexus import ArtifactStore, Transport
from gbe_operative.contract import Execution, Operative
from gbe_operative.mock import Behaviour, MockOperative
from gbe_operative.schema_checks import CheckFailed, InvalidSchema, SchemaChecks
from gbe_operative.secrets import Secrets
from gbe_operative.settings import WorkerSettings

Hall = Any  # `gbe_operative.testing.Hall`: what it returns is a union, which each test knows better

ITEMS: dict[str, Any] = {
    "properties": {"items": {"items": {"properties": {"price": {"type": "number"}}}}},
    "required": ["items"],
}
CATASTROPHE: dict[str, Any] = {"properties": {"x": {"pattern": "^(a+)+$"}}}
BACKTRACKS = {"x": "a" * 40 + "!"}

Body = Callable[[Execution], Awaitable[TaskOutcome] | TaskOutcome]


class Doing(Operative):
    """Executes a function."""

    def __init__(self, body: Body) -> None:
        self._body = body

    @property
    def handles(self) -> tuple[str, ...]:
        return ("mock",)

    def execute(self, execution: Execution) -> Awaitable[TaskOutcome] | TaskOutcome:
        return self._body(execution)


def raw(schema: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(schema))


async def one_end(hall: Hall, **fields: Any) -> Any:
    """Queue a task and wait for its end."""
    count = len(hall.ended)
    await hall.queue(hall.task(**fields))
    ends = await hall.ends(count + 1)
    return ends[-1]


def settings(**changes: Any) -> WorkerSettings:
    return WorkerSettings(ack_wait=5, moment=0.02, stop_grace=0.05, interrupt_grace=2, **changes)


@pytest.fixture
async def store(transport: Transport) -> ArtifactStore:
    return await transport.artifact_store(ARTIFACT_STORE)


async def stored(hall: Hall, store: ArtifactStore, data: bytes, media_type: str = "application/json") -> Ref:
    kept = await store.put(f"{hall.job_id}/up/1/data", data, media_type=media_type)
    return Ref(ARTIFACT_STORE, kept.key, kept.size, kept.sha256, kept.media_type)


# --- hard limits: the step, what of it, how large, how large it may be ---


async def test_data_beyond_the_hard_limit_fails_the_task_in_words(hall: Hall) -> None:
    done = Completed(output=["made it"], data=inline("x" * 5_000))
    operative = MockOperative(behaviours={"big": Behaviour(outcome=done)})
    await hall.worker(operative, settings=settings(inline_limit=1_000, data_limit=4_000)).start()
    ended = await one_end(hall, name="big", max_retries=3)
    assert ended.outcome == Failed(
        error="task 'big': data is 5,002 bytes, the limit is 4,000; store it as an artifact and hand on its reference",
        output=["made it"],
    )
    assert operative.runs["big"] == 1, "another attempt makes it no smaller"


async def test_a_failure_keeps_its_own_error_beside_it(hall: Hall) -> None:
    broken = Failed(error="exploded", data=inline("x" * 5_000))
    await hall.worker(behaviours={"big": Behaviour(outcome=broken)}, settings=settings(data_limit=4_000)).start()
    outcome = (await one_end(hall, name="big")).outcome
    assert outcome.error.startswith("exploded\ntask 'big': data is 5,002 bytes, the limit is 4,000")
    assert outcome.data is None


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("ends", [Completed, lambda data: Failed(error="exploded", data=data)])
async def test_deeply_nested_data_is_handed_on_by_reference(
    hall: Hall, store: ArtifactStore, awaits: bool, ends: Callable[..., TaskOutcome]
) -> None:
    """Within a report, a journal record and a reader's call stack it would be too deep for some of them."""
    text = b"[" * 900 + b"]" * 900
    outcome = ends(data=Inline(msgspec.Raw(text), 1))

    async def later(execution: Execution) -> TaskOutcome:
        return outcome

    await hall.worker(Doing(later if awaits else lambda execution: outcome)).start()
    data = (await one_end(hall)).outcome.data
    assert isinstance(data, Ref)
    assert (data.media_type, data.items) == ("application/json", 1)
    assert await store.read(data.key, limit=10_000) == text


@pytest.mark.parametrize("kind", ["bytes", "file", "stream"])
async def test_an_artifact_beyond_the_hard_limit_fails_the_task_in_words(
    hall: Hall, store: ArtifactStore, tmp_path: Path, kind: str
) -> None:
    content = b"x" * 5_000
    (tmp_path / "out").write_bytes(content)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1_000):
            yield content[start : start + 1_000]

    async def body(execution: Execution) -> TaskOutcome:
        sources: dict[str, bytes | Path | AsyncIterator[bytes]] = {"bytes": content, "file": tmp_path / "out"}
        source = sources.get(kind) or chunks()
        return Completed(data=await execution.spill(source, "report.bin"))

    await hall.worker(Doing(body), settings=settings(artifact_limit=4_999)).start()
    outcome = (await one_end(hall, name="big", max_retries=2)).outcome
    assert outcome.error == "task 'big': artifact 'report.bin' is 5,000 bytes, the limit is 4,999"
    assert await store.keys() == [], "nothing is half there"


async def test_what_is_too_large_to_open_says_how_else(hall: Hall, store: ArtifactStore) -> None:
    ref = await stored(hall, store, b'{"rows":"' + b"x" * 5_000 + b'"}')
    await hall.worker(settings=settings(fetch_limit=4_000)).start()
    outcome = (await one_end(hall, input_from={"R": "up.rows"}, inputs={"up": ref})).outcome
    assert outcome.error == (
        "input 'up.rows': 5011 bytes are too large to open (limit 4000 bytes); "
        "take it by reference, with a param whose name ends in _ref"
    )


# --- digests ---


@pytest.mark.parametrize("param", ["X", "x_ref"])
@pytest.mark.parametrize("media_type", ["application/json", "text/plain"])
async def test_an_artifact_that_is_not_what_was_handed_on_is_refused(
    hall: Hall, store: ArtifactStore, param: str, media_type: str
) -> None:
    """Its own digest is right: somebody wrote another one under its key."""
    ref = await stored(hall, store, b'{"paid":1}', media_type)
    await store.put(ref.key, b'{"paid":2}', media_type=media_type)
    operative = MockOperative(behaviours={"t": Behaviour()})
    await hall.worker(operative).start()
    outcome = (await one_end(hall, input_from={param: "up"}, inputs={"up": ref})).outcome
    assert outcome.kind is FailureKind.REJECTED
    assert f"input 'up': {ref.uri} is not what was handed on: its sha256 is " in outcome.error
    assert operative.runs["t"] == 0


@pytest.mark.parametrize("param", ["X", "x_ref"])
async def test_a_damaged_artifact_is_refused(hall: Hall, store: Any, param: str) -> None:
    ref = await stored(hall, store, b'{"paid":1}')
    chunks = store._held[ref.key].chunks
    chunks[0] = bytes([chunks[0][0] ^ 1]) + chunks[0][1:]
    await hall.worker().start()
    outcome = (await one_end(hall, input_from={param: "up.paid"}, inputs={"up": ref})).outcome
    assert outcome.kind is FailureKind.REJECTED
    assert "sha256" in outcome.error


async def test_a_reference_to_what_is_gone_is_refused_before_the_start(hall: Hall) -> None:
    gone = Ref(ARTIFACT_STORE, f"{hall.job_id}/none", 1, "0" * 64, "text/plain")
    operative = MockOperative(behaviours={"t": Behaviour()})
    await hall.worker(operative).start()
    outcome = (await one_end(hall, input_from={"x_ref": "up"}, inputs={"up": gone})).outcome
    assert outcome.error == f"input 'up': there is no artifact {gone.uri} (any more)"
    assert operative.runs["t"] == 0


# --- output_schema ---


async def test_data_that_matches_is_handed_on(hall: Hall) -> None:
    value = {"items": [{"price": 1.5}, {"price": 2}]}
    await hall.worker(behaviours={"t": Behaviour(data=value)}).start()
    outcome = (await one_end(hall, output_schema=raw(ITEMS))).outcome
    assert isinstance(outcome, Completed)
    assert outcome.data == inline(value)


async def test_data_that_does_not_match_fails_the_task_with_the_path(hall: Hall) -> None:
    done = Completed(
        output=["four items"], stderr="hm", data=inline({"items": [{"price": n} for n in (1, 2, 3, "abc")]})
    )
    await hall.worker(behaviours={"t": Behaviour(outcome=done)}).start()
    ended = await one_end(hall, output_schema=raw(ITEMS))
    assert ended.outcome == Failed(
        error="output does not match output_schema at $.items[3].price: 'abc' is not of type 'number'",
        output=["four items"],
        stderr="hm",
    )


async def test_another_attempt_may_hand_on_better_data(hall: Hall) -> None:
    async def body(execution: Execution) -> TaskOutcome:
        return Completed(data=inline({"items": [] if execution.attempt == 2 else None}))

    await hall.worker(Doing(body)).start()
    schema = raw({"properties": {"items": {"type": "array"}}})
    ended = await one_end(hall, output_schema=schema, max_retries=1, retry=RetryPolicy(delay=0.01))
    assert isinstance(ended.outcome, Completed)
    assert ended.attempt == 2
    said = [progress.message for progress in hall.progress if progress.kind == "retry"]
    assert "output does not match output_schema at $.items" in said[0]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Completed(), "output does not match output_schema at $: None is not of type 'object'"),
        (Skipped("not today"), None),
        (Failed(error="boom", data=inline([])), "boom"),
    ],
)
async def test_only_what_is_handed_on_is_checked(hall: Hall, outcome: TaskOutcome, error: str | None) -> None:
    await hall.worker(behaviours={"t": Behaviour(outcome=outcome)}).start()
    ended = await one_end(hall, output_schema=raw({"type": "object"}))
    assert getattr(ended.outcome, "error", None) == error


@pytest.mark.parametrize(
    ("content", "media_type", "says"),
    [
        (b'{"items":[{"price":1}]}', "application/json", None),
        (b'{"items":[{"price":"x"}]}', "application/json", "at $.items[0].price: 'x' is not of type 'number'"),
        (b"one\ntwo\n", "text/plain", "at $: 'items' is a required property"),
        (b"{", "application/json", "it is not JSON"),
        (b"\x89PNG", "image/png", "the artifact is image/png; only JSON and text can be opened"),
        (b'"' + b"x" * 5_000 + b'"', "application/json", "/1/out) is 5,002 bytes, the limit is 4,000"),
    ],
)
async def test_data_by_reference_is_fetched_to_be_checked(
    hall: Hall, content: bytes, media_type: str, says: str | None
) -> None:
    async def body(execution: Execution) -> TaskOutcome:
        return Completed(data=await execution.spill(content, "out", media_type))

    await hall.worker(Doing(body), settings=settings(fetch_limit=4_000)).start()
    schema = raw({**ITEMS, "anyOf": [{"type": "array"}, {"required": ["items"]}]} if says is None else ITEMS)
    if media_type == "text/plain":
        schema = raw({"items": {"enum": ["one"]}, "type": "array"})
        says = "at $[1]: 'two' is not one of ['one']"
    outcome = (await one_end(hall, output_schema=schema)).outcome
    if says is None:
        assert isinstance(outcome, Completed)
    else:
        assert says in outcome.error


async def test_a_large_value_is_checked_before_it_becomes_a_reference(hall: Hall) -> None:
    value = {"items": [{"price": 1}] * 30_000 + [{"price": "last"}]}
    await hall.worker(behaviours={"t": Behaviour(data=value)}).start()
    outcome = (await one_end(hall, output_schema=raw(ITEMS))).outcome
    assert outcome.error.endswith("at $.items[30000].price: 'last' is not of type 'number'")


async def test_a_schema_that_is_none_is_found_before_the_work_is_done(hall: Hall) -> None:
    operative = MockOperative(behaviours={"t": Behaviour()})
    await hall.worker(operative).start()
    for field, schema, says in [
        ("output_schema", {"type": "objct"}, "output_schema is no JSON Schema: at #/type: 'objct' is not a type"),
        ("input_schema", {"$ref": "http://127.0.0.1:9/"}, "input_schema is no JSON Schema: at #/$ref: 'http://127.0"),
        ("output_schema", [], "output_schema is no JSON Schema: it is no object"),
    ]:
        outcome = (await one_end(hall, **{field: raw(schema)})).outcome
        assert outcome.kind is FailureKind.REJECTED
        assert outcome.error.startswith(says)
    assert operative.runs["t"] == 0


# --- input_schema ---


async def test_params_are_checked_as_the_values_they_were(hall: Hall, store: ArtifactStore) -> None:
    """What comes along an edge is a value there, though the command gets a string."""
    operative = MockOperative(behaviours={"t": Behaviour()})
    await hall.worker(operative).start()
    big = await stored(hall, store, b'{"rows":[1,2,3]}')
    schema = raw(
        {
            "properties": {
                "STATIC": {"const": "5"},
                "COUNT": {"type": "integer", "minimum": 1},
                "ROWS": {"maxItems": 3},
                "DOC": {"required": ["count"]},
                "body_ref": {"properties": {"rows": {"minItems": 3}}, "required": ["rows"]},
                "doc_ref": {"type": "object"},
            },
            "required": ["STATIC", "COUNT", "ROWS", "DOC", "body_ref", "doc_ref"],
            "additionalProperties": {"type": "string", "pattern": "^store://"},
        }
    )
    ended = await one_end(
        hall,
        params={"STATIC": "5"},
        input_from={
            "COUNT": "up.count",
            "DOC": "up",
            "doc_ref": "up",
            "ROWS": "big.rows",
            "body_ref": "big",
            "unnamed_ref": "big",
        },
        inputs={"up": inline({"count": 2}), "big": big},
        input_schema=schema,
    )
    assert ended.outcome == Completed()
    assert operative.seen["t"]["COUNT"] == "2"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"params": {"n": "5"}}, "at $.n: '5' is not of type 'integer'"),
        ({}, "at $: 'n' is a required property"),
        (
            {"input_from": {"n": "up.a"}, "inputs": {"up": inline({"a": [1]})}},
            "at $.n: [1] is not of type 'integer'",
        ),
    ],
)
async def test_params_that_do_not_match_reject_the_task(hall: Hall, fields: dict[str, Any], says: str) -> None:
    operative = MockOperative(behaviours={"t": Behaviour()})
    await hall.worker(operative).start()
    schema = raw({"properties": {"n": {"type": "integer"}}, "required": ["n"]})
    outcome = (await one_end(hall, input_schema=schema, max_retries=3, **fields)).outcome
    assert outcome == Failed(error=f"input does not match input_schema {says}", kind=FailureKind.REJECTED)
    assert operative.runs["t"] == 0


async def test_a_reference_too_large_to_check_is_only_a_reference_unless_the_schema_names_it(
    hall: Hall, store: ArtifactStore
) -> None:
    big = await stored(hall, store, b"x" * 5_000, "text/plain")
    await hall.worker(settings=settings(fetch_limit=4_000)).start()
    edge = {"input_from": {"stdin_ref": "up"}, "inputs": {"up": big}}
    assert (await one_end(hall, input_schema=raw({"minProperties": 1}), **edge)).outcome == Completed()
    outcome = (await one_end(hall, input_schema=raw({"properties": {"stdin_ref": {}}}), **edge)).outcome
    assert outcome.kind is FailureKind.REJECTED
    assert "5000 bytes are too large to open" in outcome.error


async def test_a_violation_quotes_no_secret(hall: Hall) -> None:
    await hall.worker(secrets=Secrets({"GBE_SECRET_TOKEN": "tr0ub4dor\x1b3" * 100})).start()
    schemas: list[object] = [{"properties": {"T": {"maxLength": 5}}}, {"maxProperties": 0}, {"not": {}}]
    for schema in schemas:
        fields: dict[str, Any] = {"params": {"T": SecretRef("token")}, "input_schema": raw(schema)}
        error = (await one_end(hall, **fields)).outcome.error
        assert "tr0" not in error
        assert error.endswith(" is not met")


# --- hostile schemas ---


async def test_a_pattern_that_backtracks_is_ended_and_holds_nobody_up(hall: Hall) -> None:
    operative = MockOperative(behaviours={"bad": Behaviour(data=BACKTRACKS), "good": Behaviour(data={"x": "aa"})})
    await hall.worker(operative, settings=settings(check_limit=0.5)).start()
    await hall.queue(
        hall.task("bad", output_schema=raw(CATASTROPHE), max_retries=3),
        hall.task("good", output_schema=raw(CATASTROPHE)),
        hall.task("plain"),
    )
    ends = {ended.task_name: ended for ended in await hall.ends(3)}
    assert [ended.task_name for ended in hall.ended][-1] == "bad", "the others did not wait for it"
    assert ends["bad"].outcome.error == "output can't be checked against output_schema: it takes more than 0.5 s"
    assert operative.runs["bad"] == 1, "another attempt would take as long"
    assert isinstance(ends["good"].outcome, Completed)


async def test_a_schema_that_doubles_at_each_step_is_ended(hall: Hall) -> None:
    doubling: dict[str, Any] = {"a0": {"type": "object"}}
    for level in range(1, 50):
        below = {"$ref": f"#/$defs/a{level - 1}"}
        doubling[f"a{level}"] = {"allOf": [below, below]}
    await hall.worker(settings=settings(check_limit=0.5)).start()
    outcome = (await one_end(hall, input_schema=raw({"$defs": doubling, "$ref": "#/$defs/a49"}))).outcome
    assert outcome.kind is FailureKind.REJECTED
    assert outcome.error == "input can't be checked against input_schema: it takes more than 0.5 s"


async def test_a_schema_in_circles_is_told_so(hall: Hall) -> None:
    await hall.worker().start()
    outcome = (await one_end(hall, input_schema=raw({"$ref": "#"}))).outcome
    assert "the schema refers to itself without end" in outcome.error


# --- the processes that check ---


@pytest.fixture
async def checks() -> AsyncIterator[SchemaChecks]:
    made = SchemaChecks(5.0)
    yield made
    await made.close()


def pids(checks: SchemaChecks) -> list[int]:
    return [child._process.pid for child in checks._children]


async def test_nobody_who_declares_nothing_pays(hall: Hall) -> None:
    worker = hall.worker()
    await worker.start()
    await one_end(hall)
    assert pids(worker._shop.checks._schemas) == []


async def test_a_process_is_used_again(checks: SchemaChecks) -> None:
    for _ in range(3):
        assert await checks.violation(b'{"type":"number"}', b'"x"') == "at $: 'x' is not of type 'number'"
    with pytest.raises(InvalidSchema):
        await checks.check_schema(b'{"type":1}')
    with pytest.raises(CheckFailed, match="not JSON"):
        await checks.violation(b"{}", b"{")
    assert len(pids(checks)) == 1


async def test_one_that_was_killed_while_idle_is_replaced(checks: SchemaChecks) -> None:
    assert await checks.violation(b"{}", b"1") is None
    (pid,) = pids(checks)
    os.kill(pid, signal.SIGKILL)
    assert await checks.violation(b"{}", b"1") is None
    assert pids(checks) != [pid]


async def test_a_check_that_is_given_up_leaves_no_process(checks: SchemaChecks) -> None:
    slow = asyncio.create_task(checks.violation(msgspec.json.encode(CATASTROPHE), msgspec.json.encode(BACKTRACKS)))
    async with asyncio.timeout(10):
        while not pids(checks):
            await asyncio.sleep(0.005)
    (pid,) = pids(checks)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    await checks.close()
    assert not Path(f"/proc/{pid}").exists()


async def test_a_large_value_passes_through(checks: SchemaChecks) -> None:
    value = msgspec.json.encode(["x" * 100] * 50_000)
    assert await checks.violation(b'{"maxItems":60000}', value) is None


@pytest.mark.slow
async def test_memory_is_bounded(checks: SchemaChecks) -> None:
    """Fifty megabytes of `[],` are some gigabytes of lists."""
    with pytest.raises(CheckFailed, match=r"memory|more than 5 s|ended"):
        await checks.violation(b'{"uniqueItems":true}', b"[" + b"[{},{}]," * 8_000_000 + b"0]")


async def test_it_ends_with_its_worker(tmp_path: Path) -> None:
    """Also in the middle of a check, and also where the worker is killed."""
    program = tmp_path / "worker.py"
    program.write_text(
        "import asyncio, msgspec, sys\n"
        "from gbe_operative.schema_checks import SchemaChecks\n"
        "async def main():\n"
        "    checks = SchemaChecks(1.0)\n"
        "    await checks.violation(b'{}', b'1')\n"
        "    (child,) = checks._children\n"
        "    print(child._process.pid, flush=True)\n"
        "    await checks.violation(b'{\"pattern\":\"^(a+)+$\"}', b'\"' + b'a' * 40 + b'!\"')\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    pid = int(await worker.stdout.readline())
    worker.kill()
    await worker.wait()
    until = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < until, "it outlived its worker"
        await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- what is left behind ---


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        (Completed(), 1),
        (Failed(error="boom"), 0),
        (Failed(error="boom, see store://gbe-artifacts/{key}"), 1),
        (Failed(error="boom", data="ref"), 1),  # type: ignore[arg-type]
    ],
)
async def test_a_failure_keeps_of_what_it_stored_only_what_it_speaks_of(
    hall: Hall, store: ArtifactStore, outcome: Any, left: int
) -> None:
    async def body(execution: Execution) -> TaskOutcome:
        ref = await execution.spill(b"x" * 10, "out.txt")
        if isinstance(outcome, Completed):
            return outcome
        data = ref if outcome.data else None
        return Failed(error=outcome.error.replace("{key}", ref.key), data=data)

    worker = hall.worker(Doing(body))
    await worker.start()
    await one_end(hall)
    await hall.until(lambda: not worker._lanes["mock"].attempts)
    assert len(await store.keys()) == left


async def test_cancelled_and_repeated_attempts_leave_nothing(hall: Hall, store: ArtifactStore) -> None:
    stored_it = asyncio.Event()

    async def body(execution: Execution) -> TaskOutcome:
        await execution.spill(b"x" * 10, "out.txt")
        if execution.attempt == 1:
            return Failed("again")
        stored_it.set()
        await asyncio.Event().wait()
        return Completed()

    worker = hall.worker(Doing(body))
    await worker.start()
    task = hall.task(max_retries=1, retry=RetryPolicy(delay=0.01))
    await hall.queue(task)
    await asyncio.wait_for(stored_it.wait(), 5)
    assert await store.keys() == [f"{hall.job_id}/{task.task_id}/2/out.txt"]
    await hall.cancel(task)
    await hall.ends()
    await hall.until(lambda: not worker._lanes["mock"].attempts)
    assert await store.keys() == []


async def test_two_starts_of_an_attempt_do_not_write_over_each_other(hall: Hall, store: ArtifactStore) -> None:
    """A worker that stood still may wake up while another has its task."""

    async def body(execution: Execution) -> TaskOutcome:
        return Completed(data=await execution.spill(b"x", "out.txt"))

    task = hall.task()
    notes = await hall.transport.state_store("gbe-notes")
    await notes.put(task.task_id, msgspec.json.encode({"starts": 1, "running": True}))
    await hall.queue(task)
    worker = hall.worker(Doing(body), settings=WorkerSettings(ack_wait=0.3, stop_grace=0.05))
    await worker.start()
    # A first delivery: somebody else's start may be under way. When its lease is over, it comes again.
    (ended,) = await hall.ends()
    assert worker.metrics.counter("tasks_let_go").value == 1
    assert (ended.attempt, ended.starts) == (1, 2)
    assert await store.keys() == [f"{hall.job_id}/{task.task_id}/1.2/out.txt"]


async def test_what_is_given_out_as_new_while_it_runs_runs_once(hall: Hall) -> None:
    """A server that was killed forgets deliveries. What must not run twice neither runs again nor counts as lost."""
    release, runs = asyncio.Event(), 0

    async def body(execution: Execution) -> TaskOutcome:
        nonlocal runs
        runs += 1
        await release.wait()
        return Completed()

    quick = WorkerSettings(ack_wait=0.5, stop_grace=0.05)
    one, other = hall.worker(Doing(body), slots=1, settings=quick), hall.worker(Doing(body), slots=1, settings=quick)
    await one.start()
    task = hall.task(on_lost=OnLost.FAIL)
    await hall.queue(task)
    await hall.until(lambda: runs == 1)
    await other.start()
    await hall.queue(task)  # the same once more, as a first delivery
    await hall.until(lambda: other.metrics.counter("tasks_let_go").value == 1)
    release.set()
    (ended,) = await hall.ends()
    outcome = msgspec.Raw(encode(ended.outcome))
    await hall.record(JournalRecord("x", outcomes=[OutcomeRecord(0, "completed", 1, 1, "w", 0, 0, outcome)]))
    await hall.until(lambda: other.metrics.counter("tasks_dropped").value + one.metrics.counter("tasks_dropped").value)
    assert runs == 1
    assert [end.outcome for end in hall.ended] == [Completed()]
