"""Running commands: what they get, what comes back, and how they end."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gbe_envoy.adapter import Command, CommandError, CommandRunner, Limits
from gbe_envoy.adapter import spawn as spawn_module

ENV = {"PATH": os.environ["PATH"]}
Sh = Callable[..., Command]
PidFrom = Callable[[Path], Awaitable[Any]]


PYTHON_ENV = {**ENV, "PYTHONDONTWRITEBYTECODE": "1"}


async def test_echo(runner: CommandRunner, sh: Sh) -> None:
    before = time.time_ns() // 1_000_000
    result = await runner.run(sh("echo hello world; echo oops >&2"))
    assert (result.exit_code, result.signal) == (0, None)
    assert (result.stdout, result.stdout_size, result.spill) == (b"hello world\n", 12, None)
    assert (result.stderr, result.stderr_size) == (b"oops\n", 5)
    assert (result.timed_out, result.cancelled, result.output_limit) == (False, False, False)
    assert before <= result.started_at <= result.ended_at <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("code", [0, 1, 42, 255])
async def test_exit_codes(runner: CommandRunner, sh: Sh, code: int) -> None:
    result = await runner.run(sh(f"exit {code}"))
    assert (result.exit_code, result.signal) == (code, None)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGUSR1", "SIGPIPE"])
async def test_signals(runner: CommandRunner, sh: Sh, name: str) -> None:
    result = await runner.run(sh(f"kill -{name[3:]} $$; sleep 60"))
    assert (result.exit_code, result.signal) == (128 + signal.Signals[name].value, name)


async def test_the_child_has_default_signals_its_own_session_and_no_other_descriptors(runner: CommandRunner) -> None:
    leaky, other = os.pipe()
    os.set_inheritable(leaky, True)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        code = (
            "import os, signal; print(os.getsid(0) == os.getpgid(0) == os.getpid(), signal.pthread_sigmask(0, []));"
            "print(sorted(int(fd) for fd in os.listdir('/proc/self/fd')))"
        )
        result = await runner.run(Command([sys.executable, "-I", "-S", "-c", code], ENV))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(leaky)
        os.close(other)
    # 3 is the directory being listed
    assert result.stdout.decode().splitlines() == ["True set()", "[0, 1, 2, 3]"]
    status = (await runner.run(Command(["cat", "/proc/self/status"], ENV))).stdout.decode()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    assert ignored & 0x7FFF_FFFF == 0  # beyond these are the C library's own


async def test_a_child_gets_the_descriptors_it_is_to_have_and_no_others(runner: CommandRunner) -> None:
    reading, writing = os.pipe()
    other, other_end = os.pipe()
    text = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1]); os.write(4, b'hi')"
    try:
        # In another order than theirs here, and one of them twice.
        fds = (other, writing, writing)
        result = await runner.run(Command((sys.executable, "-S", "-c", text), ENV, pass_fds=fds))
        assert (result.stdout, result.stderr) == (b"[0, 1, 2, 3, 4, 5]\n", b"")
        assert os.read(reading, 16) == b"hi"
        os.fstat(writing)  # still the caller's
    finally:
        for fd in (reading, writing, other, other_end):
            os.close(fd)


async def test_the_environment_is_the_given_one_and_the_marker(runner: CommandRunner) -> None:
    result = await runner.run(Command(["env"], {**ENV, "A": "1", "UMLAUT": "\u00e4\udcff"}))
    lines = result.stdout.splitlines()
    assert b"A=1" in lines
    assert b"UMLAUT=\xc3\xa4\xff" in lines
    assert {line.split(b"=")[0] for line in lines} == {b"PATH", b"A", b"UMLAUT", b"GBE_GUARDIAN"}


async def test_cwd(runner: CommandRunner, sh: Sh, tmp_path: Path) -> None:
    odd = tmp_path / "a 'b' $c"
    odd.mkdir()
    script = odd / "here.sh"
    script.write_text("#!/bin/sh\npwd\n")
    script.chmod(0o755)
    assert (await runner.run(sh("pwd", cwd=str(odd)))).stdout == f"{odd}\n".encode()
    assert (await runner.run(Command(["./here.sh"], ENV, cwd=str(odd)))).stdout == f"{odd}\n".encode()


async def test_cwd_with_an_old_c_library(
    runner: CommandRunner, sh: Sh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn_module._library(), "add_chdir", None)
    assert (await runner.run(sh("pwd; echo $0", cwd=str(tmp_path)))).stdout == f"{tmp_path}\nsh\n".encode()


@pytest.mark.parametrize(
    ("argv", "cwd", "text"),
    [
        ([], None, "empty command"),
        (["no-such-program"], None, "no such executable in PATH"),
        (["/no/such/program"], None, "No such file"),
        (["/etc"], None, "directory"),
        (["/etc/passwd"], None, "not executable"),
        (["true"], "/no/such/dir", "the working directory /no/such/dir is not there"),
        (["true", "a\0b"], None, "an argument contains a NUL byte"),
        (["sh", "-c", "x" * 200_000], None, "an argument with 200000 bytes"),
    ],
)
async def test_what_cannot_be_started(runner: CommandRunner, argv: list[str], cwd: str | None, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        await runner.run(Command(argv, ENV, cwd=cwd))


async def test_scripts_that_cannot_be_started(runner: CommandRunner, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CommandError, match="interpreter named in its first line"):
        await runner.run(Command([str(script)], ENV))
    script.write_text("echo no first line\n")
    with pytest.raises(CommandError, match="neither a program nor a script"):
        await runner.run(Command([str(script)], ENV))


async def test_too_large_an_environment_names_the_variable(runner: CommandRunner) -> None:
    with pytest.raises(CommandError, match=r"environment \d+ bytes.*the variable BIG with 200004 bytes"):
        await runner.run(Command(["true"], {**ENV, "BIG": "x" * 200_000}))
    with pytest.raises(CommandError, match="variable 'NULL' contains a NUL"):
        await runner.run(Command(["true"], {**ENV, "NULL": "\0"}))


async def test_stdin(runner: CommandRunner, tmp_path: Path) -> None:
    big = os.urandom(1_000_000)
    path = tmp_path / "input"
    path.write_bytes(big)
    limits = Limits(capture_bytes=2_000_000)
    assert (await runner.run(Command(["cat"], ENV, stdin=b"abc"))).stdout == b"abc"
    assert (await runner.run(Command(["cat"], ENV, stdin=big), limits=limits)).stdout == big
    assert (await runner.run(Command(["cat"], ENV, stdin=path), limits=limits)).stdout == big
    assert (await runner.run(Command(["cat"], ENV))).stdout == b""
    assert (await runner.run(Command(["true"], ENV, stdin=big))).exit_code == 0
    with pytest.raises(CommandError, match=r"its input .*missing: No such file"):
        await runner.run(Command(["cat"], ENV, stdin=tmp_path / "missing"))


async def test_a_timeout_ends_the_grandchildren_too(
    runner: CommandRunner, sh: Sh, tmp_path: Path, pid_from: PidFrom
) -> None:
    text = "sleep 600 & echo $! >child; setsid sleep 600 & echo $! >escaped; echo partial; wait"
    run = asyncio.create_task(runner.run(sh(text, cwd=str(tmp_path)), timeout=2))
    child, escaped = await pid_from(tmp_path / "child"), await pid_from(tmp_path / "escaped")
    result = await run
    assert (result.exit_code, result.timed_out, result.signal) == (124, True, "SIGTERM")
    assert result.stdout == b"partial\n"
    assert child.gone()
    assert escaped.gone()


async def test_sigkill_follows_after_the_grace_time(
    runner: CommandRunner, sh: Sh, tmp_path: Path, pid_from: PidFrom
) -> None:
    text = (
        "trap '' TERM; (trap '' TERM; sleep 600 & echo $! >child; wait; wait; sleep 600) & while :; do sleep 600; done"
    )
    cancel = asyncio.Event()
    run = asyncio.create_task(runner.run(sh(text, cwd=str(tmp_path)), cancel=cancel, limits=Limits(grace=0.2)))
    child = await pid_from(tmp_path / "child")
    cancel.set()
    result = await run
    assert (result.exit_code, result.signal) == (137, "SIGKILL")
    assert child.gone()


async def test_a_group_whose_leader_ended_gets_the_grace_time(runner: CommandRunner, sh: Sh, tmp_path: Path) -> None:
    # The leader dies of SIGTERM at once; the grandchild tidies up, which takes it a moment.
    text = '(trap "sleep 0.3; echo tidy >done; exit" TERM; echo >ready; while :; do sleep 0.05; done) & wait'
    cancel = asyncio.Event()
    run = asyncio.create_task(runner.run(sh(text, cwd=str(tmp_path)), cancel=cancel))
    while not (tmp_path / "ready").exists():
        await asyncio.sleep(0.005)
    cancel.set()
    assert (await run).cancelled
    assert (tmp_path / "done").read_text() == "tidy\n"


async def test_everybody_gets_sigterm_once(runner: CommandRunner, sh: Sh, tmp_path: Path, pid_from: PidFrom) -> None:
    handle = "trap 'echo $0 >>terms' TERM; echo $$ >$0.pid; i=0; while [ $i -lt 10 ]; do sleep 0.05; i=$((i+1)); done"
    (tmp_path / "handle.sh").write_text(handle.replace("$0", "$1"))
    text = "sh handle.sh child & setsid sh handle.sh stray & sh handle.sh leader"
    cancel = asyncio.Event()
    run = asyncio.create_task(runner.run(sh(text, cwd=str(tmp_path)), cancel=cancel, limits=Limits(grace=2)))
    for name in ("child", "stray", "leader"):
        await pid_from(tmp_path / f"{name}.pid")
    cancel.set()
    await run
    assert sorted((tmp_path / "terms").read_text().split()) == ["child", "leader", "stray"]


async def test_very_short_timeouts(runner: CommandRunner, sh: Sh) -> None:
    for timeout in (0.0, 0.0005, 0.004):
        result = await runner.run(sh("sleep 600"), timeout=timeout)
        assert (result.exit_code, result.timed_out) == (124, True)
    assert (await runner.run(sh("true"), timeout=60)).timed_out is False


async def test_cancel(runner: CommandRunner, sh: Sh) -> None:
    cancel = asyncio.Event()

    def on_line(_: str, __: bytes) -> None:
        cancel.set()

    result = await runner.run(sh("echo started; sleep 600"), cancel=cancel, on_line=on_line)
    assert result.cancelled
    assert (result.exit_code, result.signal, result.stdout) == (143, "SIGTERM", b"started\n")
    assert (await runner.run(sh("sleep 600"), cancel=cancel)).cancelled


async def test_cancelling_the_call_ends_the_command(
    runner: CommandRunner, sh: Sh, tmp_path: Path, pid_from: PidFrom
) -> None:
    text = "trap '' TERM; sleep 600 & echo $! >child; echo $$ >leader; while :; do sleep 600; done"
    run = asyncio.create_task(runner.run(sh(text, cwd=str(tmp_path)), limits=Limits(grace=0.2)))
    child, leader = await pid_from(tmp_path / "child"), await pid_from(tmp_path / "leader")
    for _ in range(3):  # impatience changes nothing
        run.cancel()
        await asyncio.sleep(0.01)
    assert not run.done()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert child.gone()
    assert leader.gone()


async def test_a_background_process_that_holds_stdout_is_ended(
    runner: CommandRunner, sh: Sh, tmp_path: Path, pid_from: PidFrom
) -> None:
    async with asyncio.timeout(60):
        result = await runner.run(sh("sleep 600 & echo $! >child; echo done", cwd=str(tmp_path)))
    assert (result.exit_code, result.stdout) == (0, b"done\n")
    assert (await pid_from(tmp_path / "child")).gone()


async def test_a_silent_background_process_is_ended(
    runner: CommandRunner, sh: Sh, tmp_path: Path, pid_from: PidFrom
) -> None:
    text = "sleep 600 >/dev/null 2>&1 & echo $! >child"
    assert (await runner.run(sh(text, cwd=str(tmp_path)))).exit_code == 0
    assert (await pid_from(tmp_path / "child")).gone(within=0)


async def test_a_background_process_that_writes_for_ever_is_ended(runner: CommandRunner, sh: Sh) -> None:
    result = await runner.run(sh("yes & echo $$; sleep 0.05"), limits=Limits(capture_bytes=1000))
    assert result.exit_code == 0
    assert result.spill is not None
    assert result.spill.stat().st_size == result.stdout_size


async def test_what_is_written_behind_the_command_is_still_taken(runner: CommandRunner, sh: Sh) -> None:
    result = await runner.run(sh("(sleep 0.03; echo late) & echo early"), limits=Limits(linger=5))
    assert result.stdout == b"early\nlate\n"


async def test_thousands_of_commands_leak_nothing(runner: CommandRunner, sh: Sh) -> None:
    async def many(count: int) -> None:
        for index in range(count):
            directory = runner.make_work_dir()
            result = await runner.run(sh("echo x", cwd=str(directory)), timeout=60, cancel=asyncio.Event())
            assert result.stdout == b"x\n"
            if index % 10 == 0:
                (directory / "left").mkdir()
            await runner.remove_work_dir(directory)

    await many(5)
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(many(125) for _ in range(8)))
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.waitpid(-1, os.WNOHANG) == (0, 0)  # no zombies, only the guardian


async def test_failures_leak_nothing(runner: CommandRunner, sh: Sh) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(CommandError):
            await runner.run(Command(["no-such-program"], ENV, stdin=b"x"))
        with pytest.raises(CommandError):
            await runner.run(sh("true", cwd="/no/such/dir"))
    assert len(os.listdir("/proc/self/fd")) == before


async def test_work_dirs_are_private_and_empty(runner: CommandRunner) -> None:
    first, second = runner.make_work_dir(), runner.make_work_dir()
    assert first != second
    assert first.stat().st_mode & 0o777 == 0o700
    (first / "deep" / "er").mkdir(parents=True)
    (first / "deep" / "file").write_text("x")
    (first / "deep").chmod(0o500)
    (first / "link").symlink_to("/etc")
    second.chmod(0o755)
    for path in (first, second):
        await runner.remove_work_dir(path)
        assert not path.exists()
    third = runner.make_work_dir()
    await runner.remove_work_dir(third)
    assert runner.make_work_dir() == third
    assert list(third.iterdir()) == []


async def test_close_ends_what_runs_and_removes_the_directory(sh: Sh, tmp_path: Path, pid_from: PidFrom) -> None:
    spills = tmp_path / "spills"
    spills.mkdir()
    runner = CommandRunner(spill_dir=spills)
    await runner.start()
    text = "setsid sleep 600 >/dev/null 2>&1 & echo $! >escaped; echo $$ >leader"
    done = await runner.run(sh(text, cwd=str(tmp_path)))
    assert done.exit_code == 0
    escaped = await pid_from(tmp_path / "escaped")
    runs = [asyncio.create_task(runner.run(sh("sleep 600"))) for _ in range(3)]
    await asyncio.sleep(0)
    await runner.close()
    assert [(await run).cancelled for run in runs] == [True] * 3
    assert escaped.gone()
    assert list(spills.iterdir()) == []
    with pytest.raises(RuntimeError, match="closed"):
        await runner.run(sh("true"))
    await runner.close()


async def test_a_runner_without_a_guardian(sh: Sh, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="never started"):
        await CommandRunner().run(sh("true"))
    before = len(os.listdir("/proc/self/fd"))
    async with CommandRunner(guardian=False, spill_dir=tmp_path) as runner:
        assert (await runner.run(sh("echo x"))).stdout == b"x\n"
    assert len(os.listdir("/proc/self/fd")) == before


async def test_too_many_open_files_is_a_clear_error(runner: CommandRunner, sh: Sh) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, hard))
    try:
        with pytest.raises(CommandError, match="Too many open files"):
            await runner.run(sh("true"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await runner.run(sh("true"))).exit_code == 0
