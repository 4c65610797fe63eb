"""What stands on a terminal in the end: the tree, what was said beside it, and the results below."""

from __future__ import annotations

import asyncio
import io
import os
import signal

import msgspec
import pytest
from rich.console import Console

from gbe_jobs_domain.canonical import encode_definition
from gbe_jobs_domain.definitions import JobDefinition, JobOutline
from gbe_jobs_domain.outcomes import Completed, Failed, state_of
from gbe_jobs_domain.payloads import JobSummary, TaskSummary
from gbe_jobs_domain.records import JobRecord, JournalRecord
from gbe_overseer.following import Interrupts
from gbe_overseer.report import report
from gbe_overseer.tree import LiveTree
from gbe_overseer.view import JobView


def running(job: JobDefinition) -> JobView:
    view = JobView("job_1")
    body = encode_definition(job)
    created = JobRecord("job_1", job.job_type, job.org, 1_000, "sha", definition=msgspec.Raw(body))
    view.apply_created(created, msgspec.json.decode(body, type=JobOutline))
    view.apply_record(JournalRecord("o", dispatch=[0]), 1)
    return view


def end(view: JobView, *outcomes: Completed | Failed, error: str = "") -> None:
    tasks = [
        TaskSummary(task.name, "shell", state_of(o).value, 1, "w", 1_100, 1_350, msgspec.Raw(msgspec.json.encode(o)))
        for task, o in zip(view.tasks, outcomes, strict=True)
    ]
    state = "failed" if error else "completed"
    summary = JobSummary(
        "job_1", "o", "etl", "nightly", state, 1_000, 2_000, "sha", task_count=len(tasks), error=error, tasks=tasks
    )
    view.apply_summary(summary, tasks)


def tree(height: int = 24) -> tuple[LiveTree, io.StringIO]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, height=height, legacy_windows=False)
    return LiveTree(screen, console), screen


def test_below_the_tree_stand_the_results_alone(job: JobDefinition) -> None:
    view = running(job)
    end(view, Completed(output=["hello"]), Completed())
    assert list(report(view, 2_000, seen=True)) == ["", "a", "  | hello"]
    assert list(report(view, 2_000))[1:3] == ["  a: completed in 0.25 s", "    | hello"]


def test_why_a_task_failed_is_said_in_full_all_the_same(job: JobDefinition) -> None:
    view = running(job)
    why = "boom, " * 40 + "boom"
    end(view, Failed(error=why, output=["half"]), Completed(), error=why)
    view.failed_task = "a"
    assert list(report(view, 2_000, seen=True)) == ["", f"a: failed after 0.25 s: {why}", "  | half"]


def test_nothing_where_there_is_nothing_to_add(job: JobDefinition) -> None:
    view = running(job)
    end(view, Completed(), Completed())
    assert list(report(view, 2_000, seen=True)) == []


@pytest.mark.parametrize(("height", "all_of_it"), [(24, True), (4, False)])
def test_the_tree_knows_whether_it_told_all(job: JobDefinition, height: int, all_of_it: bool) -> None:
    live, _ = tree(height)
    more = [msgspec.structs.replace(job.tasks[0], name=f"x{number}") for number in range(4)]
    view = running(JobDefinition("wide", "etl", [*job.tasks, *more]))
    live.show(view, [])
    assert not live.tells_all
    end(view, *[Completed()] * len(view.tasks))
    live.show(view, [])
    live.close()
    assert live.tells_all is all_of_it


def test_what_is_said_stands_on_a_line_of_its_own(job: JobDefinition) -> None:
    live, screen = tree()
    view = running(job)
    live.show(view, [])
    live.say("gbe: interrupted [1]")
    live.close()
    _, _, said = screen.getvalue().partition("gbe: interrupted [1]")
    assert said.startswith("\n")
    assert "  shell" in said  # the tree, below it


async def test_who_leaves_at_once_gives_the_cursor_back(job: JobDefinition, monkeypatch: pytest.MonkeyPatch) -> None:
    left = asyncio.Event()
    monkeypatch.setattr(os, "_exit", lambda code: left.set())
    live, screen = tree()
    live.show(running(job), [])
    with Interrupts() as interrupts:
        interrupts.last_words.append(live.close)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(interrupts.first.wait(), 5)
        assert "\x1b[?25h" not in screen.getvalue()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(left.wait(), 5)
    assert "\x1b[?25h" in screen.getvalue()
