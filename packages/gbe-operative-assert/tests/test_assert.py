"""Acceptance scenario P8, and P13 and P15 as they are for assertions."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.edges import Inline, Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_operative.contract import OperativeError
from gbe_operative_command.testing import runs

Asserts = Any  # of conftest.py, which can't be imported


async def test_as_expected(asserts: Asserts) -> None:
    outcome = await asserts.run("echo hello", expect_stdout="hello")
    assert outcome.output == ["hello"]
    assert outcome.data.decoded() == ["hello"]
    outcome = await asserts.run(
        """echo '{"status": "ok", "count": 3}'; echo careful >&2; exit 3""",
        expect_exit_code="3",
        expect_stdout_json='{"status": "ok"}',
        expect_stdout_regex=r'"count": \d\b',
        expect_stdout_contains="count",
        expect_stderr="careful",
    )
    assert isinstance(outcome.data, Inline)
    assert isinstance(outcome, Completed), "an exit code that was expected is none to fail for"
    assert outcome.data.decoded() == {"status": "ok", "count": 3}
    assert outcome.stderr == "careful\n"


async def test_only_a_command_has_to_succeed(asserts: Asserts) -> None:
    assert isinstance(await asserts.run("true"), Completed)
    failed = await asserts.run("echo oops >&2; exit 2")
    assert (failed.exit_code, failed.error) == (2, "exit code 2, expected 0\noops")


async def test_a_wrong_output_has_a_diff(asserts: Asserts) -> None:
    outcome = await asserts.run("echo goodbye; echo world", expect_stdout="hello\nworld\n")
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.ERROR
    assert outcome.exit_code == 1
    assert outcome.output == ["goodbye", "world"]
    assert outcome.error.splitlines() == [
        "stdout is not what was expected",
        "--- expected",
        "+++ actual",
        "@@ -1,2 +1,2 @@",
        "-hello",
        "+goodbye",
        " world",
    ]


async def test_everything_that_is_wrong_is_told(asserts: Asserts) -> None:
    outcome = await asserts.run(
        "echo a; exit 7", expect_exit_code="1", expect_stdout="b", expect_stdout_regex="^c$", expect_stderr_contains="d"
    )
    assert outcome.exit_code == 7
    said = outcome.error.split("\n\n")
    assert [text.splitlines()[0] for text in said] == [
        "exit code 7, expected 1",
        "stdout is not what was expected",
        "stdout has no match for '^c$'; stdout is:",
        "stderr does not contain 'd'; stderr is empty",
    ]


async def test_a_success_that_was_not_expected(asserts: Asserts) -> None:
    outcome = await asserts.run("true", expect_exit_code="1")
    assert (outcome.exit_code, outcome.error) == (1, "exit code 0, expected 1")
    killed = await asserts.run("kill -9 $$", expect_exit_code="137")
    assert isinstance(killed, Completed), "a signal is an exit code too"
    killed = await asserts.run("kill -9 $$")
    assert killed.error == "exit code 137, expected 0\nkilled by SIGKILL"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"command": ""}, "^missing param: command$"),
        ({"expect_exit_code": "-1"}, "expect_exit_code.*expected a number from 0 to 255, got '-1'"),
        ({"expect_exit_code": "256"}, "0 to 255"),
        ({"expect_exit_code": "٣"}, "0 to 255"),
        ({"expect_stdout_regex": "(a"}, "param 'expect_stdout_regex': no regular expression: missing"),
        ({"expect_stdout_regex": "a" * 10_001}, "10001 characters, the limit is 10000"),
        ({"expect_stdout_json": "1" * 4_200_000}, "4200000 characters, the limit is 4194304"),
        ({"expect_stdout_regex": "(" * 9_000 + ")" * 9_00}, "no regular expression"),
        ({"expect_stdout_json": "{a: 1}"}, "param 'expect_stdout_json': no JSON: Expecting"),
        ({"expect_stdout_json": "NaN"}, "no JSON"),
        ({"expect_stdut": "x"}, "unknown param: expect_stdut; did you mean 'expect_stdout'"),
        ({"expected": "x"}, "unknown param: expected; there are expect_exit_code, expect_stdout"),
        ({"PATH": "/evil"}, "param 'PATH'"),
    ],
)
async def test_what_can_not_be_expected(asserts: Asserts, tmp_path: Path, params: dict[str, str], says: str) -> None:
    with pytest.raises(OperativeError, match=says) as caught:
        await asserts.operative.execute(asserts.stage.execution({"command": f"touch {tmp_path}/ran", **params}))
    assert caught.value.kind is FailureKind.REJECTED
    assert not (tmp_path / "ran").exists()


async def test_variables_and_standard_input(asserts: Asserts) -> None:
    command = 'cat; echo "$WHO"; env | grep -c ^expect'
    outcome = await asserts.run(command, WHO="me", stdin="in\n", expect_stdout="in\nme\n0", expect_exit_code="1")
    assert isinstance(outcome, Completed), outcome


async def test_a_pattern_that_takes_for_ever(asserts: Asserts) -> None:
    with pytest.raises(OperativeError, match=r"not compared within 1.5 s: a pattern may take for ever") as caught:
        await asserts.run("echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", expect_stdout_regex=r"^(a+)+$")
    assert not caught.value.retryable


async def test_cancelled_mid_way(asserts: Asserts, tmp_path: Path) -> None:
    command = f"sleep 77 & echo $! > {tmp_path}/pid; echo up; wait"
    execution = asserts.stage.execution({"command": command, "expect_stdout": "up"})
    running = asyncio.create_task(asserts.operative.execute(execution))
    async with asyncio.timeout(10):
        await asserts.stage.said.wait()
    execution.cancelled.set()
    outcome = await running
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.error) == (FailureKind.CANCELLED, "cancelled")
    assert not runs(int((tmp_path / "pid").read_text()))


async def test_cancelled_while_it_compares(asserts: Asserts, tmp_path: Path) -> None:
    params = {"command": "echo " + "a" * 60 + "b", "expect_stdout_regex": "^(a+)+$"}
    execution = asserts.stage.execution(params)
    running = asyncio.create_task(asserts.operative.execute(execution))
    async with asyncio.timeout(10):
        await asserts.stage.said.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not list(tmp_path.glob("gbe-envoy-*/stdout*"))


async def test_a_large_output(asserts: Asserts, tmp_path: Path) -> None:
    outcome = await asserts.run("seq 1 100000", expect_stdout_contains="\n77777\n", expect_stdout_regex=r"100000\n$")
    assert isinstance(outcome, Completed)
    assert isinstance(outcome.data, Ref)
    outcome = await asserts.run("seq 1 100000", expect_stdout="1\n2\n4")
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.data, Ref), "to look into"
    assert " 2\n+3\n 4\n+5\n" in outcome.error
    assert outcome.error.endswith("… (5 bytes expected, 588,894 bytes actual)")
    assert not list(tmp_path.glob("gbe-envoy-*/stdout*"))


async def test_much_is_expected(asserts: Asserts) -> None:
    outcome = await asserts.run("seq 1 5", expect_stdout="1\n2\n3\n4\n6\n" + "x\n" * 1_000_000)
    assert outcome.error.splitlines()[4:8] == [" 2", " 3", " 4", "-6"]
    assert len(outcome.error) < 5_000


async def test_of_a_large_stderr_the_end_is_compared(asserts: Asserts) -> None:
    assert isinstance(await asserts.run("seq 1 100000 >&2", expect_stderr_contains="99999\n100000\n"), Completed)
    outcome = await asserts.run("seq 1 100000 >&2", expect_stderr_contains="x")
    assert "of 588,895 bytes of stderr the last" in outcome.error
    assert "2>&1" in outcome.error


@pytest.mark.slow
async def test_half_a_gigabyte_of_output(asserts: Asserts) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asserts.operative._timeout = 60.0
    asserts.stage.keep_spills_as_files()
    command = "head -c 500000000 /dev/zero | tr '\\0' 'x'; echo end"
    outcome = await asserts.run(command, expect_stdout_contains="end", expect_stdout="xxx", expect_stdout_json="{}")
    assert [text.splitlines()[0] for text in outcome.error.split("\n\n")] == [
        "stdout is not what was expected",
        "stdout has 500,000,004 bytes; at most 67,108,864 are opened as JSON",
    ]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"
