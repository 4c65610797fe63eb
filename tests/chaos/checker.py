"""Whether a run did what it had to. Pure: evidence in, problems and figures out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Raw, json

from gbe_jobs_domain.ids import task_id
from gbe_jobs_domain.payloads import OnLost
from gbe_jobs_domain.records import JournalRecord, OutcomeRecord
from tests.chaos.evidence import Execution, Incident, Run, Submitted
from tests.chaos.plan import TaskPlan

SLACK = 0.5
"""Seconds by which clocks, and what happened before what, may be off."""
RECONNECT = 5.0
"""Seconds after the server is back in which its absence still tells."""
HEALING = 20.0
"""Seconds after an Oracle's fault in which another may queue a task a second time."""
ORPHANS = 2.0
"""Seconds after the death of a worker in which its commands may still be seen."""

ORPHANED = 1
"""What a command calls its worker whose parent has died: its parent is process 1 then."""
TERMINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Problem:
    """`kind`: lost, doubled, stuck, wrong, order, unexplained, leftover, death. `job_id`: empty where no job's."""

    kind: str
    job_id: str
    text: str


@dataclass
class Judgement:
    """What the checker found."""

    problems: list[Problem] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def count(self, *kinds: str) -> int:
        """Problems of some kinds."""
        return sum(problem.kind in kinds for problem in self.problems)


def check(run: Run) -> Judgement:
    """Judge a run."""
    judgement = Judgement()
    by_job: dict[str, list[Execution]] = defaultdict(list)
    for execution in run.executions:
        by_job[execution.job_id].append(execution)
    for job_id, job in run.jobs.items():
        checker = _JobChecker(run, job_id, job, by_job.pop(job_id, []))
        judgement.problems += checker.problems()
        judgement.figures += checker.figures
    problems = judgement.problems
    problems += [Problem("wrong", job_id, "ran, but nobody submitted it") for job_id in by_job]
    problems += [Problem("wrong", "", f"not a line of evidence: {line!r}") for line in run.strange_lines]
    problems += _dead_letters(run)
    problems += [Problem("leftover", "", process) for process in run.leftovers]
    problems += [Problem("death", "", death) for death in run.deaths]
    problems += [
        Problem("stuck", "", f"{count} messages wait in {name}") for name, count in run.backlog.items() if count
    ]
    problems += _orphans(run)
    figures = judgement.figures
    figures["jobs"] = len(run.jobs)
    figures["executions"] = len(run.executions)
    figures["notes left"] = run.notes
    return judgement


def _dead_letters(run: Run) -> Iterator[Problem]:
    """One for each task that kills its workers, and no other."""
    poison = {
        f"{task_id(job_id, index)}:queue": job_id
        for job_id, job in run.jobs.items()
        for index, task in enumerate(job.plan.tasks)
        if task.poison
    }
    written = Counter(message_id for message_id, _ in run.dead_letters)
    for message_id, text in run.dead_letters:
        if message_id not in poison:
            yield Problem("wrong", "", f"dead letter {message_id}: {text}")
    for message_id, job_id in poison.items():
        if not written[message_id]:
            yield Problem("lost", job_id, "a task that kills its workers left no dead letter")


def _orphans(run: Run) -> Iterator[Problem]:
    """Commands that outlive a killed worker."""
    killed = {incident.pid: incident.begin for incident in run.incidents if incident.kind == "kill" and incident.pid}
    for execution in run.executions:
        death = killed.get(execution.worker)
        if death is not None and execution.ended_at > death + ORPHANS:
            late = execution.ended_at - death
            yield Problem(
                "leftover", execution.job_id, f"{execution.task} went on for {late:.1f} s after its worker's death"
            )


class _JobChecker:
    """One job's part of the evidence."""

    def __init__(self, run: Run, job_id: str, job: Submitted, executions: list[Execution]) -> None:
        self.run = run
        self.job_id = job_id
        self.job = job
        self.tasks = job.plan.tasks
        self.index = {task.name: index for index, task in enumerate(self.tasks)}
        self.executions: dict[str, list[Execution]] = {task.name: [] for task in self.tasks}
        for execution in sorted(executions, key=lambda one: one.start):
            self.executions.setdefault(execution.task, []).append(execution)
        self.records = run.ordered(job_id)
        self.history = run.histories.get(job_id)
        self.figures: Counter[str] = Counter()

    def problems(self) -> list[Problem]:
        """Everything that is wrong with the job."""
        self.figures["tasks"] += len(self.tasks)
        if self.history is None:
            return [Problem("stuck", self.job_id, f"has no history: {self._how_far()}")]
        self.figures[self.history.state] += 1
        found: list[tuple[str, str]] = []
        found += self._state()
        found += self._events()
        found += self._journal()
        found += self._outcomes()
        found += self._order()
        found += self._attempts()
        found += self._extras()
        found += self._after_the_end()
        return [Problem(kind, self.job_id, text) for kind, text in found]

    def _how_far(self) -> str:
        done = {outcome.index for _, record in self.records for outcome in record.outcomes}
        final = next((record.final for _, record in self.records if record.final), None)
        return f"{len(self.records)} records, {len(done)} of {len(self.tasks)} tasks ended, final record: {final}"

    # --- its end --------------------------------------------------------------------------------------------

    def _state(self) -> Iterator[tuple[str, str]]:
        history, plan = self.history, self.job.plan
        assert history is not None
        if history.state == "completed" and plan.shape == "cancel-first" and self._cancel_held_up():
            return
        if history.state not in plan.expected:
            yield (
                "wrong",
                f"ended as {history.state} ({history.error or history.reason}), expected {sorted(plan.expected)}",
            )
            return
        if history.state != "failed":
            return
        failed = None if history.failed_task is None else self.tasks[self.index[history.failed_task]]
        if failed is None:
            yield "wrong", f"failed without a task: {history.error}"
        elif failed.poison:
            if not history.error.startswith("lost"):
                yield "wrong", f"task {failed.name} kills its workers and is called {history.error!r}"
        elif failed.succeeds:
            if failed.on_lost is not OnLost.FAIL or not history.error.startswith("lost"):
                yield "wrong", f"task {failed.name} failed, which succeeds: {history.error}"
            elif not any(self._near(incident, failed.name) for incident in self.run.incidents):
                yield "unexplained", f"task {failed.name} is called lost, but nothing happened to its workers"

    def _cancel_held_up(self) -> bool:
        """Whether an Oracle was given the cancel and could do nothing with it until the job was over."""
        assert self.history is not None
        ended = self.run.clock(self.history.ended_at)
        return any(
            incident.role in ("oracle", "server")
            and _overlap(incident, self.job.submitted_at - RECONNECT, ended, SLACK)
            for incident in self.run.incidents
        )

    def _near(self, incident: Incident, task: str) -> bool:
        """Whether it may have made a worker lose the task: from its dispatch to the job's end."""
        assert self.history is not None
        dispatched = self._dispatched_at(task)
        if incident.role == "oracle" or incident.begin > self.run.clock(self.history.ended_at) + SLACK:
            return False
        return incident.end + RECONNECT + self.run.lease * 2 >= dispatched

    def _dispatched_at(self, task: str) -> float:
        """At the earliest: when the last of its dependencies had ended."""
        needs = {self.index[name] for name in self.tasks[self.index[task]].needs}
        ends = [self.run.clock(o.ended_at) for _, r in self.records for o in r.outcomes if o.index in needs]
        return max(ends, default=self.job.submitted_at)

    def _events(self) -> Iterator[tuple[str, str]]:
        assert self.history is not None
        events = sorted(self.run.events.get(self.job_id, ()), key=lambda event: event.seq)
        names = list(dict.fromkeys(event.name for event in events))
        if names != ["created", self.history.state]:
            yield "wrong", f"events are {names}, the history says {self.history.state}"
        ids = {event.id for event in events if event.name in TERMINAL}
        if len(ids) > 1:
            yield "doubled", f"more than one terminal event: {sorted(ids)}"
        elif not ids:
            yield "lost", "has no terminal event"

    # --- its journal ----------------------------------------------------------------------------------------

    def _journal(self) -> Iterator[tuple[str, str]]:
        created = [seq for seq, record in self.records if record.created is not None]
        finals = [seq for seq, record in self.records if record.final is not None]
        if len(created) != 1:
            yield "wrong", f"{len(created)} records begin the job"
        if len(finals) != 1:
            yield "doubled" if finals else "lost", f"{len(finals)} records end the job"
        elif finals[0] != self.records[-1][0]:
            yield "wrong", f"records after the final one: {[seq for seq, _ in self.records if seq > finals[0]]}"
        yield from self._dispatches()

    def _dispatches(self) -> Iterator[tuple[str, str]]:
        """Nothing is queued before all it depends on succeeded, nothing twice, nothing ends that was not queued."""
        satisfied: set[int] = set()
        dispatched: set[int] = set()
        for seq, record in self.records:
            for outcome in record.outcomes:
                if outcome.index not in dispatched:
                    yield "order", f"record {seq}: {self.tasks[outcome.index].name} ended, but was never queued"
                if outcome.state in ("completed", "skipped"):
                    satisfied.add(outcome.index)
            for index in record.dispatch:
                if index in dispatched:
                    yield "doubled", f"record {seq} queues {self.tasks[index].name} once more"
                dispatched.add(index)
                missing = [name for name in self.tasks[index].needs if self.index[name] not in satisfied]
                if missing:
                    yield "order", f"record {seq} queues {self.tasks[index].name} before {missing} succeeded"
        for name, executions in self.executions.items():
            if executions and self.index.get(name) not in dispatched:
                yield "order", f"{name} ran, but was never queued"

    def _outcomes(self) -> Iterator[tuple[str, str]]:
        """Exactly one per task, the same in journal and history, and what the task itself wrote."""
        assert self.history is not None
        recorded: dict[int, OutcomeRecord] = {}
        for seq, record in self.records:
            for outcome in record.outcomes:
                if outcome.index in recorded:
                    yield "doubled", f"record {seq} has another outcome of {self.tasks[outcome.index].name}"
                recorded[outcome.index] = outcome
        if [task.name for task in self.history.tasks] != [task.name for task in self.tasks]:
            yield "lost", f"the history has the tasks {[task.name for task in self.history.tasks]}"
            return
        for index, (task, summary) in enumerate(zip(self.tasks, self.history.tasks, strict=True)):
            found = recorded.get(index)
            if self.history.state == "completed" and (found is None or found.state != "completed"):
                yield "lost", f"the job is completed without {task.name}: {found and found.state}"
            if (found is None) != (summary.outcome is None) or (found is not None and found.state != summary.state):
                yield "wrong", f"{task.name}: {found and found.state} in the journal, {summary.state} in the history"
            if found is not None:
                yield from self._really(task, found)

    def _really(self, task: TaskPlan, outcome: OutcomeRecord) -> Iterator[tuple[str, str]]:
        wanted = {"completed": "end", "failed": "fail"}.get(outcome.state)
        if wanted is None or _kind(outcome.outcome) in ("lost", "rejected"):
            return
        results = [one.result for one in self.executions[task.name] if one.attempt == outcome.attempt]
        if wanted not in results:
            yield "wrong", f"{task.name} is {outcome.state} in attempt {outcome.attempt}, but wrote {results}"
        if wanted == "end" and not task.succeeds:
            yield "wrong", f"{task.name} is completed and never succeeds"

    # --- what its tasks wrote -------------------------------------------------------------------------------

    def _order(self) -> Iterator[tuple[str, str]]:
        for name, executions in self.executions.items():
            if name not in self.index:
                continue
            task = self.tasks[self.index[name]]
            expected = ",".join(f"{need}={self.tasks[self.index[need]].token}" for need in task.needs) or "-"
            for one in executions:
                if one.inputs != expected:
                    yield "wrong", f"{name} was given {one.inputs!r}, expected {expected!r}"
            for need in task.needs:
                ends = [one.end for one in self.executions[need] if one.result == "end"]
                if executions and (not ends or min(ends) > executions[0].start):
                    yield "order", f"{name} started (line {executions[0].start}) before {need} succeeded (lines {ends})"

    def _attempts(self) -> Iterator[tuple[str, str]]:
        """An attempt follows a failed one, and there are as many as allowed."""
        for name, executions in self.executions.items():
            if name not in self.index:
                continue
            task = self.tasks[self.index[name]]
            for one in executions:
                if one.attempt > task.max_retries + 1:
                    yield "wrong", f"{name} ran in attempt {one.attempt} of {task.max_retries + 1}"
                if one.attempt > 1:
                    failed = [e.end for e in executions if e.attempt == one.attempt - 1 and e.result == "fail"]
                    if not failed or min(failed) > one.start:
                        yield "order", f"{name}: attempt {one.attempt} before attempt {one.attempt - 1} failed"

    def _extras(self) -> Iterator[tuple[str, str]]:
        """More than one execution of the same attempt needs an explanation."""
        for name, executions in self.executions.items():
            seen: dict[int, Execution] = {}
            for one in executions:
                before = seen.get(one.attempt)
                seen[one.attempt] = one
                if before is None:
                    continue
                self.figures["extra executions"] += 1
                reason = self._explanation(name, before, one)
                if reason is None:
                    yield (
                        "unexplained",
                        f"{name}, attempt {one.attempt}: started by {before.worker} (line {before.start}) and again by"
                        f" {one.worker} (line {one.start}), {one.started_at - before.started_at:.1f} s later",
                    )
                else:
                    self.figures[f"explained by {reason}"] += 1
                    task = self.tasks[self.index[name]]
                    if task.on_lost is OnLost.FAIL:
                        yield "doubled", f"{name} must not run twice, but did (explained by {reason})"

    def _explanation(self, name: str, before: Execution, again: Execution) -> str | None:
        begin, end = before.started_at - SLACK, again.started_at + SLACK
        # The first one's worker died or stood still; or the second one's did, with the task delivered to it already,
        # and woke when the first had it.
        workers = (before.worker, again.worker)
        for incident in self.run.incidents:
            if incident.role == "operative" and incident.pid in workers and _overlap(incident, begin, end, 0.0):
                return "worker"
            # Its worker was killed between starting it and its first words, so it can't name that worker any more.
            orphaning = incident.role == "operative" and incident.kind in ("kill", "died")
            if orphaning and before.worker == ORPHANED and abs(incident.begin - before.started_at) <= SLACK:
                return "worker"
        for role in ("server", "machine"):
            if any(i.role == role and _overlap(i, begin, end, RECONNECT) for i in self.run.incidents):
                return role
        queued = self._queued(name)
        if any(
            incident.role == "oracle" and incident.begin - SLACK <= at <= incident.end + HEALING
            for at in queued[1:]
            if at <= end
            for incident in self.run.incidents
        ):
            return "oracle"
        return None

    def _queued(self, name: str) -> list[float]:
        """When queue messages of the task went by."""
        wanted = task_id(self.job_id, self.index[name])
        return [
            wire.at for wire in self.run.wire.get(self.job_id, ()) if wire.kind == "queue" and wire.task_id == wanted
        ]

    def _after_the_end(self) -> Iterator[tuple[str, str]]:
        """Nothing starts when the job is long over: a cancel that was missed stops a task within a lease."""
        assert self.history is not None
        ended = self.run.clock(self.history.ended_at)
        for name, executions in self.executions.items():
            for one in executions:
                late = max(one.started_at, one.ended_at) - ended
                if late <= SLACK * 2:
                    continue
                allowed = self.run.lease + RECONNECT
                for incident in self.run.incidents:
                    if incident.end >= ended - SLACK and incident.begin <= one.started_at + SLACK:
                        allowed = max(allowed, incident.end - ended + self.run.lease + RECONNECT)
                if late > allowed:
                    yield (
                        "leftover",
                        f"{name} was still running {late:.1f} s after the job's end (allowed {allowed:.1f})",
                    )
                self.figures["seen after the job's end"] += 1


def _overlap(incident: Incident, begin: float, end: float, after: float) -> bool:
    return incident.begin <= end and incident.end + after >= begin


def _kind(outcome: Raw) -> str:
    return str(json.decode(outcome).get("kind", ""))


def effects_of(record: JournalRecord) -> str:
    """A record in a few words, for stories."""
    parts = []
    if record.created is not None:
        parts.append("created")
    parts += [f"{o.index} {o.state} (attempt {o.attempt}, by {o.worker})" for o in record.outcomes]
    if record.cancel is not None:
        parts.append(f"cancel: {record.cancel}")
    if record.dispatch:
        parts.append(f"queues {record.dispatch}")
    if record.final is not None:
        parts.append(f"final: {record.final.state} {record.final.error or record.final.reason}")
    return "; ".join(parts) + f"  [{record.writer}]"
