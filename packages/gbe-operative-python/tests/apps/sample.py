"""Tasks for tests: imported by the Operative and by the processes it starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbe_operative_python import App, Cancelled, File, Reject, Retry, Skip, current

app = App(environment=["SAMPLE_*"], recycle_after=50, grace=1.0)
print("imported")


@dataclass
class Size:
    width: int
    height: int = 600


@app.task("resize-image", slots=2)
async def resize(path: str, width: int = 800) -> dict[str, Any]:
    """As in the README."""
    print("resizing", path)
    await asyncio.sleep(0)
    return {"path": path, "width": width}


@app.task
def area(size: Size) -> int:
    return size.width * size.height


@app.task
def who() -> dict[str, Any]:
    context = current()
    return {
        "pid": os.getpid(),
        "task_id": context.task_id,
        "task_name": context.task_name,
        "task_type": context.task_type,
        "job_id": context.job_id,
        "attempt": context.attempt,
        "cwd": os.getcwd(),
        "environment": sorted(os.environ),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "argv": sys.argv,
    }


@app.task
def scratch(word: str) -> list[str]:
    directory = current().work_dir
    (directory / word).write_text(word)
    os.chdir(directory)
    return [str(directory), *os.listdir(directory)]


@app.task
def speak(out: str, err: str = "") -> None:
    print(out)
    print(err, file=sys.stderr)
    sys.stdout.write("no end")
    sys.stdout.flush()
    os.write(1, b" raw\n")
    subprocess.run(["sh", "-c", "echo by a command"], check=True)


@app.task
def shout(lines: int, width: int = 999) -> int:
    chunk = ("x" * width + "\n") * 100
    for _ in range(lines // 100):
        sys.stdout.write(chunk)
    return lines


@app.task
async def live(up_to: Path) -> str:
    print("here", flush=True)
    current().progress("half way", {"done": 50})
    while not up_to.exists():
        await asyncio.sleep(0.005)
    return "seen"


@app.task
def fail(message: str = "") -> None:
    inner(message)


def inner(message: str) -> None:
    raise ValueError(message)


@app.task
def say(how: str) -> None:
    raise {"retry": Retry("not yet"), "reject": Reject("never"), "skip": Skip("nothing to do")}[how]


@app.task
def flaky(counter: Path, times: int) -> int:
    count = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(count))
    if count <= times:
        raise Retry(f"attempt {current().attempt} of many")
    return count


@app.task
def leave(code: int) -> None:
    sys.exit(code)


@app.task
def die(number: int = 9) -> None:
    print("last words", flush=True)
    os.kill(os.getpid(), number)


@app.task
def vanish() -> None:
    os._exit(3)


@app.task
def unencodable() -> object:
    return {"thread": threading.current_thread()}


@app.task
def give(kind: str, size: int = 0) -> Any:
    return {
        "none": None,
        "list": ["y"] * size,
        "text": "y" * size,
        "size": Size(1),
        "path": Path("/a"),
        "set": {1},
        "nan": float("nan"),
        "range": range(3),
    }[kind]


@app.task
def make_file(text: str) -> File:
    file = current().work_dir / "made.txt"
    file.write_text(text)
    return File(file)


@app.task
def no_file() -> File:
    return File("/nowhere/at/all")


@app.task
def read_file(text_ref: Path) -> dict[str, str]:
    return {"text": text_ref.read_text(), "name": text_ref.name}


@app.task
def uri(text_ref: str) -> str:
    return text_ref


@app.task
def tell(secret: str, size: int = 0) -> dict[str, str]:
    print("the secret is", secret)
    print("and again", secret, file=sys.stderr)
    current().progress(f"have {secret}")
    return {"masked": current().mask(f"<{secret}>"), "plain": secret}


@app.task
def wait(pid_file: Path, how: str = "sync") -> None:
    """Without end, with a child that would go on."""
    child = subprocess.Popen(["sleep", "600"])
    pid_file.write_text(f"{os.getpid()} {child.pid}")
    print("up", flush=True)
    try:
        if how == "stubborn":
            while True:
                with contextlib.suppress(BaseException):
                    time.sleep(600)
        time.sleep(600)
    except Cancelled:
        print("cleaned up")
        raise


@app.task
async def wait_async(pid_file: Path) -> None:
    pid_file.write_text(str(os.getpid()))
    print("up", flush=True)
    try:
        await asyncio.sleep(600)
    finally:
        print("cleaned up")


@app.task
async def linger() -> int:
    """Leaves an asyncio task behind."""
    asyncio.get_running_loop().create_task(asyncio.sleep(600))
    await asyncio.sleep(0)
    return len(asyncio.all_tasks())


@app.task
async def cling() -> int:
    """Leaves one behind that will not be cancelled."""

    async def for_ever() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(600)

    asyncio.get_running_loop().create_task(for_ever())
    await asyncio.sleep(0)
    return os.getpid()


@app.task
def chatter() -> None:
    """Goes on printing when it has ended."""

    def talk() -> None:
        while True:
            print("chatter " * 1000)

    threading.Thread(target=talk, daemon=True).start()


@app.task
def spoil(what: str) -> int:
    """Leaves the process in a state in which nobody else would want it."""
    if what == "close":
        sys.stdout.close()
    elif what == "replace":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    elif what == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif what == "descriptors":
        os.closerange(1, 3)
    elif what == "redirect":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    elif what == "interfere":
        os.write(3, b"\xff" * 1000)
        time.sleep(600)
    elif what == "progress":
        for _ in range(1000):
            current().progress("x" * 100_000, "y" * 1_000_000)
    elif what == "message":
        raise ValueError("z" * 10_000_000)
    return os.getpid()


@app.task
def fork(pid_file: Path, end: str) -> str:
    """Becomes two, of which the second forgets to end."""
    pid = os.fork()
    if not pid:
        if end == "raise":
            raise RuntimeError("the second one")
        return "child"
    pid_file.write_text(str(pid))
    return "parent"


@app.task
def fork_and_terminate() -> int:
    """How the other one ended."""
    pid = os.fork()
    if not pid:
        time.sleep(600)
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@app.task
async def busy(seconds: float) -> float:
    """For a while."""
    await asyncio.sleep(seconds)
    return seconds


@app.task
async def meet(own: Path, others: Path) -> None:
    """Until four of them are there."""
    own.write_text(str(os.getpid()))
    while len([file for file in others.iterdir() if file.read_text()]) < 4:
        await asyncio.sleep(0.005)


@app.task
def noop() -> None: ...
