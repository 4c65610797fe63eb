"""A job as a test report: JUnit XML, as Jenkins, GitLab and others read it. Pure, but for `write_report`.

The job is a test suite and each task a test case. A task that failed by itself (an exit code, an expectation that was
not met) is a `failure`; one that never came to a judgement (timed out, lost, rejected) an `error`; one that did not run
to its end because of others, or of a cancel, is `skipped`. There is no standard for the format; elements and attributes
are those that every reader known to us accepts.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as Xml

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped
from gbe_jobs_domain.states import JobState, TaskState
from gbe_overseer.view import JobView, TaskView

OUTPUT_CHARACTERS: Final = 64 * 1024
"""Of a task's output, its end."""

ERROR_CHARACTERS: Final = 64 * 1024

_MESSAGE: Final = 300
# What XML 1.0 (section 2.2) has no place for, however it is written.
_NO_CHARACTERS: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_report(view: JobView, now: int) -> bytes:
    """The report of a job that is over, or as far as it came."""
    counts: Counter[str] = Counter()
    suite = Xml.Element("testsuite", name=_clean(view.name or view.job_id))
    properties = Xml.SubElement(suite, "properties")
    for name, value in (("job_id", view.job_id), ("job_type", view.job_type), ("state", view.state.value)):
        Xml.SubElement(properties, "property", name=name, value=_clean(value))
    in_the_way = _in_the_way(view)
    for task in view.tasks:
        case = Xml.SubElement(suite, "testcase", name=_clean(task.name), classname=_clean(view.job_type))
        case.set("time", _seconds(task.elapsed_ms(now)))
        counts[_judge(case, view, task, in_the_way)] += 1
        _outputs(case, task)
    if view.state is JobState.FAILED and not counts["failure"] and not counts["error"]:
        # The job itself failed: without a case that says so the report would look like a success.
        case = Xml.SubElement(suite, "testcase", name=_clean(view.name or "job"), classname=_clean(view.job_type))
        case.set("time", "0.000")
        _add(case, "error", "job", view.error or "the job failed")
        counts["error"] += 1
    tests = {"tests": str(counts.total()), "failures": str(counts["failure"]), "errors": str(counts["error"])}
    time = _seconds(view.elapsed_ms(now))
    suite.attrib |= {**tests, "skipped": str(counts["skipped"]), "time": time}
    if view.created_at:
        began = datetime.fromtimestamp(view.created_at / 1000, UTC)
        suite.set("timestamp", began.strftime("%Y-%m-%dT%H:%M:%S"))
    root = Xml.Element("testsuites", {"name": suite.attrib["name"], **tests, "time": time})
    root.append(suite)
    Xml.indent(root)
    body: bytes = Xml.tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + body + b"\n"


def _judge(case: Xml.Element, view: JobView, task: TaskView, in_the_way: Mapping[str, str]) -> str:
    outcome = task.outcome
    if task.state is TaskState.COMPLETED:
        return "passed"
    if isinstance(outcome, Failed) and outcome.kind is not FailureKind.CANCELLED:
        kind = "failure" if outcome.kind is FailureKind.ERROR else "error"
        _add(case, kind, outcome.kind.value, outcome.error or f"exit code {outcome.exit_code}")
        return kind
    if task.state is TaskState.FAILED:
        _add(case, "error", "unknown", "failed, and its outcome is not known")
        return "error"
    if isinstance(outcome, Skipped):
        why = outcome.reason
    else:
        why = "not run"
        if task.began_at or task.child_job:
            why = "cancelled" if task.state is TaskState.CANCELLED else "not finished"
        if failed := in_the_way.get(task.name, view.failed_task):
            why += f": {failed} failed"
        elif view.reason:
            why += f": {view.reason}"
    Xml.SubElement(case, "skipped", message=_message(why))
    return "skipped"


def _in_the_way(view: JobView) -> dict[str, str]:
    """By task that could not run the failed one that it depends on; empty where only one failed."""
    failed = [one.name for one in view.tasks if one.state is TaskState.FAILED]
    if len(failed) < 2:
        return {}
    dependents: dict[str, list[str]] = {}
    for one in view.tasks:
        for name in one.depends_on:
            dependents.setdefault(name, []).append(one.name)
    found: dict[str, str] = {}
    for culprit in failed:
        queue = [culprit]
        while queue:
            for name in dependents.get(queue.pop(), ()):
                if name not in found:
                    found[name] = culprit
                    queue.append(name)
    return found


def _add(case: Xml.Element, kind: str, type_: str, text: str) -> None:
    Xml.SubElement(case, kind, message=_message(text), type=type_).text = _clean(text[:ERROR_CHARACTERS])


def _outputs(case: Xml.Element, task: TaskView) -> None:
    outcome = task.outcome
    if not isinstance(outcome, Completed | Failed):
        return
    output = "\n".join(outcome.output)
    if isinstance(outcome.data, Ref) and outcome.data.uri not in output:
        output = f"[all of it is in {outcome.data.uri}]\n{output}"
    for name, text in (("system-out", output), ("system-err", outcome.stderr)):
        if text:
            cut = len(text) - OUTPUT_CHARACTERS
            shown = f"[… {cut} characters before …]\n{text[-OUTPUT_CHARACTERS:]}" if cut > 0 else text
            Xml.SubElement(case, name).text = _clean(shown)


def _message(text: str) -> str:
    """The first line that says something."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return _clean(first if len(first) <= _MESSAGE else first[: _MESSAGE - 1] + "…")


def _clean(text: str) -> str:
    return _NO_CHARACTERS.sub("", text)


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3f}"


def view_of(definition: JobDefinition, *, error: str = "", reason: str = "", job_id: str = "") -> JobView:
    """A job that came to nothing, for its report: none of its tasks was run."""
    return JobView(
        job_id,
        definition.name,
        definition.job_type,
        definition.org,
        state=JobState.FAILED if error else JobState.CANCELLED,
        error=error,
        reason=reason,
        tasks=[TaskView(index, task.name, task.task_type) for index, task in enumerate(definition.tasks)],
    )


def write_report(path: Path, report: bytes) -> None:
    """Write the file, as a whole or not at all. Raises OSError."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(report)
            file.flush()
            os.fsync(fd)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
