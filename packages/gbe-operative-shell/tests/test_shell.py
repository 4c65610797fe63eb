"""Acceptance scenarios P1 to P4 and P15, for the shell Operative alone."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.edges import Inline, Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_jobs_domain.payloads import SecretRef
from gbe_nexus import Transport
from gbe_operative.contract import OperativeError
from gbe_operative.secrets import Secrets
from gbe_operative.settings import WorkerSettings
from gbe_operative.testing import Hall
from gbe_operative_command.testing import runs
from gbe_operative_shell import ShellOperative

Shell = Any  # of conftest.py, which can't be imported


def data(outcome: Any) -> Any:
    assert isinstance(outcome, Completed)
    assert isinstance(outcome.data, Inline)
    return outcome.data.decoded()


async def test_lines(shell: Shell) -> None:
    outcome = await shell.run("echo hello world")
    assert outcome.output == ["hello world"]
    assert data(outcome) == ["hello world"]
    assert (await shell.run("echo 1 a; echo 2 b; echo; echo 3 c")).output == ["1 a", "2 b", "", "3 c"]
    empty = await shell.run("true")
    assert (empty.output, data(empty)) == ([], [])


async def test_one_json_value(shell: Shell) -> None:
    outcome = await shell.run("""echo '{"url": "http://x", "count": 42, "precise": 1.10}'""")
    assert data(outcome) == {"url": "http://x", "count": 42, "precise": 1.1}
    assert b"1.10" in bytes(outcome.data.value), "numbers keep their digits"
    several = await shell.run("printf '[1,\\n2]\\n'")
    assert (data(several), several.data.items, several.output) == ([1, 2], 2, ["[1,", "2]"])
    assert data(await shell.run("echo 1; echo 2")) == ["1", "2"]


async def test_an_exit_code(shell: Shell) -> None:
    assert await shell.run("echo out; echo oops >&2; exit 42") == Failed(
        error="oops", exit_code=42, stderr="oops\n", output=["out"]
    )
    assert (await shell.run("exit 3")).error == "exit code 3"


async def test_a_signal(shell: Shell) -> None:
    outcome = await shell.run("echo dying >&2; kill -9 $$")
    assert outcome.exit_code == 128 + signal.SIGKILL
    assert outcome.error == "killed by SIGKILL: dying"
    inner = await shell.run("sh -c 'kill -TERM $$'; exit $?")
    assert inner.exit_code == 143
    assert inner.error.startswith("exit code 143 (SIGTERM)")


async def test_the_environment(shell: Shell) -> None:
    outcome = await shell.run("env; echo CWD=$(pwd)", A="a b", LONG="x\ny")
    variables = dict(line.split("=", 1) for line in outcome.output if "=" in line)
    assert variables["A"] == "a b"
    assert variables["GBE_TASK_NAME"] == "the-task"
    assert variables["GBE_ATTEMPT"] == "2"
    assert variables["GBE_JOB_ID"] == shell.stage.job_id
    assert variables["GBE_TASK_ID"].startswith("task_")
    assert variables["GBE_WORK_DIR"] == variables["CWD"]
    assert "AWS_SECRET" not in variables
    assert "command" not in variables


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PATH", "/evil", "protected"),
        ("LD_PRELOAD", "x", "protected"),
        ("GBE_JOB_ID", "x", "protected"),
        ("BIG", "x" * 200_000, r"BIG.*200000 bytes.*98304.*BIG_ref"),
        ("NUL", "a\0b", "NUL.*NUL_ref"),
        ("not-a-name", "x", "not-a-name"),
    ],
)
async def test_params_that_are_no_variables(shell: Shell, name: str, value: str, says: str) -> None:
    with pytest.raises(OperativeError, match=says) as caught:
        await shell.run("true", **{name: value})
    assert caught.value.kind is FailureKind.REJECTED
    assert not caught.value.retryable


async def test_no_command(shell: Shell) -> None:
    with pytest.raises(OperativeError, match=r"^missing param: command$"):
        await shell.operative.execute(shell.stage.execution({"COMMAND": "x"}))


async def test_standard_input(shell: Shell, tmp_path: Path) -> None:
    assert (await shell.run("cat", stdin="a\nb")).output == ["a", "b"]
    assert (await shell.run("cat")).output == []
    stored = await shell.stage.artifacts.put("job_x/in", b"line\n" * 500_000)
    ref = shell.stage.ref(stored)
    execution = shell.stage.execution({"command": "wc -l", "stdin_ref": ref.uri}, {"stdin_ref": ref})
    assert (await shell.operative.execute(execution)).output[0].strip() == "500000"
    with pytest.raises(OperativeError, match="both"):
        await shell.run("cat", stdin="x", stdin_ref=ref.uri)
    with pytest.raises(OperativeError, match="not a store://"):
        await shell.run("cat", stdin_ref="/etc/passwd")
    gone = shell.stage.execution({"command": "cat", "stdin_ref": "store://x"}, {"stdin_ref": Ref("s", "none", 1, "0")})
    with pytest.raises(OperativeError, match="none"):
        await shell.operative.execute(gone)


async def test_a_large_output_goes_by_reference(shell: Shell, tmp_path: Path) -> None:
    outcome = await shell.run("seq 1 1000000")
    assert isinstance(outcome.data, Ref)
    assert outcome.data.media_type == "text/plain"
    assert outcome.data.size == 6_888_896
    assert outcome.result_ref == outcome.data.uri
    assert outcome.output[-1] == "1000000"
    assert "bytes omitted" in outcome.output[0]
    assert sum(map(len, outcome.output)) < 70_000
    assert await shell.stage.artifacts.read(outcome.data.key, limit=7_000_000) == b"".join(
        b"%d\n" % number for number in range(1, 1_000_001)
    )
    assert not list(tmp_path.glob("gbe-envoy-*/stdout*")), "the file is not left behind"


async def test_a_large_json_output_is_one(shell: Shell) -> None:
    outcome = await shell.run("""printf '["'; head -c 400000 /dev/zero | tr '\\0' x; printf '"]'""")
    assert outcome.data.media_type == "application/json"
    failed = await shell.run("head -c 400000 /dev/zero | tr '\\0' x; exit 1")
    assert isinstance(failed, Failed)
    assert isinstance(failed.data, Ref)


async def test_nul_bytes(shell: Shell) -> None:
    outcome = await shell.run("head -c 250000 /dev/zero")
    assert outcome.output == ["\0" * 250_000]
    assert len(json.dumps(data(outcome))) > 1_500_000


async def test_lines_while_they_come(shell: Shell) -> None:
    running = asyncio.create_task(shell.run("echo one; echo two >&2; read line < /dev/zero & wait", X="x"))
    async with asyncio.timeout(10):
        while len(shell.stage.lines) < 2:
            shell.stage.said.clear()
            await shell.stage.said.wait()
    assert sorted(shell.stage.lines) == [("stderr", "two"), ("stdout", "one")]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_cancelling_ends_everything(shell: Shell, tmp_path: Path) -> None:
    execution = shell.stage.execution({"command": f"(sleep 77 & echo $! > {tmp_path}/pid; echo up; wait)"})
    running = asyncio.create_task(shell.operative.execute(execution))
    async with asyncio.timeout(10):
        await shell.stage.said.wait()
    execution.cancelled.set()
    outcome = await running
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CANCELLED
    pid = int((tmp_path / "pid").read_text())
    assert not runs(pid)


async def test_directories_are_private_and_empty(shell: Shell) -> None:
    outcomes = await asyncio.gather(*[shell.run("pwd; ls -A; touch x; stat -c %a .") for _ in range(4)])
    assert len({outcome.output[0] for outcome in outcomes}) == 4
    assert {tuple(outcome.output[1:]) for outcome in outcomes} == {("700",)}
    again = await shell.run("ls -A")
    assert again.output == []


@pytest.mark.parametrize(
    "command",
    [
        # what is shown of stderr as the error begins within the secret
        """printf %s "$TOKEN" >&2; head -c 8180 /dev/zero | tr '\\0' x >&2; exit 143""",
        # what is kept of stderr does
        """printf %s "$TOKEN" >&2; head -c 65520 /dev/zero | tr '\\0' x >&2; exit 3""",
        # what is kept of a large output does
        """head -c 300000 /dev/zero | tr '\\0' x; printf %s "$TOKEN"; head -c 65520 /dev/zero | tr '\\0' y""",
        # a piece of a very long line does
        """head -c 65520 /dev/zero | tr '\\0' x; printf %s "${TOKEN%words}"; sleep 0.4; echo words; sleep 0.4""",
    ],
)
async def test_no_piece_of_a_secret_is_told_where_a_text_is_cut(transport: Transport, command: str) -> None:
    """P18: the value does not appear, nor what is left of it when only a part of a text is passed on."""
    token = "tr0ub4dor-and-three-more-words"
    pieces = [token[at : at + 9].encode() for at in range(len(token) - 8)]
    spy: list[bytes] = []
    async with Hall.on(transport) as hall:
        await transport.listen(["gbe.>"], lambda subject, body: spy.append(body))
        secrets = Secrets({"GBE_SECRET_TOKEN": token})
        await hall.worker(ShellOperative(), secrets=secrets, settings=WorkerSettings(moment=0.05)).start()
        await hall.queue(hall.task("a", "shell", params={"command": command, "TOKEN": SecretRef("token")}))
        (ended,) = await hall.ends()
    assert spy
    assert not [body for body in spy if any(piece in body for piece in pieces)]
    assert "***" in str(ended.outcome)


async def test_a_cleaner_of_temporary_files_harms_no_later_task(shell: Shell, tmp_path: Path) -> None:
    large = "head -c 3000000 /dev/zero | tr '\\0' x"
    assert (await shell.run("echo here")).output == ["here"]
    for directory in tmp_path.glob("gbe-envoy-*"):
        shutil.rmtree(directory)
    assert (await shell.run("echo >left; echo again")).output == ["again"]
    for directory in tmp_path.glob("gbe-envoy-*"):
        shutil.rmtree(directory)
    outcome = await shell.run(large)
    assert isinstance(outcome.data, Ref)
    assert outcome.data.size >= 3_000_000
