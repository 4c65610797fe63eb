"""Apps that need a worker of their own: those that can't be served, and what is seen of their processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.outcomes import Completed
from gbe_operative.apps import load_app
from gbe_operative_command.testing import runs
from gbe_operative_python import processes

APPS = Path(__file__).with_name("apps")

Hall = Any  # of `gbe_operative.testing`: what it returns is a union, which each test knows better


def data(outcome: Any) -> Any:
    assert isinstance(outcome, Completed), outcome
    assert outcome.data is not None
    return outcome.data.decoded()  # type: ignore[union-attr]


async def pids_in(file: Path) -> list[int]:
    async with asyncio.timeout(10):
        while not (file.exists() and file.read_text()):
            await asyncio.sleep(0.005)
    return [int(word) for word in file.read_text().split()]


@pytest.fixture
async def hall_with_sample(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> Hall:
    monkeypatch.syspath_prepend(str(APPS))
    await hall.worker(load_app("sample:app")).start()
    return hall


async def test_a_worker_that_stops_hands_back_what_runs(hall_with_sample: Hall, tmp_path: Path) -> None:
    hall = hall_with_sample
    await hall.queue(hall.task("w", "wait", params={"pid_file": str(tmp_path / "pids")}))
    pids = await pids_in(tmp_path / "pids")
    await hall.close()
    assert not [pid for pid in pids if runs(pid)]
    assert (hall.ended, await hall.queued()) == ([], 1)


async def test_processes_that_nobody_needs_any_more_are_ended(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(APPS))
    monkeypatch.setattr(processes, "IDLE_FOR", 0.05)
    await hall.worker(load_app("sample:app")).start()
    files = [tmp_path / str(number) for number in range(4)]
    await hall.queue(
        *[hall.task(file.name, "meet", params={"own": str(file), "others": str(tmp_path)}) for file in files]
    )
    await hall.ends(4)
    pids = {int(file.read_text()) for file in files}
    assert len(pids) == 4
    async with asyncio.timeout(10):
        while len([pid for pid in pids if runs(pid)]) > 1:
            await asyncio.sleep(0.01)
    await hall.queue(hall.task("t", "who"))
    assert data((await hall.ends(5))[4].outcome)["pid"] in pids


async def test_who_prints_after_the_end_disturbs_nobody(hall_with_sample: Hall) -> None:
    hall = hall_with_sample
    for count, task_type in enumerate(("chatter", "noop"), start=1):
        await hall.queue(hall.task("t", task_type))
        assert isinstance((await hall.ends(count))[-1].outcome, Completed)


async def test_an_app_that_fails_only_in_its_processes(
    hall: Hall, write_app: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_app(
        "needy",
        "import os\nfrom gbe_operative_python import task\nos.environ['NEEDED_BY_APP']\n@task\ndef t() -> None: ...\n",
    )
    monkeypatch.setenv("NEEDED_BY_APP", "x")
    worker = hall.worker(load_app("needy"))
    with pytest.raises(Exception, match="needy can't be imported in a process of its own: KeyError: 'NEEDED_BY_APP'"):
        await worker.start()


async def test_an_app_that_ends_its_process(
    hall: Hall, write_app: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_app(
        "leaving",
        "import os\nfrom gbe_operative_python import task\n'ONLY_WORKER' in os.environ or os._exit(9)\n"
        "@task\ndef t() -> None: ...\n",
    )
    monkeypatch.setenv("ONLY_WORKER", "x")
    with pytest.raises(Exception, match=r"leaving ended \(exit code 9\) before it could run anything: no word"):
        await hall.worker(load_app("leaving")).start()


async def test_memory_is_bounded_where_the_app_says_so(hall: Hall, write_app: Callable[[str, str], None]) -> None:
    write_app(
        "hungry",
        "import os\nfrom gbe_operative_python import App\napp = App(max_memory=200 << 20)\nkept = []\n"
        "@app.task\ndef eat(mb: int) -> int:\n    kept.append(b'x' * (mb << 20))\n    return os.getpid()\n",
    )
    await hall.worker(load_app("hungry"), slots=1).start()
    for megabytes in (1, 1, 250, 1):
        await hall.queue(hall.task("t", "eat", params={"mb": str(megabytes)}))
        await hall.ends(len(hall.ended) + 1)
    first, second, third, fourth = (data(end.outcome) for end in hall.ended)
    assert first == second == third != fourth
