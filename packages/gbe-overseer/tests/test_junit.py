"""The JUnit report: what each end of a task becomes, and whether CI systems can read it.

`check` holds what the parsers of Jenkins' JUnit plug-in (its documented schema, `junit-10.xsd` of the xUnit plug-in)
and GitLab's (`Gitlab::Ci::Parsers::Test::Junit`) ask for: which elements are where, with which attributes.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from xml.etree import ElementTree as Xml

import msgspec
import pytest

from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped, TaskOutcome
from gbe_jobs_domain.states import JobState, TaskState
from gbe_overseer.junit import junit_report, view_of, write_report
from gbe_overseer.view import JobView, TaskView

# Element to its attributes (True: required) and the elements within it.
SCHEMA: dict[str, tuple[dict[str, bool], set[str]]] = {
    "testsuites": ({"name": False, "time": False, "tests": False, "failures": False, "errors": False}, {"testsuite"}),
    "testsuite": (
        {
            **{"name": True, "tests": True, "failures": True, "errors": True},
            **{"time": False, "skipped": False, "timestamp": False, "hostname": False, "id": False, "file": False},
        },
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": ({}, {"property"}),
    "property": ({"name": True, "value": True}, set()),
    "testcase": (
        {"name": True, "classname": True, "time": False},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "skipped": ({"message": False, "type": False}, set()),
    "error": ({"message": False, "type": False}, set()),
    "failure": ({"message": False, "type": False}, set()),
    "system-out": ({}, set()),
    "system-err": ({}, set()),
}


def check(report: bytes) -> Xml.Element:
    """Parse it as they do, and hold what they ask for. The suite."""
    root = Xml.fromstring(report)
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, within = SCHEMA[element.tag]
        assert set(element.attrib) <= set(attributes), element.tag
        assert {name for name, required in attributes.items() if required} <= set(element.attrib), element.tag
        assert {inner.tag for inner in element} <= within, element.tag
        if "time" in element.attrib:
            assert re.fullmatch(r"\d+\.\d{3}", element.attrib["time"])
    (suite,) = root
    cases = suite.findall("testcase")
    for counted, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.attrib[counted]) == sum(case.find(tag) is not None for case in cases)
    assert int(suite.attrib["tests"]) == len(cases)
    assert all(sum(case.find(tag) is not None for tag in ("failure", "error", "skipped")) <= 1 for case in cases)
    return suite


def task(index: int, name: str, state: TaskState, outcome: TaskOutcome | None = None) -> TaskView:
    raw = None if outcome is None else msgspec.Raw(msgspec.json.encode(outcome))
    return TaskView(index, name, "assert", state=state, started_at=1_000, ended_at=1_250, raw_outcome=raw)


def job(*tasks: TaskView, state: JobState = JobState.COMPLETED, **fields: str) -> JobView:
    view = JobView("job_1", "a suite", "suite", created_at=1_000, ended_at=3_500, tasks=list(tasks), state=state)
    view.error, view.reason = fields.get("error", ""), fields.get("reason", "")
    view.failed_task = fields.get("failed_task")
    return view


def test_a_suite_that_passes() -> None:
    suite = check(junit_report(job(task(0, "a", TaskState.COMPLETED, Completed(["x", "y"], "careful\n"))), 0))
    assert suite.attrib == {
        "name": "a suite",
        "tests": "1",
        "failures": "0",
        "errors": "0",
        "skipped": "0",
        "time": "2.500",
        "timestamp": "1970-01-01T00:00:01",
    }
    (case,) = suite.findall("testcase")
    assert case.attrib == {"name": "a", "classname": "suite", "time": "0.250"}
    assert (case.findtext("system-out"), case.findtext("system-err")) == ("x\ny", "careful\n")


def test_each_end() -> None:
    diff = "stdout is not what was expected\n--- expected\n+++ actual\n-a\n+b"
    suite = check(
        junit_report(
            job(
                task(0, "passes", TaskState.COMPLETED, Completed()),
                task(1, "fails", TaskState.FAILED, Failed(diff, exit_code=1, stderr="e", output=["b"])),
                task(2, "late", TaskState.FAILED, Failed("timed out after 1 s", FailureKind.TIMEOUT, 124)),
                task(3, "rejected", TaskState.FAILED, Failed("missing param: command", FailureKind.REJECTED)),
                task(4, "cancelled", TaskState.CANCELLED, Failed("cancelled", FailureKind.CANCELLED)),
                task(5, "skipped", TaskState.SKIPPED, Skipped("nothing to do")),
                TaskView(6, "blocked", "assert"),
                TaskView(8, "runs", "assert", state=TaskState.RUNNING, started_at=1_000),
                task(7, "damaged", TaskState.FAILED),
                state=JobState.FAILED,
                failed_task="fails",
            ),
            0,
        )
    )
    cases = {case.attrib["name"]: case for case in suite.findall("testcase")}
    told = {
        name: next(((inner.tag, inner.attrib) for inner in case if not inner.tag.startswith("system")), None)
        for name, case in cases.items()
    }
    assert told == {
        "passes": None,
        "fails": ("failure", {"message": "stdout is not what was expected", "type": "error"}),
        "late": ("error", {"message": "timed out after 1 s", "type": "timeout"}),
        "rejected": ("error", {"message": "missing param: command", "type": "rejected"}),
        "cancelled": ("skipped", {"message": "cancelled: fails failed"}),
        "skipped": ("skipped", {"message": "nothing to do"}),
        "blocked": ("skipped", {"message": "not run: fails failed"}),
        "runs": ("skipped", {"message": "not finished: fails failed"}),
        "damaged": ("error", {"message": "failed, and its outcome is not known", "type": "unknown"}),
    }
    assert cases["fails"].findtext("failure") == diff
    assert cases["fails"].findtext("system-out") == "b"


def test_what_did_not_run_names_the_failure_that_it_depends_on() -> None:
    failed = Failed("boom")
    suite = check(
        junit_report(
            job(
                task(0, "a", TaskState.FAILED, failed),
                task(1, "b", TaskState.FAILED, failed),
                TaskView(2, "after-a", "assert", depends_on=("a",), state=TaskState.CANCELLED),
                TaskView(3, "after-b", "assert", depends_on=("b",), state=TaskState.CANCELLED),
                TaskView(4, "at-last", "assert", depends_on=("after-b",), state=TaskState.CANCELLED),
                state=JobState.FAILED,
                failed_task="a",
            ),
            0,
        )
    )
    skipped = {case.attrib["name"]: case[0].attrib["message"] for case in suite.findall("testcase")[2:]}
    assert skipped == {
        "after-a": "not run: a failed",
        "after-b": "not run: b failed",
        "at-last": "not run: b failed",
    }


def test_a_job_that_failed_by_itself_is_no_success() -> None:
    suite = check(junit_report(job(task(0, "a", TaskState.COMPLETED), state=JobState.FAILED, error="refused"), 0))
    assert [case.attrib["name"] for case in suite.findall("testcase")] == ["a", "a suite"]
    assert suite.attrib["errors"] == "1"


def test_a_job_that_came_to_nothing() -> None:
    definition = JobDefinition("n", "t", [TaskDefinition("a", "shell"), TaskDefinition("b", "shell")])
    suite = check(junit_report(view_of(definition, reason="interrupted"), 0))
    assert [case[0].attrib["message"] for case in suite.findall("testcase")] == ["not run: interrupted"] * 2
    suite = check(junit_report(view_of(definition, error="no server"), 0))
    assert (suite.attrib["skipped"], suite.attrib["errors"]) == ("2", "1")


def test_what_xml_has_no_place_for() -> None:
    dirty = "a\x00\x08\x1b[31m<&>\"']]>\ufffe\ud800\U0001f600\ttab\r\nend"
    failed = Failed(dirty, output=[dirty], stderr=dirty)

    class Dirty(TaskView):
        @property
        def outcome(self) -> TaskOutcome:
            return failed  # lone surrogates pass no JSON, but may come from elsewhere

    report = junit_report(job(Dirty(0, "x", "shell", state=TaskState.FAILED), state=JobState.FAILED), 0)
    suite = check(report)
    clean = "a[31m<&>\"']]>\U0001f600\ttab\nend"
    assert suite.findtext("testcase/failure") == clean
    assert suite.findtext("testcase/system-out") == clean
    assert b"\x1b" not in report


def test_long_outputs_are_cut_to_their_ends() -> None:
    ref = Ref("gbe-artifacts", "job_1/out", 10**9, "0" * 64)
    ended = Completed(["x" * 100_000, "end"], data=ref)
    text = check(junit_report(job(task(0, "a", TaskState.COMPLETED, ended)), 0)).findtext("testcase/system-out") or ""
    assert text.startswith("[… ")
    assert text.endswith("x\nend")
    assert len(text) < 66_000


def test_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.xml"
    write_report(path, b"<one/>")
    write_report(path, b"<two/>")
    assert path.read_bytes() == b"<two/>"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(path, b"<three/>")
    assert path.read_bytes() == b"<two/>"
    assert os.listdir(tmp_path) == ["report.xml"]
