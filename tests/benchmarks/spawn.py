"""Commands per second, `sh -c 'echo x'` with its output captured: the adapter beside two bare ways.

`python tests/benchmarks/spawn.py [commands] [concurrency …]` prints the figures.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from gbe_envoy.adapter import Command, CommandRunner

ARGV = ("sh", "-c", "echo x")
EXPECTED = b"x\n"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}


async def adapter_rate(n: int, concurrency: int, *, work_dirs: bool = False) -> float:
    """Commands per second of the adapter; with `work_dirs`, each in a new working directory of its own."""
    async with CommandRunner() as runner:
        environment = _environment()

        async def serve(count: int) -> None:
            for _ in range(count):
                directory = runner.make_work_dir() if work_dirs else None
                result = await runner.run(Command(ARGV, environment, cwd=None if directory is None else str(directory)))
                assert result.stdout == EXPECTED, result
                if directory is not None:
                    await runner.remove_work_dir(directory)

        await serve(2 * concurrency)
        started = time.perf_counter()
        await asyncio.gather(*(serve(count) for count in _shares(n, concurrency)))
        return n / (time.perf_counter() - started)


def threads_rate(n: int, concurrency: int) -> float:
    """Commands per second of `subprocess.run` in as many threads."""
    environment = _environment()

    def serve(_: int) -> None:
        result = subprocess.run(ARGV, env=environment, capture_output=True, check=True)
        assert result.stdout == EXPECTED

    with ThreadPoolExecutor(concurrency) as pool:
        started = time.perf_counter()
        for _ in pool.map(serve, range(n)):
            pass
        return n / (time.perf_counter() - started)


def bare_posix_spawn_rate(n: int, concurrency: int) -> float:
    """Commands per second of the least one can do on an event loop: posix_spawn, readers on pipes and pidfd."""
    return asyncio.run(_bare(n, concurrency))


async def _bare(n: int, concurrency: int) -> float:
    loop = asyncio.get_running_loop()
    environment = _environment()

    async def command() -> None:
        done = loop.create_future()
        stdout, stdout_end = os.pipe()
        stderr, stderr_end = os.pipe()
        pid = os.posix_spawn(
            "/bin/sh",
            ARGV,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, stdout_end, 1), (os.POSIX_SPAWN_DUP2, stderr_end, 2)],
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
        os.close(stdout_end)
        os.close(stderr_end)
        pidfd = os.pidfd_open(pid)
        output: list[bytes] = []
        waiting = {stdout, stderr, pidfd}

        def ready(fd: int) -> None:
            data = b"" if fd == pidfd else os.read(fd, 65536)
            if data:
                output.append(data)
                return
            loop.remove_reader(fd)
            os.close(fd)
            waiting.discard(fd)
            if not waiting:
                done.set_result(None)

        for fd in tuple(waiting):
            loop.add_reader(fd, ready, fd)
        await done
        os.waitpid(pid, 0)
        assert b"".join(output) == EXPECTED

    async def serve(count: int) -> None:
        for _ in range(count):
            await command()

    started = time.perf_counter()
    await asyncio.gather(*(serve(count) for count in _shares(n, concurrency)))
    return n / (time.perf_counter() - started)


def _shares(n: int, concurrency: int) -> list[int]:
    return [n // concurrency + (index < n % concurrency) for index in range(concurrency)]


def main() -> None:
    n, *levels = [int(item) for item in sys.argv[1:]] or [2000, 2, 4, 8, 16]
    print(
        f"{'concurrency':>11} {'adapter':>8} {'+ cwd':>8} {'threads':>8} {'bare':>8} {'ratio':>6}   commands/s, n={n}"
    )
    for level in levels:
        adapter = asyncio.run(adapter_rate(n, level))
        with_dirs = asyncio.run(adapter_rate(n, level, work_dirs=True))
        threads, bare = threads_rate(n, level), bare_posix_spawn_rate(n, level)
        ratio = adapter / max(threads, bare)
        print(f"{level:>11} {adapter:>8.0f} {with_dirs:>8.0f} {threads:>8.0f} {bare:>8.0f} {ratio:>6.2f}")


if __name__ == "__main__":
    main()
