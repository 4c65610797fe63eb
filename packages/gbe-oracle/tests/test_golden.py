"""Journals recorded by an earlier release: today's code makes the same state and the same effects of them.

Each file in `golden/` is one job: a line per journal record, exactly as it was written. Beside it is what followed from
them. `python packages/gbe-oracle/tests/test_golden.py` records what is missing; it never replaces anything, since a
difference is either a mistake or a change of the protocol.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import Raw, json

from gbe_jobs_domain.definitions import JobDefinition, JobOutline, TaskDefinition
from gbe_jobs_domain.edges import inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, Skipped, TaskOutcome, state_of
from gbe_jobs_domain.payloads import Parent
from gbe_jobs_domain.records import JobRecord, JournalRecord
from gbe_nexus import ArtifactStore, Outgoing, PayloadDecoder, encode_payload
from gbe_oracle.core import messages
from gbe_oracle.core.events import CancelRequested, ChildStarted, DeadlinePassed, DispatchRefused, JobEvent, Reported
from gbe_oracle.core.job import Job
from gbe_oracle.effects import Effects
from gbe_oracle.loading import Loader
from gbe_oracle.slots import Entry, Slot

GOLDEN = Path(__file__).parent / "golden"
WINDOW = 2
_record = PayloadDecoder(JournalRecord)


def replayed(lines: list[bytes]) -> dict[str, Any]:
    """All that follows from a journal: the state after each record, its effects, and the summary of a finished job."""
    nothing = cast(Loader, None), cast(ArtifactStore, None)
    effects = Effects(*nothing, identity="oracle-1", max_payload=1 << 20)
    steps: list[dict[str, Any]] = []
    slot: Slot | None = None
    job: Job | None = None
    for seq, line in enumerate(lines, start=1):
        record = _record.decode(line).data
        if record.created is not None:
            spec = record.created
            slot = Slot(spec.job_type, spec.job_id)
            job = Job(spec, json.decode(bytes(spec.definition or b""), type=JobOutline), window=WINDOW)
            slot.created_at_seq = seq
        if job is None or slot is None:  # a cancel that came before its submit
            steps.append({"tombstone": record.cancel})
            continue
        job.replay(record, seq)
        slot.job = job
        for outcome in record.outcomes:
            slot.outcomes[outcome.index] = outcome
        entry = Entry(slot, job, record, 0, [])
        entry.seq = seq
        outgoing: list[Outgoing] = []
        assert effects.build(entry, outgoing) is not None
        slot.settled.add(seq)
        steps.append({**state_after(job), "effects": [effect(message) for message in outgoing]})
    assert job is not None
    assert slot is not None
    found: dict[str, Any] = {"steps": steps}
    if job.final is not None:
        tasks = [messages.task_summary(job, index, slot.outcomes.get(index)) for index in range(len(job.graph))]
        found["summary"] = json.decode(json.encode(messages.summary(job, job.final, tasks)))
    return found


def state_after(job: Job) -> dict[str, Any]:
    return {
        "job": job.state.value,
        "tasks": [job.task_state(index).value for index in range(len(job.graph))],
        "unmet": list(job.unmet),
        "ready": {name: list(queue) for name, queue in sorted(job.ready.items()) if queue},
        "outstanding": {name: count for name, count in sorted(job.outstanding.items()) if count},
        "applied_at": list(job.applied_at),
        "open": job.open_tasks,
        "children": {str(index): list(child) for index, child in sorted(job.children.items())},
    }


def effect(message: Outgoing) -> dict[str, Any]:
    body = json.decode(message.payload)
    del body["ts"]  # when it was sent
    return {"subject": message.subject, "msg_id": message.msg_id, "body": body}


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.jsonl")), ids=lambda file: file.stem)
def test_a_recorded_journal_leads_to_the_same_state_and_effects(file: Path) -> None:
    expected = json.decode(file.with_suffix(".expected.json").read_bytes())
    assert json.decode(json.encode(replayed(file.read_bytes().splitlines()))) == expected


def test_there_are_recorded_journals() -> None:
    assert {file.stem for file in GOLDEN.glob("*.jsonl")} == {name for name, _ in recordings()}


# --- recording -----------------------------------------------------------------------------------------


class Recorder:
    """Runs the core without a bus, at a fixed time, and keeps what it writes."""

    def __init__(self, tasks: list[TaskDefinition], *, fail_fast: bool = True, **more: Any) -> None:
        body = json.encode(JobDefinition("golden", "test", tasks, fail_fast=fail_fast))
        self.spec = JobRecord("job_golden", "test", "org_acme", 1000, "5ha", definition=Raw(body), **more)
        self.job = Job(self.spec, json.decode(body, type=JobOutline), window=WINDOW)
        self.lines: list[bytes] = []

    def create(self, tombstone: str | None = None) -> Recorder:
        if tombstone is not None:
            self._write(JournalRecord("oracle-1", cancel=tombstone))
        return self._write(self.job.create("oracle-1", 1000, tombstone=tombstone))

    def then(self, *events: JobEvent) -> Recorder:
        record = self.job.decide(events, "oracle-1", 2000 + len(self.lines)).record
        assert record is not None
        return self._write(record)

    def _write(self, record: JournalRecord) -> Recorder:
        self.lines.append(encode_payload(f"job_golden:{len(self.lines)}:record", record, 3000))
        self.job.committed(record, len(self.lines))
        return self


def ended(index: int, outcome: TaskOutcome | None = None, attempt: int = 1) -> Reported:
    outcome = outcome or Completed(output=[f"line {index}"], data=inline({"n": index}))
    error = outcome.error if isinstance(outcome, Failed) else ""
    body = Raw(json.encode(outcome))
    return Reported(index, state_of(outcome).value, attempt, attempt, f"worker-{index}", 1500, 1600, body, error)


def task(name: str, *needs: str, task_type: str = "shell", reads: str = "", **more: Any) -> TaskDefinition:
    inputs = {"SOURCE": reads} if reads else {}
    return TaskDefinition(name, task_type, depends_on=list(needs), input_from=inputs, **more)


def recordings() -> Iterator[tuple[str, list[bytes]]]:
    """The jobs that are recorded."""
    diamond = [
        task("a", params={"command": "echo"}, timeout_secs=9, max_retries=2),
        task("b", "a", reads="a.n"),
        task("c", "a", task_type="http"),
        task("d", "b", "c", reads="c"),
    ]
    yield "completed", Recorder(diamond).create().then(ended(0)).then(ended(2), ended(1)).then(ended(3)).lines
    yield "unfinished", Recorder(diamond).create().then(ended(0, attempt=3)).then(ended(1, Skipped("no need"))).lines
    failure = Failed("boom", exit_code=7, stderr="tail")
    yield "failed", Recorder(diamond).create().then(ended(0)).then(ended(2, failure), ended(1)).lines
    beside = Recorder(diamond, fail_fast=False).create().then(ended(0)).then(ended(2, failure))
    yield "not-fail-fast", beside.then(ended(1)).lines
    cancelled = Failed("stopped", FailureKind.CANCELLED, 143)
    yield "task-cancelled", Recorder(diamond).create().then(ended(0, cancelled)).lines
    yield "cancelled", Recorder(diamond).create().then(ended(0)).then(CancelRequested("enough")).lines
    yield "tombstone", Recorder(diamond).create(tombstone="changed my mind").lines
    yield "refused-dispatch", Recorder(diamond).create().then(DispatchRefused(0, "no permission")).lines
    yield "deadline", Recorder(diamond, deadline_at=1999).create().then(DeadlinePassed("the job's time is over")).lines
    fan = [task("r"), *(task(f"t{i}", "r", task_type=("shell", "http")[i % 2]) for i in range(7))]
    windows = Recorder(fan).create().then(ended(0)).then(ended(2)).then(ended(1), ended(4)).then(ended(3))
    yield "windows", windows.lines
    outer = [task("m", task_type="molecule"), task("n", "m", reads="m.x")]
    child = ChildStarted(0, "inner", "job_c1")
    yield "with-child", Recorder(outer).create().then(child).then(CancelRequested("enough")).lines
    parent = Parent("job_outer", "task_outer_0", "test", "molecule", "m", 2)
    yield "child", Recorder([task("x"), task("y")], parent=parent, depth=1).create().then(ended(0), ended(1)).lines
    inner = Recorder([task("x"), task("y")], parent=parent, depth=1)
    yield "child-failed", inner.create().then(ended(1, failure)).lines
    reuse = {"a": Raw(json.encode(Completed(data=inline({"n": 5})))), "c": Raw(b'{"state":"skipped","reason":"r"}')}
    yield "retry", Recorder(diamond, retry_of="job_first", reuse=reuse).create().then(ended(1)).lines


def main() -> None:
    """Record what is missing."""
    GOLDEN.mkdir(exist_ok=True)
    for name, lines in recordings():
        journal = GOLDEN / f"{name}.jsonl"
        if not journal.exists():
            journal.write_bytes(b"\n".join(lines) + b"\n")
            found = json.format(json.encode(replayed(lines), order="sorted"), indent=1)
            journal.with_suffix(".expected.json").write_bytes(found + b"\n")
            sys.stdout.write(f"{journal}\n")


if __name__ == "__main__":
    main()
