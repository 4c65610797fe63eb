"""`JobView`: a job as somebody sees it from outside, folded from what the bus says. Pure.

Journal records and the history summary are the truth. Progress messages are hints that come earlier and may be
missing; a hint never undoes what a record said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from gbe_jobs_domain.definitions import JobOutline
from gbe_jobs_domain.ids import task_index
from gbe_jobs_domain.outcomes import Completed, Failed, Skipped, TaskOutcome
from gbe_jobs_domain.payloads import JobRefused, JobSummary, ProgressKind, TaskProgress, TaskSummary
from gbe_jobs_domain.records import JobRecord, JournalRecord, OutcomeRecord
from gbe_jobs_domain.states import JobState, TaskState

_outcome: msgspec.json.Decoder[TaskOutcome] = msgspec.json.Decoder(TaskOutcome)


@dataclass(slots=True)
class TaskView:
    """One task. Times in milliseconds since the epoch, 0 = not yet. `note`: what its worker said last.

    `child_job`: the id of the job that does its work, where it is a molecule; `child`: that job, where it is looked at.
    `above`: of a task in such a job, the molecules it is within, each with a slash.
    """

    index: int
    name: str
    task_type: str
    depends_on: Sequence[str] = ()
    state: TaskState = TaskState.BLOCKED
    attempts: int = 0
    worker: str = ""
    started_at: int = 0
    ended_at: int = 0
    note: str = ""
    last_line: str = ""
    raw_outcome: msgspec.Raw | None = None
    child_job: str = ""
    child: JobView | None = None
    above: str = ""

    @property
    def title(self) -> str:
        """Its name; of a task within a molecule `molecule/name`."""
        return self.above + self.name

    @property
    def outcome(self) -> TaskOutcome | None:
        """The outcome, decoded when asked for: of most tasks nobody looks at it. None where there is none yet."""
        raw = self.raw_outcome
        if raw is None or not bytes(raw) or bytes(raw) == b"null":
            return None
        try:
            return _outcome.decode(raw)
        except msgspec.DecodeError as error:
            return Failed(f"its outcome can't be read: {error}")

    @property
    def error(self) -> str:
        """Why it failed; empty where it did not."""
        outcome = self.outcome
        return outcome.error if isinstance(outcome, Failed) else ""

    @property
    def output(self) -> list[str]:
        """Its output lines, as far as the outcome carries them."""
        outcome = self.outcome
        return outcome.output if isinstance(outcome, Completed | Failed) else []

    @property
    def began_at(self) -> int:
        """When it was started; 0 before that. A molecule that is let go of reports so at its end only: it began when
        its job did."""
        return self.started_at or (self.child.created_at if self.child is not None else 0)

    def elapsed_ms(self, now: int) -> int:
        """How long it runs, or ran; 0 before its start."""
        return max((self.ended_at or now) - self.began_at, 0) if self.began_at else 0


@dataclass(frozen=True, slots=True)
class JobChanged:
    """The job reached `state`."""

    state: JobState
    text: str = ""


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """A task reached `state`."""

    task: TaskView
    state: TaskState


@dataclass(frozen=True, slots=True)
class TaskWrote:
    """Lines of a task's output, as they were written. `omitted`: how many were left out before them."""

    task: TaskView
    stream: str
    lines: Sequence[str]
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class TaskNoted:
    """What a task's worker says about it: a retry, a step."""

    task: TaskView
    text: str


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """Why nothing goes on, or (without text) that it goes on again. `what`: a task type, or `oracle`, `server`."""

    what: str
    text: str


Change: TypeAlias = JobChanged | TaskChanged | TaskWrote | TaskNoted | WaitingFor


@dataclass(slots=True)
class JobView:
    """A job. `seq`: the last journal record that was applied. `waiting`: why it does not go on, by what is missing."""

    job_id: str
    name: str = ""
    job_type: str = ""
    org_id: str = ""
    state: JobState = JobState.PENDING
    created_at: int = 0
    ended_at: int = 0
    error: str = ""
    reason: str = ""
    failed_task: str | None = None
    parent: str | None = None
    retry_of: str | None = None
    definition_sha256: str = ""
    seq: int = 0
    refused: bool = False
    tasks: list[TaskView] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    above: str = ""

    # --- what it says ------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether everything about the job is known: its state is terminal, its tasks have their outcomes."""
        return self.state.terminal

    @property
    def known(self) -> bool:
        """Whether an Oracle has taken the job."""
        return bool(self.tasks) or self.over

    def elapsed_ms(self, now: int) -> int:
        """From its creation to its end, or to now."""
        return max((self.ended_at or now) - self.created_at, 0) if self.created_at else 0

    def counts(self) -> Counter[TaskState]:
        """How many tasks are in which state."""
        return Counter(task.state for task in self.tasks)

    def unfolded(self) -> Iterator[TaskView]:
        """Its tasks, each molecule followed by the tasks within it, as far as those are looked at."""
        for task in self.tasks:
            yield task
            if task.child is not None:
                yield from task.child.unfolded()

    def task(self, title: str) -> TaskView | None:
        """The task of that name, `molecule/name` for one within a molecule."""
        return next((task for task in self.unfolded() if task.title == title), None)

    def task_types(self) -> set[str]:
        """The types of its tasks."""
        return {task.task_type for task in self.tasks}

    # --- the journal ---------------------------------------------------------------------------------

    def apply_created(self, record: JobRecord, outline: JobOutline) -> list[Change]:
        """The job's first record, with its definition."""
        self.name, self.job_type, self.org_id = outline.name, record.job_type, record.org_id
        self.created_at, self.definition_sha256 = record.created_at, record.definition_sha256
        self.parent, self.retry_of = record.parent.job_id if record.parent else None, record.retry_of
        self.tasks = [
            TaskView(index, task.name, task.task_type, tuple(task.depends_on), above=self.above)
            for index, task in enumerate(outline.tasks)
        ]
        if self.state is not JobState.PENDING:
            return []
        self.state = JobState.RUNNING
        return [JobChanged(self.state)]

    def apply_record(self, record: JournalRecord, seq: int) -> list[Change]:
        """Any record, in the journal's order (`apply_created` before it, where it has a `created`)."""
        if seq <= self.seq:
            return []
        self.seq = seq
        changes: list[Change] = []
        for outcome in record.outcomes:
            if task := self._at(outcome.index):
                changes += self._apply_outcome(task, outcome)
        for index in record.dispatch:
            task = self._at(index)
            if task and task.state is TaskState.BLOCKED:
                changes += self._to(task, TaskState.PENDING)
        for index, _, child in record.child:
            task = self._at(index)
            if task and not task.state.terminal:
                task.note = f"child job {child}"
                if task.child_job != child:
                    task.child_job, task.child = child, None
                changes += self._to(task, TaskState.RUNNING)
        if record.final is not None and not self.state.terminal:
            final = record.final
            self.error, self.reason = final.error, final.reason
            failed = None if final.failed_task is None else self._at(final.failed_task)
            self.failed_task = failed.name if failed else None
            if self.state is not JobState.FINISHING:
                self.state = JobState.FINISHING
                changes.append(JobChanged(self.state, final.error or final.reason))
        return changes

    def _apply_outcome(self, task: TaskView, record: OutcomeRecord) -> list[Change]:
        state = _task_state(record.state)
        task.attempts = record.starts or record.attempt or task.attempts
        task.worker, task.raw_outcome = record.worker, record.outcome
        task.started_at, task.ended_at = record.started_at, record.ended_at
        return self._to(task, state)

    # --- the history -----------------------------------------------------------------------------------

    def apply_summary(self, summary: JobSummary, tasks: Iterable[TaskSummary]) -> list[Change]:
        """The job's entry in the history: how it ended. `tasks` are its own, or those it refers to."""
        if self.over:
            return []
        self.name, self.job_type, self.org_id = summary.name, summary.job_type, summary.org_id
        self.created_at, self.ended_at = summary.created_at, summary.ended_at
        self.error, self.reason, self.failed_task = summary.error, summary.reason, summary.failed_task
        self.definition_sha256, self.retry_of = summary.definition_sha256, summary.retry_of
        self.parent = summary.parent.job_id if summary.parent else None
        seen = {task.name: task for task in self.tasks}
        changes: list[Change] = []
        ended: list[TaskView] = []
        for index, entry in enumerate(tasks):
            task = seen.get(entry.name) or TaskView(index, entry.name, entry.task_type, above=self.above)
            if (child := summary.children.get(entry.name, task.child_job)) != task.child_job:
                task.child_job, task.child = child, None
            task.raw_outcome = entry.outcome
            if entry.attempts or entry.started_at or not task.started_at:
                task.attempts, task.worker = entry.attempts, entry.worker
                task.started_at, task.ended_at = entry.started_at, entry.ended_at
            else:  # it was stopped on its way and has nothing to report: what was heard of it still holds
                task.ended_at = summary.ended_at
            if task.child_job and not task.ended_at:
                task.ended_at = summary.ended_at
            changes += self._to(task, _task_state(entry.state))
            ended.append(task)
        if ended or not summary.task_count:
            self.tasks = ended
        self.waiting.clear()
        self.state = JobState(summary.state)
        changes.append(JobChanged(self.state, self.error or self.reason))
        return changes

    # --- hints -------------------------------------------------------------------------------------------

    def apply_refused(self, event: JobRefused) -> list[Change]:
        """The Oracle made no job of the submit. What is known of a job of that id stays."""
        if self.known or event.job_id != self.job_id:
            return []
        self.refused = True
        self.error, self.state, self.ended_at = event.reason, JobState.FAILED, event.refused_at
        return [JobChanged(self.state, event.reason)]

    def apply_progress(self, progress: TaskProgress) -> list[Change]:
        """What a worker says while it works."""
        index = task_index(self.job_id, progress.task_id) if progress.job_id == self.job_id else None
        task = None if index is None else self._at(index)
        if task is None:
            return []
        if progress.kind is ProgressKind.OUTPUT:
            # Also after the end: the last lines may come later than the journal's record.
            changes = self._started(task, progress)
            if progress.lines:
                task.last_line = progress.lines[-1]
            return [*changes, TaskWrote(task, progress.stream, progress.lines, progress.omitted)]
        if task.state.terminal or progress.attempt < task.attempts:
            return []
        if progress.kind is ProgressKind.RETRY:
            task.note, task.worker, task.last_line = progress.message, "", ""
            task.attempts = max(task.attempts, progress.attempt)
            task.state = TaskState.PENDING
            return [TaskNoted(task, progress.message)]
        changes = self._started(task, progress)
        if progress.kind is not ProgressKind.STARTED and progress.message:
            task.note = progress.message
            changes.append(TaskNoted(task, progress.message))
        return changes

    def _started(self, task: TaskView, progress: TaskProgress) -> list[Change]:
        if task.state.terminal:
            return []
        anew = progress.attempt > task.attempts
        task.attempts = max(task.attempts, progress.attempt)
        task.worker = progress.worker or task.worker
        if anew or not task.started_at:
            task.started_at, task.note = progress.at, ""
        return self._to(task, TaskState.RUNNING)

    def apply_waiting(self, what: str, text: str) -> list[Change]:
        """Why the job does not go on; an empty text takes it back."""
        if self.waiting.get(what, "") == text:
            return []
        if text:
            self.waiting[what] = text
        else:
            del self.waiting[what]
        return [WaitingFor(what, text)]

    # --- how -------------------------------------------------------------------------------------------

    def _at(self, index: int) -> TaskView | None:
        return self.tasks[index] if 0 <= index < len(self.tasks) else None

    def _to(self, task: TaskView, state: TaskState) -> list[Change]:
        if task.state is state:
            return []
        task.state = state
        return [TaskChanged(task, state)]


def reason_of(task: TaskView) -> str:
    """Why a task failed or was skipped; empty where there is nothing to say."""
    outcome = task.outcome
    if isinstance(outcome, Failed):
        return outcome.error
    return outcome.reason if isinstance(outcome, Skipped) else ""


def _task_state(text: str) -> TaskState:
    try:
        return TaskState(text)
    except ValueError:  # a newer Oracle knows more states than this release
        return TaskState.BLOCKED
