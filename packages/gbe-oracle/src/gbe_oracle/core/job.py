"""The state machine of one job: `(state, events) → (state, record)`, without I/O.

Counters per task make every step O(1) per edge. `decide` moves the state forward and says what to write into the
journal; `replay` moves a state along records that were written. Both use the same few primitive steps, so a replayed
state equals the one that wrote the records.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import Raw, Struct, json, structs

from gbe_jobs_domain.definitions import JobOutline
from gbe_jobs_domain.records import FinalRecord, JobRecord, JournalRecord, OutcomeRecord
from gbe_jobs_domain.states import IllegalTransition, JobState, TaskState, advance_job, report_path
from gbe_oracle.core.events import (
    CancelRequested,
    ChildStarted,
    DeadlinePassed,
    Decision,
    DispatchRefused,
    JobEvent,
    Reported,
    Verdict,
)
from gbe_oracle.core.graph import TaskGraph

DEFAULT_WINDOW: Final = 2048
"""Outstanding tasks per job and type: what a wide fan-out puts into the queue at once."""

MAX_DISPATCH: Final = 8192
"""Tasks one record queues at most, so that it stays far below the payload limit; the next records queue the rest."""

TEXT_LIMIT: Final = 16_384
"""Characters of an error or reason that travel with a job's records and events; the outcome keeps all of it."""

_STATES: Final = tuple(TaskState)
_CODE: Final = {state: code for code, state in enumerate(_STATES)}
_BLOCKED: Final = _CODE[TaskState.BLOCKED]
_PENDING: Final = _CODE[TaskState.PENDING]
_CANCELLED: Final = _CODE[TaskState.CANCELLED]
_TERMINAL: Final = bytes(state.terminal for state in _STATES)
_SATISFIED: Final = bytes(state.satisfied for state in _STATES)


def _legal(before: TaskState, after: TaskState) -> bool:
    try:
        report_path(before, after)
    except IllegalTransition:
        return False
    return True


# The transition table as a matrix: looked up once per report instead of walked.
_LEGAL: Final = tuple(bytes(_legal(before, after) for after in _STATES) for before in _STATES)


class Job:
    """One job. `seq` is the sequence of the last journal record this state includes.

    A blocked task whose dependencies are met but for which the window has no room is `pending` for everybody else;
    here it waits in `ready` and counts as blocked until a record dispatches it.
    """

    __slots__ = (
        "applied_at",
        "children",
        "failure",
        "final",
        "graph",
        "live",
        "open_tasks",
        "outline",
        "outstanding",
        "ready",
        "seq",
        "spec",
        "state",
        "states",
        "unmet",
        "window",
    )

    def __init__(self, spec: JobRecord, outline: JobOutline, *, window: int = DEFAULT_WINDOW) -> None:
        self.spec = spec
        self.outline = outline
        self.graph = TaskGraph(outline.tasks)
        count = len(outline.tasks)
        self.state = JobState.PENDING
        self.states = bytearray(count)
        self.unmet = array("I", self.graph.dependencies)
        self.applied_at = array("Q", bytes(8 * count))
        """Per task the sequence of the record that holds its outcome; 0 = none."""
        self.ready: dict[str, deque[int]] = {}
        self.outstanding: dict[str, int] = {}
        self.open_tasks = count
        self.live = 0
        """Tasks that are queued, or could be: where there is none, nothing of the job can go on."""
        self.failure: tuple[int, str] | None = None
        """The first failure, and its error, of a job that goes on without what depends on it."""
        self.children: dict[int, tuple[str, str]] = {}
        """Child jobs by task index: (job type, job id)."""
        self.final: FinalRecord | None = None
        self.window = window
        self.seq = 0
        for index, missing in enumerate(self.unmet):
            if not missing:
                self._make_ready(index)

    # --- reading -----------------------------------------------------------------------------------

    @property
    def decided(self) -> bool:
        """Whether the job's end is decided: nothing that is not in its journal will be."""
        return self.final is not None

    def task_state(self, index: int) -> TaskState:
        """The task's state as others see it."""
        return _STATES[self.states[index]]

    def is_open(self, index: int) -> bool:
        """Whether the task is queued and its outcome still wanted."""
        return self.final is None and self.states[index] == _PENDING

    # --- deciding ----------------------------------------------------------------------------------

    def create(self, writer: str, now: int, *, tombstone: str | None = None) -> JournalRecord:
        """The record that begins the journal's job: roots are queued, reused outcomes applied.

        With a `tombstone` (a cancel came first, with this reason) the job ends at once.
        """
        outcomes = self._reuse(now)
        if tombstone is not None:
            self._decide(FinalRecord(JobState.CANCELLED.value, now, reason=tombstone))
        elif not self.open_tasks:
            self._decide(FinalRecord(JobState.COMPLETED.value, now))
        else:
            self.state = advance_job(self.state, JobState.RUNNING)
        # What is reused is in the outcomes now; twice it might not fit.
        spec = structs.replace(self.spec, reuse={}) if self.spec.reuse else self.spec
        return JournalRecord(writer, created=spec, outcomes=outcomes, dispatch=self._fill_windows(), final=self.final)

    def decide(self, events: Sequence[JobEvent], writer: str, now: int) -> Decision:
        """Apply a batch of events. All reports of the batch count, then the first failure decides.

        A job that is not to fail fast goes on until nothing can: then the first failure of all decides.
        """
        outcomes: list[OutcomeRecord] = []
        children: list[tuple[int, str, str]] = []
        verdicts: list[Verdict] = []
        final: FinalRecord | None = None
        cancel: str | None = None
        was_decided = self.final is not None
        for event in events:
            if isinstance(event, Reported):
                verdict = self._report(event)
                if verdict is Verdict.APPLIED:
                    outcomes.append(
                        OutcomeRecord(
                            event.index,
                            event.state,
                            event.attempt,
                            event.starts,
                            event.worker,
                            event.started_at,
                            event.ended_at,
                            event.outcome,
                        )
                    )
                    if final is None and not _SATISFIED[self.states[event.index]]:
                        final = self._failed(event.index, event.error, now)
            elif was_decided:
                verdict = Verdict.MOOT
            elif isinstance(event, ChildStarted):
                verdict = self._child(event)
                if verdict is Verdict.APPLIED:
                    children.append((event.index, event.job_type, event.job_id))
            elif isinstance(event, DispatchRefused):
                verdict = Verdict.APPLIED if self.is_open(event.index) else Verdict.KNOWN
                if verdict is Verdict.APPLIED:
                    outcomes.append(self._refuse(event, now))
                    final = final or self._failed(event.index, event.error, now)
            elif isinstance(event, CancelRequested):
                verdict = Verdict.APPLIED
                cancel = event.reason if cancel is None else cancel
                final = final or FinalRecord(JobState.CANCELLED.value, now, reason=event.reason)
            else:
                assert isinstance(event, DeadlinePassed)
                verdict = Verdict.APPLIED
                final = final or FinalRecord(JobState.FAILED.value, now, error=event.error)
            verdicts.append(verdict)
        if was_decided or Verdict.APPLIED not in verdicts:
            return Decision(None, verdicts)
        if final is None and not self.live:
            final = self._at_its_end(now)
        control: list[str] = []
        orphans: list[tuple[str, str]] = []
        if final is not None:
            control = sorted(name for name, count in self.outstanding.items() if count)
            orphans = self._live_children()
            self._decide(final)
        record = JournalRecord(
            writer,
            outcomes=outcomes,
            child=children,
            cancel=cancel,
            dispatch=self._fill_windows(),
            control=control,
            children=orphans,
            final=final,
        )
        return Decision(record, verdicts)

    def committed(self, record: JournalRecord, seq: int) -> None:
        """The record of the last decision is in the journal at `seq`."""
        for outcome in record.outcomes:
            self.applied_at[outcome.index] = seq
        self.seq = seq

    # --- replaying ---------------------------------------------------------------------------------

    def replay(self, record: JournalRecord, seq: int) -> None:
        """Move along a record that is in the journal. It is followed as written, never decided anew."""
        if record.created is not None and self.state is JobState.PENDING:
            self.state = advance_job(self.state, JobState.RUNNING)
        for outcome in record.outcomes:
            code = _CODE[TaskState(outcome.state)]
            self._end_task(outcome.index, code)
            if self.failure is None and not self.outline.fail_fast and not _SATISFIED[code]:
                self.failure = (outcome.index, shortened(_error.decode(outcome.outcome).error))
        for index, job_type, job_id in record.child:
            self.children[index] = (job_type, job_id)
        for index in record.dispatch:
            name = self.outline.tasks[index].task_type
            queue = self.ready[name]
            # The writer may have had another window or order: its word counts.
            if queue[0] == index:
                queue.popleft()
            else:
                queue.remove(index)
            self._dispatch(index, name)
        if record.final is not None:
            self._decide(record.final)
        self.committed(record, seq)

    # --- the primitive steps -----------------------------------------------------------------------

    def _report(self, event: Reported) -> Verdict:
        before = self.states[event.index]
        if self.applied_at[event.index] or _TERMINAL[before]:
            return Verdict.KNOWN if self.final is None or self.applied_at[event.index] else Verdict.MOOT
        if before == _BLOCKED:
            return Verdict.EARLY
        after = _CODE[TaskState(event.state)]
        if not _LEGAL[before][after]:
            raise IllegalTransition(_STATES[before], _STATES[after])
        self._end_task(event.index, after)
        return Verdict.APPLIED

    def _failed(self, index: int, error: str, now: int) -> FinalRecord | None:
        """What the failure of a task makes of the job; None where that goes on."""
        if self.outline.fail_fast:
            return FinalRecord(JobState.FAILED.value, now, error=error, failed_task=index)
        if self.failure is None:
            self.failure = (index, error)
        return None

    def _at_its_end(self, now: int) -> FinalRecord:
        if self.failure is None:
            return FinalRecord(JobState.COMPLETED.value, now)
        index, error = self.failure
        return FinalRecord(JobState.FAILED.value, now, error=error, failed_task=index)

    def _child(self, event: ChildStarted) -> Verdict:
        if self.children.get(event.index) == (event.job_type, event.job_id):
            return Verdict.KNOWN
        if not self.is_open(event.index):
            return Verdict.MOOT
        self.children[event.index] = (event.job_type, event.job_id)
        return Verdict.APPLIED

    def _refuse(self, event: DispatchRefused, now: int) -> OutcomeRecord:
        self._end_task(event.index, _CODE[TaskState.FAILED])
        outcome = failed_outcome(event.error, "rejected")
        return OutcomeRecord(event.index, TaskState.FAILED.value, 0, 0, "", now, now, outcome)

    def _reuse(self, now: int) -> list[OutcomeRecord]:
        outcomes = []
        if self.spec.reuse:
            for index, task in enumerate(self.outline.tasks):
                outcome = self.spec.reuse.get(task.name)
                # Only what could have run: a task is reused together with everything it stands on.
                if outcome is not None and not self.unmet[index]:
                    state = _state.decode(outcome).state  # completed or skipped, the driver saw to that
                    self._end_task(index, _CODE[state])
                    outcomes.append(OutcomeRecord(index, state.value, 0, 0, "", now, now, outcome))
        return outcomes

    def _end_task(self, index: int, code: int) -> None:
        """Every terminal transition of a task goes through here."""
        name = self.outline.tasks[index].task_type
        if self.states[index] == _PENDING:
            self.outstanding[name] -= 1
        elif index in self.ready.get(name, ()):
            self.ready[name].remove(index)  # its outcome is reused: it is not to be queued any more
        self.states[index] = code
        self.open_tasks -= 1
        self.live -= 1
        if _SATISFIED[code]:
            unmet = self.unmet
            for dependent in self.graph.dependents(index):
                unmet[dependent] -= 1
                if not unmet[dependent] and self.states[dependent] == _BLOCKED:
                    self._make_ready(dependent)

    def _make_ready(self, index: int) -> None:
        name = self.outline.tasks[index].task_type
        queue = self.ready.get(name)
        if queue is None:
            queue = self.ready[name] = deque()
        queue.append(index)
        self.live += 1

    def _dispatch(self, index: int, name: str) -> None:
        self.states[index] = _PENDING
        self.outstanding[name] = self.outstanding.get(name, 0) + 1

    def _fill_windows(self) -> list[int]:
        dispatch: list[int] = []
        if self.final is not None:
            return dispatch
        for name, queue in self.ready.items():
            room = min(self.window - self.outstanding.get(name, 0), MAX_DISPATCH - len(dispatch))
            while queue and room > 0:
                index = queue.popleft()
                self._dispatch(index, name)
                dispatch.append(index)
                room -= 1
        return dispatch

    def _live_children(self) -> list[tuple[str, str]]:
        return [self.children[index] for index in sorted(self.children) if self.states[index] == _PENDING]

    def _decide(self, final: FinalRecord) -> None:
        self.state = advance_job(self.state, JobState.FINISHING)
        self.final = final
        self.ready.clear()
        if self.open_tasks:
            states = self.states
            for index, code in enumerate(states):
                if not _TERMINAL[code]:
                    states[index] = _CANCELLED
            self.open_tasks = self.live = 0
        self.outstanding.clear()

    def finished(self) -> None:
        """The effects of the final record are all issued."""
        assert self.final is not None
        self.state = advance_job(self.state, JobState(self.final.state))


class _OutcomeState(Struct, frozen=True):
    state: TaskState


class _OutcomeError(Struct, frozen=True):
    error: str = ""


_state: Final = json.Decoder(_OutcomeState)
_error: Final = json.Decoder(_OutcomeError)


def shortened(text: str) -> str:
    """`text`, cut where it is longer than any record or event should carry."""
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + " …"


def failed_outcome(error: str, kind: str = "error") -> Raw:
    """The bytes of an outcome that the Oracle itself gives a task."""
    return Raw(json.encode({"state": "failed", "kind": kind, "error": error}))
