"""Functions as tasks: through the worker, in real processes, with real signals."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped
from gbe_jobs_domain.payloads import ProgressKind, RetryPolicy, SecretRef
from gbe_operative_command.testing import runs

pytestmark = pytest.mark.asyncio(loop_scope="module")

Served = Any  # of conftest.py, which can't be imported
Hall = Any

QUICK = RetryPolicy(delay=0.02)


def data(outcome: Any) -> Any:
    assert isinstance(outcome, Completed), outcome
    assert outcome.data is not None
    return outcome.data.decoded()  # type: ignore[union-attr]


async def pids_in(file: Path) -> list[int]:
    async with asyncio.timeout(10):
        while not (file.exists() and file.read_text()):
            await asyncio.sleep(0.005)
    return [int(word) for word in file.read_text().split()]


# --- results ---


async def test_a_function_with_typed_arguments(served: Served) -> None:
    outcome = await served.run("resize-image", path="a.png", width=5)
    assert data(outcome) == {"path": "a.png", "width": 5}
    assert outcome.output == ["resizing a.png"]
    assert data(await served.run("resize-image", path="a.png")) == {"path": "a.png", "width": 800}


async def test_structured_input_along_an_edge(served: Served) -> None:
    first = await served.ended("give", params={"kind": "size"})
    second = await served.ended("area", params={}, input_from={"size": "give"}, inputs={"give": first.outcome.data})
    assert data(second.outcome) == 600


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("none", None),
        ("text", ""),
        ("size", {"width": 1, "height": 600}),
        ("path", "/a"),
        ("set", [1]),
        ("nan", None),
        ("range", [0, 1, 2]),
    ],
)
async def test_whatever_is_json_is_a_result(served: Served, kind: str, value: Any) -> None:
    assert data(await served.run("give", kind=kind)) == value


async def test_a_large_result_goes_by_reference(served: Served) -> None:
    for size in (100_000, 500_000):  # through the socket, and through a file
        outcome = await served.run("give", kind="list", size=size)
        assert isinstance(outcome.data, Ref)
        assert (outcome.data.items, outcome.data.media_type) == (size, "application/json")
        assert outcome.data.size == 4 * size + 1
    assert isinstance((await served.run("give", kind="text", size=3_000_000)).data, Ref)


async def test_what_is_no_json_says_so_and_is_not_tried_again(served: Served) -> None:
    end = await served.ended("unencodable", params={}, max_retries=3, retry=QUICK)
    assert end.attempt == 1
    assert "returned dict, of which something is no JSON: a _MainThread" in end.outcome.error


async def test_a_file_is_a_result_and_a_path_reads_it(served: Served) -> None:
    made = await served.ended("make-file", params={"text": "hello"})
    ref = made.outcome.data
    assert isinstance(ref, Ref)
    assert (ref.size, ref.media_type, ref.key.rsplit("/", 1)[1]) == (5, "text/plain", "data.txt")
    again = {"input_from": {"text_ref": "make-file"}, "inputs": {"make-file": ref}, "params": {}}
    read = await served.ended("read-file", **again)
    assert data(read.outcome) == {"text": "hello", "name": "text_ref"}
    assert data((await served.ended("uri", **again)).outcome) == ref.uri
    assert "there is no such file" in (await served.run("no-file")).error


# --- arguments ---


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"path": "a", "width": "wide"}, "param 'width': found 'wide', expected int"),
        ({"path": "a", "widht": "5"}, "unknown param 'widht': did you mean 'width'?"),
        ({}, "missing param: path"),
        ({"path": "x", "../../etc": "5"}, "unknown param '../../etc'"),
        ({"path": "x", "self": "5"}, "unknown param 'self'"),
        ({"path": "x", "__class__": "5"}, "unknown param '__class__'"),
    ],
)
async def test_params_that_do_not_fit_are_rejected(served: Served, params: dict[str, str], error: str) -> None:
    end = await served.ended("resize-image", params=params, max_retries=3)
    assert isinstance(end.outcome, Failed)
    assert (end.outcome.kind, end.attempt) == (FailureKind.REJECTED, 1)
    assert end.outcome.error.startswith(error)


async def test_hostile_params_are_arguments_and_nothing_else(served: Served) -> None:
    for text in (
        "$(touch /tmp/x)",
        "'; import os",
        "\0",
        "../../../etc/passwd",
        "x" * 500_000,
    ):
        outcome = await served.run("resize-image", path=text)
        found = outcome.data
        assert isinstance(found, Ref) or data(outcome)["path"] == text
    assert "expected Size" in (await served.run("area", size="[" * 100_000)).error


# --- what a function says ---


async def test_what_is_printed(served: Served) -> None:
    outcome = await served.run("speak", out="a\nb", err="oops")
    assert outcome.output == ["a", "b", "no end raw", "by a command"]
    assert outcome.stderr == "oops\n"
    assert (await served.run("noop")).output == [], "each task has its own"


async def test_output_and_progress_while_it_runs(served: Served, tmp_path: Path) -> None:
    hall = served.hall
    task = await served.begun("live", params={"up_to": tmp_path / "go"})
    await hall.until(lambda: any(one.lines == ["here"] for one in hall.progress))
    await hall.until(lambda: any(one.message == "half way" for one in hall.progress))
    (note,) = [one for one in hall.progress if one.message == "half way"]
    assert (note.kind, bytes(note.data)) == (ProgressKind.NOTE, b'{"done":50}')
    (tmp_path / "go").touch()
    assert data((await served.end_of(task)).outcome) == "seen"


async def test_an_exception(served: Served) -> None:
    outcome = await served.run("fail", message="no such colour")
    assert (outcome.error, outcome.kind) == ("ValueError: no such colour", FailureKind.ERROR)
    lines = outcome.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.rsplit(" ", 1)[1] for line in lines if line.startswith("  File")] == ["fail", "inner"]
    assert lines[-1] == "ValueError: no such colour"
    assert (await served.run("fail")).error == "ValueError"


async def test_ways_to_say_how_it_ends(served: Served) -> None:
    assert await served.run("say", how="skip") == Skipped("nothing to do")
    end = await served.ended("say", params={"how": "reject"}, max_retries=3)
    assert (end.outcome, end.attempt) == (Failed("never", FailureKind.REJECTED), 1)
    end = await served.ended("say", params={"how": "retry"}, max_retries=2, retry=QUICK)
    assert (end.outcome, end.attempt) == (Failed("not yet"), 3)


async def test_a_flaky_function_succeeds_on_the_third_attempt(served: Served, tmp_path: Path) -> None:
    """P12."""
    params = {"counter": str(tmp_path / "count"), "times": "2"}
    end = await served.ended("flaky", params=params, max_retries=2, retry=QUICK)
    assert (data(end.outcome), end.attempt) == (3, 3)
    hall, again = served.hall, (end.task_id, ProgressKind.RETRY)
    await hall.until(lambda: len([one for one in hall.progress if (one.task_id, one.kind) == again]) == 2)


async def test_sys_exit_is_as_a_process_has_it(served: Served) -> None:
    assert data(await served.run("leave", code=0)) is None
    outcome = await served.run("leave", code=7)
    assert (outcome.error, outcome.exit_code) == ("sys.exit(7)", 7)


async def test_what_a_function_knows(served: Served) -> None:
    end = await served.ended("who", params={})
    found = data(end.outcome)
    assert found["task_id"] == end.task_id
    assert (found["task_name"], found["task_type"], found["attempt"]) == ("who", "who", 1)
    assert (found["job_id"], found["cwd"]) == (end.job_id, os.getcwd())
    assert found["argv"] == ["-c"]
    assert "SAMPLE_SETTING" in found["environment"]
    assert not {"AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "GBE_SECRET_TOKEN"} & set(found["environment"])
    # 3 is the socket, 4 and 5 the event loop's, the last what listdir has open.
    assert len(found["descriptors"]) <= 8, found["descriptors"]


async def test_a_directory_for_each_attempt(served: Served) -> None:
    first, second = data(await served.run("scratch", word="a")), data(await served.run("scratch", word="b"))
    assert (first[1:], second[1:]) == (["a"], ["b"])
    assert first[0] != second[0]
    assert not Path(first[0]).exists()
    assert data(await served.run("who"))["cwd"] == os.getcwd(), "a chdir is undone"


async def test_secrets_are_masked(served: Served) -> None:
    """P18."""
    end = await served.ended("tell", params={"secret": SecretRef("token")}, timeout_secs=30)
    assert data(end.outcome) == {"masked": "<***>", "plain": "***"}
    assert end.outcome.output == ["the secret is ***"]
    assert end.outcome.stderr == "and again ***\n"
    bad = await served.ended("tell", params={"secret": "x", "size": SecretRef("token")})
    assert bad.outcome.error == "param 'size': found a secret, expected int"
    assert "tok-123456" not in repr(served.hall.progress) + repr(served.hall.ended)


# --- processes ---


async def test_a_process_is_used_again_and_replaced_in_time(served: Served) -> None:
    pids = [data(await served.run("who"))["pid"] for _ in range(120)]
    changes = [n for n in range(1, len(pids)) if pids[n] != pids[n - 1]]
    assert len(changes) >= 2
    assert changes[1] - changes[0] == 50, "recycle_after=50"


async def test_a_process_that_dies_fails_its_task_and_is_replaced(served: Served) -> None:
    before = data(await served.run("who"))["pid"]
    outcome = await served.run("die")
    assert outcome.error == "the process of die ended before the function did: killed by SIGKILL (out of memory?)"
    assert (outcome.kind, outcome.exit_code) == (FailureKind.ERROR, 128 + signal.SIGKILL)
    assert outcome.output == ["last words"]
    assert data(await served.run("who"))["pid"] != before
    segfault = await served.run("die", number=int(signal.SIGSEGV))
    assert "killed by SIGSEGV" in segfault.error
    assert "exit code 3" in (await served.run("vanish")).error


async def test_an_idle_process_that_is_killed_harms_no_task(served: Served) -> None:
    pid = data(await served.run("who"))["pid"]
    os.kill(pid, signal.SIGKILL)
    outcome = await served.ended("resize-image", params={"path": "a"}, max_retries=1, retry=QUICK)
    assert data(outcome.outcome)["path"] == "a"


async def test_a_timeout_ends_the_whole_group(served: Served, tmp_path: Path) -> None:
    """P12."""
    await served.run("noop")  # the time is for the function, not for the start of a process
    end = await served.ended("wait", params={"pid_file": str(tmp_path / "pids")}, timeout_secs=0.5)
    assert (end.outcome.kind, end.outcome.exit_code) == (FailureKind.TIMEOUT, 124)
    assert end.outcome.output == ["up", "cleaned up"]
    assert not [pid for pid in await pids_in(tmp_path / "pids") if runs(pid)]


async def test_a_function_that_will_not_end_is_killed(served: Served, tmp_path: Path) -> None:
    params = {"pid_file": str(tmp_path / "pids"), "how": "stubborn"}
    task = await served.begun("wait", params=params)
    pids = await pids_in(tmp_path / "pids")
    await served.hall.cancel(task)
    assert (await served.end_of(task)).outcome.kind is FailureKind.CANCELLED
    assert not [pid for pid in pids if runs(pid)]


async def test_a_cancel_lets_finally_run(served: Served, tmp_path: Path) -> None:
    """P13."""
    task = await served.begun("wait-async", params={"pid_file": tmp_path / "pids"})
    (pid,) = await pids_in(tmp_path / "pids")
    await served.hall.cancel(task)
    end = await served.end_of(task)
    assert (end.outcome.kind, end.outcome.error) == (FailureKind.CANCELLED, "cancelled: test")
    assert end.outcome.output == ["up", "cleaned up"]
    assert not runs(pid)


async def test_a_cancel_at_any_moment_leaves_nothing(served: Served, tmp_path: Path) -> None:
    """P13: before the start, while a process starts, in the middle, and about when it ends by itself."""
    hall = served.hall
    moments = [n / 1000 for n in range(0, 60, 2)]
    tasks = [
        hall.task(f"t{n}", "busy" if n % 2 else "wait", params=params)
        for n in range(len(moments))
        for params in [{"seconds": "0.02"} if n % 2 else {"pid_file": str(tmp_path / str(n))}]
    ]
    for task, moment in zip(tasks, moments, strict=True):
        await hall.queue(task)
        await asyncio.sleep(moment)
        await hall.cancel(task)
    ended = [await served.end_of(task) for task in tasks]
    assert {end.outcome.kind for end in ended if isinstance(end.outcome, Failed)} == {FailureKind.CANCELLED}
    assert data(await served.run("resize-image", path="a"))["path"] == "a", "all slots are free"
    await hall.emptied()
    left = [int(pid) for file in tmp_path.iterdir() for pid in file.read_text().split()]
    assert not [pid for pid in left if runs(pid)]


async def test_nothing_of_one_task_goes_on_beside_the_next(served: Served) -> None:
    assert data(await served.run("linger")) == 2
    assert data(await served.run("linger")) == 2
    clinging = data(await served.run("cling"))
    assert data(await served.run("who"))["pid"] != clinging


async def test_what_a_function_spoils_the_next_does_not_find(served: Served) -> None:
    replaced = data(await served.run("spoil", what="replace"))
    assert (await served.run("resize-image", path="a")).output == ["resizing a"]
    assert data(await served.run("who"))["pid"] == replaced
    closed = data(await served.run("spoil", what="close"))
    assert (await served.run("resize-image", path="a")).output == ["resizing a"]
    assert data(await served.run("who"))["pid"] != closed
    await served.run("spoil", what="ignore")
    assert (await served.ended("wait", params={"pid_file": os.devnull}, timeout_secs=0.5)).outcome.output[
        -1
    ] == "cleaned up"


async def test_output_that_a_function_redirected_or_closed_is_the_next_ones_again(served: Served) -> None:
    for what in ("descriptors", "redirect"):
        spoilt = data(await served.run("spoil", what=what))
        assert (await served.run("resize-image", path="a")).output == ["resizing a"]
        assert data(await served.run("who"))["pid"] != spoilt


async def test_a_process_that_a_function_forked_serves_nothing(served: Served, tmp_path: Path) -> None:
    """It has the same socket: two would take each other's tasks, and give each other's answers."""
    for end in ("return", "raise"):
        pid_file = tmp_path / end
        assert data(await served.run("fork", pid_file=pid_file, end=end)) == "parent"
        (forked,) = await pids_in(pid_file)
        async with asyncio.timeout(10):
            while runs(forked):
                await asyncio.sleep(0.005)
    for _ in range(5):
        assert data(await served.run("who"))["pid"] != forked


async def test_a_forked_process_is_terminated_as_any_other(served: Served) -> None:
    assert data(await served.run("fork-and-terminate")) == -signal.SIGTERM


async def test_a_function_that_says_too_much_or_nonsense(served: Served) -> None:
    assert isinstance(await served.run("spoil", what="progress"), Completed)
    assert len((await served.run("spoil", what="message")).error) <= 1 << 16
    interfering = await served.run("spoil", what="interfere")
    assert (interfering.kind, interfering.error) == (
        FailureKind.ERROR,
        "the process of spoil said what no process says, and was ended",
    )


async def test_many_at_once(served: Served) -> None:
    hall = served.hall
    tasks = [hall.task(f"t{n}", "resize-image", params={"path": str(n)}) for n in range(500)]
    await hall.queue(*tasks)
    ended = [await served.end_of(task) for task in tasks]
    assert {data(end.outcome)["path"] for end in ended} == {str(n) for n in range(500)}
    assert all(end.outcome.output == [f"resizing {data(end.outcome)['path']}"] for end in ended)


# --- much output ---


async def test_much_output_goes_by_reference(served: Served) -> None:
    """P15, in short: 20 MB."""
    outcome = await served.run("shout", lines=20_000)
    assert data(outcome) == 20_000
    assert outcome.output[0].startswith(f"[… {20_000_000 - 65_000} bytes omitted, all are in store://")
    assert sum(map(len, outcome.output)) < 70_000
    assert outcome.result_ref is not None
    info = await served.hall.transport.artifact_store("gbe-artifacts")
    found = await info.info(outcome.result_ref.split("/", 3)[3])
    assert found is not None
    assert found.size == 20_000_000


@pytest.mark.slow
async def test_500_mb_of_output_take_no_memory(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """P15. What the memory transport would hold is not stored here."""
    from gbe_operative.workshop import Workshop

    async def spill(self: Any, execution: Any, source: Path, name: str, media_type: str) -> Ref:
        return Ref("gbe-artifacts", "k", source.stat().st_size, "0" * 64, media_type)

    monkeypatch.setattr(Workshop, "spill", spill)
    await served.run("shout", lines=20_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = await served.run("shout", lines=500_000)
    assert data(outcome) == 500_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kB"
