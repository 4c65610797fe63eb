"""From command line to exit code, with real processes and real signals. Tests wait on pipes, not on clocks."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

PRELUDE = """
import asyncio, os, sys
from gbe_nexus import Unavailable
from gbe_runtime import ConfigurationError, Role, run_role

def say(text):
    print(text, flush=True)

class Plain(Role):
    name = "plain"
    async def _start(self):
        say("starting")
    async def _stop(self):
        say("stopping")

async def make():
    return Plain()
"""


@dataclass
class Running:
    """A process that runs a script, its ready pipe, and the end of the pipe that says we live."""

    process: subprocess.Popen[str]
    ready: int
    parent: int
    closed: list[int] = field(default_factory=list)

    @property
    def out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def wait_ready(self) -> bool:
        """Block until it says so (True) or closes the pipe without a word (False)."""
        return os.read(self.ready, 64) == b"ready\n"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def abandon(self) -> None:
        """What the kernel does when a supervisor is killed."""
        if self.parent not in self.closed:
            os.close(self.parent)
            self.closed.append(self.parent)

    def end(self) -> tuple[int, str, str]:
        """Its exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


Run = Callable[[str], Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a script (its last lines; what every script needs is there)."""
    started: list[Running] = []

    def start(script: str) -> Running:
        file = tmp_path / "script.py"
        file.write_text(PRELUDE + textwrap.dedent(script))
        ready, ready_end = os.pipe()
        parent_end, parent = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(ready_end, parent_end),
            env={**os.environ, "GBE_READY_FD": str(ready_end), "GBE_PARENT_FD": str(parent_end)},
        )
        os.close(ready_end)
        os.close(parent_end)
        started.append(Running(process, ready, parent))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.communicate()
        os.close(one.ready)
        one.abandon()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("use_uvloop", [False, True])
def test_a_signal_stops_the_role_in_order(run: Run, number: signal.Signals, use_uvloop: bool) -> None:
    running = run(f"sys.exit(run_role(make, use_uvloop={use_uvloop}))")
    assert running.wait_ready()
    assert os.read(running.ready, 1) == b"", "the ready pipe is closed"
    running.send(number)
    assert running.end() == (0, "starting\nstopping\n", "")


def test_the_end_of_the_supervisor_stops_the_role(run: Run) -> None:
    running = run("sys.exit(run_role(make))")
    assert running.wait_ready()
    running.abandon()
    code, out, err = running.end()
    assert (code, out) == (0, "starting\nstopping\n")
    assert "is gone" in err


STUBBORN = """
class Stubborn(Plain):
    async def _stop(self):
        say("stopping")
        await asyncio.Event().wait()
async def make():
    return Stubborn()
sys.exit(run_role(make, name="gbe-stubborn"))
"""


def test_a_second_interrupt_ends_the_process_at_once(run: Run) -> None:
    running = run(STUBBORN)
    assert running.wait_ready()
    running.send(signal.SIGINT)
    assert running.out.readline() == "starting\n"
    assert running.out.readline() == "stopping\n"
    running.send(signal.SIGINT)
    code, _, err = running.end()
    assert code == 130
    assert err == "gbe-stubborn: interrupted again, leaving at once\n"


def test_a_second_term_is_patient(run: Run) -> None:
    running = run(STUBBORN)
    assert running.wait_ready()
    for _ in range(3):
        running.send(signal.SIGTERM)
    assert running.out.readline() == "starting\n"
    assert running.out.readline() == "stopping\n"
    running.send(signal.SIGTERM)
    running.send(signal.SIGINT)
    running.send(signal.SIGTERM)
    assert running.process.poll() is None


def test_a_signal_in_the_middle_of_the_start(run: Run) -> None:
    running = run("""
    class Slow(Plain):
        async def _start(self):
            say("starting")
            await asyncio.Event().wait()
    async def make():
        return Slow()
    sys.exit(run_role(make))
    """)
    assert running.out.readline() == "starting\n"
    running.send(signal.SIGTERM)
    assert running.end() == (0, "stopping\n", "")
    assert not running.wait_ready()


def test_a_signal_while_the_role_is_made(run: Run) -> None:
    running = run("""
    async def make():
        say("making")
        try:
            await asyncio.Event().wait()
        finally:
            say("released")
    sys.exit(run_role(make))
    """)
    assert running.out.readline() == "making\n"
    running.send(signal.SIGTERM)
    assert running.end() == (0, "released\n", "")


@pytest.mark.parametrize("where", ["make", "start"])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        ('ConfigurationError("no server is named", "say --nats")', "gbe-x: no server is named; say --nats\n"),
        ('Unavailable("no answer\\nfrom nats://u:p@h")', "gbe-x: no answer\\nfrom nats://u:***@h\n"),
        ('__import__("gbe_nexus").UnsuitableServer("too old")', "gbe-x: too old\n"),
        ('__import__("gbe_nexus").PermissionDenied()', "gbe-x: PermissionDenied\n"),
        ('__import__("gbe_nexus").UnknownTransport("no x://")', "gbe-x: no x://\n"),
    ],
)
def test_a_wrong_environment_is_one_line_and_exit_code_2(run: Run, where: str, error: str, line: str) -> None:
    running = run(f"""
    class Wrong(Role):
        async def _start(self):
            raise {error}
    async def make():
        if {where!r} == "make":
            raise {error}
        return Wrong()
    sys.exit(run_role(make, name="gbe-x"))
    """)
    assert running.end() == (2, "", line)
    assert not running.wait_ready()


@pytest.mark.parametrize("where", ["make", "start", "run", "stop"])
def test_a_role_that_fails_by_itself_is_exit_code_1(run: Run, where: str) -> None:
    running = run(f"""
    class Failing(Plain):
        async def _start(self):
            if {where!r} == "start":
                raise ValueError("it went wrong")
            self.spawn(self._loop(), "loop")
        async def _loop(self):
            if {where!r} == "stop":
                os.kill(os.getpid(), 15)
                return
            raise ValueError("it went wrong")
        async def _stop(self):
            if {where!r} == "stop":
                raise ValueError("it went wrong")
    async def make():
        if {where!r} == "make":
            raise ValueError("it went wrong")
        return Failing()
    sys.exit(run_role(make, name="gbe-x"))
    """)
    code, _, err = running.end()
    assert code == 1
    assert "it went wrong" in err


def test_neither_pipe_reaches_the_processes_the_role_starts(run: Run) -> None:
    running = run("""
    import subprocess
    class Spawning(Plain):
        async def _start(self):
            code = 'import os; print(sorted(map(int, os.listdir("/proc/self/fd")))[3:-1], "GBE_READY_FD" in os.environ)'
            say(subprocess.check_output([sys.executable, "-c", code], text=True, close_fds=False).strip())
    async def make():
        return Spawning()
    sys.exit(run_role(make))
    """)
    assert running.wait_ready()
    assert running.out.readline() == "[] False\n"
    running.send(signal.SIGTERM)
    assert running.end()[0] == 0


@pytest.mark.parametrize("value", ["99", "x", "-1", "0"])
def test_a_descriptor_that_is_none_is_ignored(tmp_path: Path, value: str) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        PRELUDE
        + textwrap.dedent("""
        class Short(Plain):
            async def _start(self):
                self.spawn(self.stop(), "stop")
        async def make():
            return Short()
        sys.exit(run_role(make))
        """)
    )
    environ = {**os.environ, "GBE_READY_FD": value, "GBE_PARENT_FD": value}
    done = subprocess.run([sys.executable, str(file)], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"GBE_READY_FD='{value}' is ignored" in done.stderr


def test_a_command_reads_its_settings_and_logs(run: Run) -> None:
    running = run("""
    import logging
    from gbe_runtime import BusSettings, role_command
    class Talking(Plain):
        async def _start(self):
            logging.getLogger("x").info("here")
    async def make(settings):
        return Talking()
    sys.exit(role_command(BusSettings, make, name="gbe-x", description="d", argv=["--log-format", "json"]))
    """)
    assert running.wait_ready()
    running.send(signal.SIGTERM)
    code, _, err = running.end()
    assert code == 0
    assert '"role": "x", "logger": "x", "message": "here"' in err


def test_a_command_with_wrong_settings_says_each_in_a_line(run: Run) -> None:
    running = run("""
    from gbe_runtime import BusSettings, role_command
    argv = ["--replicas", "9", "--log-level", "loud"]
    sys.exit(role_command(BusSettings, make, name="gbe-x", description="d", argv=argv))
    """)
    code, out, err = running.end()
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "gbe-x: --replicas: '9' does not do: expected int <= 5",
        "gbe-x: --log-level: 'loud' is not one of debug, info, warning, error",
    ]
