"""Output: bounded in memory, whole on disk, live as lines."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gbe_envoy.adapter import Command, CommandRunner, Limits, OutputError
from gbe_envoy.adapter.capture import LINE_BYTES, Lines, Output, Tail, at_line_start

ENV = {"PATH": os.environ["PATH"]}
Sh = Callable[..., Command]


def peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def _large(runner: CommandRunner, megabytes: int) -> None:
    line = "x" * 1023
    count = megabytes * 1024
    before = peak_rss()
    result = await runner.run(Command(["sh", "-c", f"yes {line} | head -n {count}"], ENV))
    assert peak_rss() - before < 16 * 1024**2
    assert result.exit_code == 0
    assert result.stdout_size == megabytes * 1024**2
    assert result.spill is not None
    assert result.spill.stat().st_size == result.stdout_size
    assert result.stdout == (line + "\n").encode() * 63  # 64 KiB hold 64 lines; one was cut
    result.spill.unlink()


async def test_64_megabytes_are_bounded_in_memory(runner: CommandRunner) -> None:
    await _large(runner, 64)


@pytest.mark.slow
async def test_500_megabytes_are_bounded_in_memory(runner: CommandRunner) -> None:
    await _large(runner, 500)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 262143, 262144, 262145, 1_500_000])
async def test_every_size_comes_back_whole(runner: CommandRunner, size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "data").write_bytes(data)
    result = await runner.run(Command(["cat", str(tmp_path / "data")], ENV))
    assert result.stdout_size == size
    if size <= 256 * 1024:
        assert result.spill is None
        assert result.stdout == data
    else:
        assert result.spill is not None
        assert result.spill.read_bytes() == data
        assert data.endswith(result.stdout)
        assert len(result.stdout) <= 64 * 1024


async def test_nul_bytes(runner: CommandRunner) -> None:
    result = await runner.run(Command(["head", "-c", "250000", "/dev/zero"], ENV))
    assert result.stdout == bytes(250_000)


async def test_stderr_keeps_its_tail(runner: CommandRunner, sh: Sh) -> None:
    result = await runner.run(sh("seq 1 200000 >&2"), limits=Limits(tail_bytes=100))
    assert result.stderr_size == 1_288_895
    assert result.stderr.endswith(b"199999\n200000\n")
    assert len(result.stderr) <= 100
    assert result.stderr.splitlines()[0] == b"199987"


async def test_the_output_limit_ends_the_command(runner: CommandRunner, sh: Sh) -> None:
    for max_bytes in (1000, 3_000_000):
        result = await runner.run(sh("yes"), limits=Limits(max_bytes=max_bytes))
        assert result.output_limit
        assert (result.signal, result.stdout_size) == ("SIGTERM", max_bytes)
        assert (result.spill is not None) == (max_bytes > 256 * 1024)
        if result.spill is not None:
            assert result.spill.stat().st_size == max_bytes


async def test_a_short_command_beyond_the_limit(runner: CommandRunner, sh: Sh) -> None:
    result = await runner.run(sh("echo 123456789"), limits=Limits(max_bytes=5))
    assert (result.output_limit, result.stdout, result.exit_code) == (True, b"12345", 0)


async def test_a_full_disk_ends_the_command_and_leaves_no_file(
    runner: CommandRunner, sh: Sh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    real = os.write

    def write(fd: int, data: bytes) -> int:
        nonlocal written
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(tmp_path)):
            written += len(data)
            if written > 2_000_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OutputError, match=r"cannot store the output of 'sh' after .* No space left on device"):
        await runner.run(sh("yes"))
    assert list(tmp_path.rglob("stdout-*")) == []


async def test_a_file_size_limit_of_the_system(tmp_path: Path) -> None:
    # Without any patching: the system itself refuses, in a process of its own.
    code = f"""
import asyncio, os, resource
from pathlib import Path
from gbe_envoy.adapter import Command, CommandRunner, OutputError
async def main():
    async with CommandRunner(spill_dir=Path({str(tmp_path)!r})) as runner:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        before = len(os.listdir("/proc/self/fd"))
        try:
            await runner.run(Command(["sh", "-c", "cat /dev/zero"], dict(os.environ)))
        except OutputError as error:
            print(error, list(Path({str(tmp_path)!r}).rglob("stdout-*")), len(os.listdir("/proc/self/fd")) - before)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert b"File too large; the command was ended [] 0" in output


async def test_lines_come_live_and_whole(runner: CommandRunner, sh: Sh, tmp_path: Path) -> None:
    seen: list[tuple[str, bytes]] = []
    go = tmp_path / "go"

    def on_line(stream: str, line: bytes) -> None:
        seen.append((stream, line))
        if line == b"first":
            go.touch()

    text = f"echo first; while [ ! -e {go} ]; do sleep 0.01; done; echo second >&2; printf 'par'; printf 'tial'"
    result = await runner.run(sh(text), on_line=on_line)
    assert seen[0] == ("stdout", b"first")
    assert sorted(seen[1:]) == [("stderr", b"second"), ("stdout", b"partial")]
    assert result.stdout == b"first\npartial"


async def test_a_failing_callback_does_not_break_the_capture(
    runner: CommandRunner, sh: Sh, caplog: pytest.LogCaptureFixture
) -> None:
    def on_line(stream: str, line: bytes) -> None:
        raise ValueError(stream)

    result = await runner.run(sh("seq 1 1000"), on_line=on_line)
    assert result.stdout.endswith(b"999\n1000\n")
    assert len(caplog.records) == 1


def test_long_lines_come_in_pieces() -> None:
    lines: list[bytes] = []
    splitter = Lines("stdout", lambda _, line: lines.append(line))
    for _ in range(10):
        splitter.feed(b"y" * 30_000)
    splitter.feed(b"z\nshort\n\nlast")
    splitter.end()
    assert lines[:4] == [b"y" * LINE_BYTES] * 4
    assert lines[4:] == [b"y" * (300_000 - 4 * LINE_BYTES) + b"z", b"short", b"", b"last"]


def test_tails() -> None:
    tail = Tail(10)
    for _ in range(100):
        tail.feed(b"abc\n")
    assert (tail.value(), tail.size) == (b"abc\nabc\n", 400)
    assert at_line_start(b"no line") == b"no line"
    assert at_line_start(b"cut off\n") == b"cut off\n"


def test_an_output_that_was_stored_can_be_discarded(tmp_path: Path) -> None:
    output = Output(tmp_path, 10, 1000)
    output.feed(b"x" * 11)
    assert output.due
    output.store(output.take())
    assert len(list(tmp_path.iterdir())) == 1
    output.discard()
    assert list(tmp_path.iterdir()) == []


class _Busy:
    """Takes so many lines and has the others counted."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.lines: list[bytes] = []
        self.skipped = 0

    def __call__(self, stream: str, line: bytes) -> None:
        self.lines.append(line)

    def skip(self, stream: str, lines: int) -> bool:
        if len(self.lines) < self.room:
            return False
        self.skipped += lines
        return True


@pytest.mark.parametrize("piece", [1, 7, 1000, 10**6])
def test_lines_that_nobody_wants_are_counted_and_not_made(piece: int) -> None:
    busy = _Busy(2000)
    splitter = Lines("stdout", busy)
    text = b"".join(b"%d\n" % number for number in range(50_000)) + b"last"
    for start in range(0, len(text), piece):
        splitter.feed(text[start : start + piece])
    splitter.end()
    assert busy.lines[:-1] == [b"%d" % number for number in range(len(busy.lines) - 1)]
    assert busy.lines[-1] == b"last"
    assert busy.room <= len(busy.lines) - 1 < busy.room + 1024
    assert len(busy.lines) - 1 + busy.skipped == 50_000


def test_all_lines_where_nothing_is_skipped() -> None:
    lines: list[bytes] = []
    splitter = Lines("stdout", lambda _, line: lines.append(line))
    text = b"".join(b"%d\n" % number for number in range(5_000))
    for start in range(0, len(text), 9_999):
        splitter.feed(text[start : start + 9_999])
    splitter.end()
    assert lines == text.split(b"\n")[:-1]
