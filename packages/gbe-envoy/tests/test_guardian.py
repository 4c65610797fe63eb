"""A killed worker leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gbe_envoy.adapter import Command, CommandRunner
from gbe_envoy.adapter.guardian import ADD, FORGET, find, record, remove_tree

Sh = Callable[..., Command]
PidFrom = Callable[[Path], Awaitable[Any]]
Process = Callable[[int], Any]


WORKER = Path(__file__).with_name("worker.py")


def _environ_contains(pid: int, text: bytes) -> bool:
    try:
        return text in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def marked(text: bytes) -> list[int]:
    """The processes with the text in their environment: the worker's and all of its commands'."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if pid != os.getpid() and _environ_contains(pid, text)]


class Worker:
    def __init__(self, tmp_path: Path, commands: list[str], *options: str) -> None:
        self.spills, self.guarded = tmp_path / "spills", tmp_path / "guarded"
        self.spills.mkdir()
        self.guarded.mkdir()
        (self.guarded / "file").write_text("x")
        self.mark = f"GBE_TEST_MARK={tmp_path}".encode()
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(self.spills), str(self.guarded), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "GBE_TEST_MARK": str(tmp_path)},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n".join(commands).encode())
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"started\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def directories_gone(self, within: float = 10.0) -> bool:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if not self.guarded.exists() and not any(self.spills.iterdir()):
                return True
            time.sleep(0.01)
        return False


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    for pid in marked(f"GBE_TEST_MARK={tmp_path}".encode()):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("nothing_left")
async def test_all_is_gone_after_the_worker(tmp_path: Path, pid_from: PidFrom) -> None:
    where = str(tmp_path)
    kinds = {
        "plain": "echo $$ >{}; exec sleep 600",
        "child": "sleep 600 & echo $! >{}; wait",
        "stubborn": "trap '' TERM; (while :; do sleep 600; done) & echo $! >{}; while :; do sleep 600; done",
        "escaped": "setsid sleep 600 & echo $! >{}; wait",
        "bare": "echo $$ >{}; exec env -i sleep 600",
        "bare-child": "env -i sleep 600 & echo $! >{}; wait",
        "stopped": "echo $$ >{}; kill -STOP $$; sleep 600",
    }
    worker = Worker(tmp_path, [text.format(f"{where}/{kind}") for kind, text in kinds.items()])
    pids = {kind: await pid_from(tmp_path / kind) for kind in kinds}
    worker.kill()
    assert [kind for kind, pid in pids.items() if not pid.gone()] == []
    assert worker.directories_gone()
    assert marked(worker.mark) == []


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("moment", [0.0, 0.011, 0.037])
async def test_a_worker_killed_while_it_starts_commands(tmp_path: Path, moment: float) -> None:
    worker = Worker(tmp_path, [], "--churn")
    time.sleep(moment)
    worker.kill()
    # Also when the guardian itself had just been started.
    assert worker.directories_gone()
    assert marked(worker.mark) == []


@pytest.mark.usefixtures("nothing_left")
async def test_signals_to_the_foreground_group_do_not_reach_the_guardian(tmp_path: Path, pid_from: PidFrom) -> None:
    worker = Worker(tmp_path, [f"echo $$ >{tmp_path}/pid; exec sleep 600"])
    pid = await pid_from(tmp_path / "pid")
    guardian = _guardian(worker.process.pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guardian, number)
    worker.kill()
    assert pid.gone()


def _guardian(worker: int) -> int:
    """The pid of the worker's guardian. (Just started, it has no command line for a moment.)"""
    while True:
        for pid in Path(f"/proc/{worker}/task/{worker}/children").read_text().split():
            if b"guardian.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)


async def test_a_killed_guardian_is_replaced(
    runner: CommandRunner, sh: Sh, caplog: pytest.LogCaptureFixture, process: Process
) -> None:
    first = _guardian(os.getpid())
    ended = process(first)
    with caplog.at_level(logging.WARNING):
        os.kill(first, signal.SIGKILL)
        assert ended.gone()
        assert (await runner.run(sh("sleep 0.01; echo x"))).stdout == b"x\n"
        async with asyncio.timeout(5):
            while not caplog.records:
                await asyncio.sleep(0.005)
    second = _guardian(os.getpid())
    assert second != first
    assert "starting another" in caplog.text


async def test_the_guardian_ends_with_its_runner(tmp_path: Path, process: Process) -> None:
    async with CommandRunner(spill_dir=tmp_path):
        guardian = process(_guardian(os.getpid()))
    assert guardian.gone(within=0)


async def test_processes_are_found_by_group_session_and_marker(
    runner: CommandRunner, sh: Sh, tmp_path: Path, pid_from: PidFrom
) -> None:
    text = "env -i setsid sleep 600 & env -i sh -c 'echo $$ >grandchild; exec sleep 600' & wait"
    cancel = asyncio.Event()
    run = asyncio.create_task(runner.run(sh(text, cwd=str(tmp_path)), cancel=cancel))
    grandchild = await pid_from(tmp_path / "grandchild")
    group = os.getpgid(grandchild.pid)
    assert grandchild.pid in find(frozenset({group}), b"GBE_NO_SUCH_MARKER=")
    assert group in find(frozenset(), b"GBE_GUARDIAN=")
    assert find(frozenset(), b"GBE_NO_SUCH_MARKER=") == []
    for name in os.listdir("/proc"):  # the one thing no search finds: out of the session, and without the marker
        if name.isdecimal() and _parent(int(name)) == group and os.getsid(int(name)) != group:
            os.kill(int(name), signal.SIGKILL)
    cancel.set()
    await run


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    except OSError:
        return 0


def test_records() -> None:
    assert record(ADD, b"/a\n") == b"+\0\0\0\3/a\n"
    assert record(FORGET) == b"-\0\0\0\0"


def test_removing_a_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("x")
    (tree / "link").symlink_to(outside)
    (tree / "a").chmod(0o000)
    remove_tree(os.fsencode(tree))
    assert not tree.exists()
    assert (outside / "kept").exists()
    file = tmp_path / "file"
    file.write_text("x")
    remove_tree(os.fsencode(file))
    assert not file.exists()
    remove_tree(b"/")
    remove_tree(b"relative")
    remove_tree(os.fsencode(tmp_path / "missing"))
