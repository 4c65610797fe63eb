"""The supervisor with real children, which are really killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gbe_runtime import ChildSpec, ProcessSupervisor, Role
from gbe_runtime.errors import ChildFailed
from gbe_runtime.lifecycle_suite import LifecycleContract, MakeRole

ROLE = """
import os, sys
from gbe_runtime import Role, run_role

class Plain(Role):
    name = "plain"
    async def _start(self):
        with open(sys.argv[1], "a") as file:
            print("start", os.getpid(), file=file)
    async def _stop(self):
        with open(sys.argv[1], "a") as file:
            print("stop", os.getpid(), file=file)

async def make():
    return Plain()

sys.exit(run_role(make))
"""

READY = 'printf "ready\\n" > "/dev/fd/$GBE_READY_FD"'

# Says that it is ready, then dies.
SHORT_LIVED = f"{READY}; exit 3"

# Ready at once, and deaf to TERM.
DEAF = f'trap "" TERM; {READY}; while :; do sleep 0.05; done'

# Ready at once, ends on TERM.
QUICK = f"{READY}; exec sleep 1000"


class Events:
    """What a supervisor told, and waiting for it."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, str]] = []
        self._news = asyncio.Event()

    def __call__(self, name: str, event: str, detail: str) -> None:
        self.all.append((name, event, detail))
        self._news.set()

    def count(self, event: str) -> int:
        return sum(1 for one in self.all if one[1] == event)

    async def until(self, event: str, count: int = 1) -> str:
        """The detail of the last such event, once there are `count` of them."""
        async with asyncio.timeout(20):
            while self.count(event) < count:
                self._news.clear()
                await self._news.wait()
        return next(detail for _, happened, detail in reversed(self.all) if happened == event)


def shell(name: str, script: str, *, restart: bool = True, log_file: Path | None = None) -> ChildSpec:
    return ChildSpec(name, ["/bin/sh", "-c", script], restart=restart, log_file=log_file)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie waits for an init that may not care


async def ended(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    async with asyncio.timeout(20):
        while alive(pid):
            await asyncio.sleep(0.01)


Make = Callable[..., ProcessSupervisor]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def supervise(events: Events) -> AsyncIterator[Make]:
    made: list[ProcessSupervisor] = []

    def make(*specs: ChildSpec, base_delay: float = 0.01, **options: float) -> ProcessSupervisor:
        made.append(ProcessSupervisor(specs, on_event=events, base_delay=base_delay, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        await one.stop()


@pytest.fixture
def role(tmp_path: Path) -> tuple[ChildSpec, Path]:
    script, notes = tmp_path / "role.py", tmp_path / "notes"
    script.write_text(ROLE)
    return ChildSpec("plain", [sys.executable, str(script), str(notes)]), notes


class TestSupervisorLifecycle(LifecycleContract):
    cycles = 15
    steps = 25

    @pytest.fixture
    def make_role(self) -> MakeRole:
        async def make() -> Role:
            return ProcessSupervisor([shell("a", QUICK), shell("b", QUICK)])

        return make


async def test_children_run_when_it_is_started_and_stop_in_order(
    supervise: Make, role: tuple[ChildSpec, Path], events: Events
) -> None:
    spec, notes = role
    supervisor = supervise(spec)
    await supervisor.start()
    pid = supervisor.pids["plain"]
    assert notes.read_text() == f"start {pid}\n"
    await supervisor.stop()
    assert notes.read_text() == f"start {pid}\nstop {pid}\n"
    assert not alive(pid)
    assert supervisor.pids == {}
    assert [event for _, event, _ in events.all] == ["started", "ready", "stopped"]


async def test_a_child_that_is_killed_is_started_again(
    supervise: Make, role: tuple[ChildSpec, Path], events: Events
) -> None:
    spec, notes = role
    supervisor = supervise(spec)
    await supervisor.start()
    first = supervisor.pids["plain"]
    os.kill(first, signal.SIGKILL)
    assert await events.until("died") == "killed by SIGKILL"
    await events.until("ready", 2)
    second = supervisor.pids["plain"]
    assert second != first
    assert notes.read_text() == f"start {first}\nstart {second}\n"


async def test_a_crash_loop_slows_down_is_reported_once_and_goes_on(supervise: Make, events: Events) -> None:
    supervisor = supervise(shell("loop", SHORT_LIVED), max_delay=0.04)
    await supervisor.start()
    await events.until("died", 6)
    await supervisor.stop()
    delays = [detail for _, event, detail in events.all if event == "restarting"]
    assert delays[:5] == ["in 0.01 s", "in 0.02 s", "in 0.04 s", "in 0.04 s", "in 0.04 s"]
    assert events.count("degraded") == 1
    assert supervisor.failure is None


async def test_a_child_that_lives_again_is_reported_recovered(supervise: Make, events: Events, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    # Dies three times, lives at the fourth.
    script = f"echo >> {marks}; {READY}; [ $(wc -l < {marks}) -gt 3 ] && exec sleep 1000"
    supervisor = supervise(shell("ill", script), stable_after=0.3)
    await supervisor.start()
    await events.until("degraded")
    await events.until("recovered")


async def test_a_child_that_is_not_to_be_restarted_may_end(supervise: Make, events: Events) -> None:
    supervisor = supervise(shell("once", SHORT_LIVED, restart=False), shell("other", QUICK))
    await supervisor.start()
    assert await events.until("ended") == "exit code 3"
    assert list(supervisor.pids) == ["other"]


async def test_a_child_that_can_not_start_fails_the_start_and_stops_the_others(supervise: Make, events: Events) -> None:
    supervisor = supervise(shell("slow", "exec sleep 1000"), shell("good", QUICK), shell("bad", "exit 2"))
    with pytest.raises(ChildFailed, match="bad did not start: exit code 2") as caught:
        await supervisor.start()
    assert caught.value.code == 2
    assert supervisor.pids == {}


async def test_a_command_that_is_not_there(supervise: Make) -> None:
    supervisor = supervise(ChildSpec("ghost", ["/no/such/command"]))
    with pytest.raises(ChildFailed, match=r"ghost did not start: can't execute '/no/such/command': .*No such file"):
        await supervisor.start()


async def test_a_child_that_is_never_ready_is_killed(supervise: Make) -> None:
    supervisor = supervise(shell("slow", "exec sleep 1000"), ready_timeout=0.1)
    with pytest.raises(ChildFailed, match=r"not ready in 0\.1 s"):
        await supervisor.start()


async def test_a_child_that_does_not_stop_is_killed_after_the_grace(supervise: Make, events: Events) -> None:
    supervisor = supervise(shell("deaf", DEAF), grace=0.2)
    await supervisor.start()
    pid = supervisor.pids["deaf"]
    await supervisor.stop()
    assert not alive(pid)
    assert await events.until("stopped") == "killed by SIGKILL"


async def test_a_suspended_child_is_stopped_as_well(
    supervise: Make, role: tuple[ChildSpec, Path], events: Events
) -> None:
    supervisor = supervise(role[0])
    await supervisor.start()
    os.kill(supervisor.pids["plain"], signal.SIGSTOP)
    await supervisor.stop()
    assert await events.until("stopped") == "exit code 0"


async def test_output_goes_to_its_file_and_the_environment_is_added_to(supervise: Make, tmp_path: Path) -> None:
    file = tmp_path / "child.log"
    script = 'echo "$WHO has $PATH"; echo problem >&2; ' + QUICK
    spec = ChildSpec("talker", ["/bin/sh", "-c", script], env={"WHO": "somebody"}, log_file=file)
    supervisor = supervise(spec)
    await supervisor.start()
    await supervisor.stop()
    assert file.read_text() == f"somebody has {os.environ['PATH']}\nproblem\n"


async def test_a_listener_that_raises_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def raise_always(name: str, event: str, detail: str) -> None:
        raise RuntimeError("listener")

    supervisor = ProcessSupervisor([shell("a", QUICK)], on_event=raise_always)
    await supervisor.start()
    await supervisor.stop()
    assert supervisor.failure is None
    assert "the listener to supervisor events raised" in caplog.text


async def test_children_end_when_the_supervisor_is_killed(role: tuple[ChildSpec, Path], tmp_path: Path) -> None:
    spec, notes = role
    script = tmp_path / "supervisor.py"
    script.write_text(f"""
import sys
from gbe_runtime import ChildSpec, ProcessSupervisor, run_role

async def make():
    return ProcessSupervisor([ChildSpec(name, {list(spec.argv)!r}) for name in ("a", "b")])

sys.exit(run_role(make))
""")
    ready, ready_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, str(script)],
        pass_fds=(ready_end,),
        env={**os.environ, "GBE_READY_FD": str(ready_end)},
        stderr=subprocess.DEVNULL,
    )
    os.close(ready_end)
    try:
        assert await asyncio.to_thread(os.read, ready, 64) == b"ready\n"
        pids = [int(line.split()[1]) for line in notes.read_text().splitlines()]
        assert len(pids) == 2
        process.kill()
        for pid in pids:
            await ended(pid)
        lines = notes.read_text().splitlines()
        assert sorted(lines[2:]) == sorted(f"stop {pid}" for pid in pids), "they stopped in order"
    finally:
        os.close(ready)
        process.kill()
        process.wait()
