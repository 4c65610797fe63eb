"""One delivery of one task in hand: everything that takes longer than an instant."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gbe_jobs_domain.outcomes import TIMEOUT_EXIT_CODE, Completed, Failed, FailureKind, Skipped, TaskOutcome
from gbe_jobs_domain.payloads import OnLost, TaskControl, TaskNote, TaskQueued
from gbe_nexus import Conflict, Message, NexusError, PayloadTooLarge, PubAck, now_ms
from gbe_operative.contract import Delegated, Execution, Interrupt, OperativeError, Result
from gbe_operative.controls import Controls
from gbe_operative.core.backoff import retry_delay, seconds_text
from gbe_operative.core.claim import GiveUp, LetGo, Start, after_failure, after_hand_back, decide
from gbe_operative.core.inputs import InputError
from gbe_operative.inputs import run_errands
from gbe_operative.notes import Noted
from gbe_operative.progress import AttemptProgress, hint, retry_message
from gbe_operative.reports import deliver
from gbe_operative.terminals import fitted, make_terminal, masked

if TYPE_CHECKING:
    from gbe_operative.lane import Lane

log = logging.getLogger(__name__)

UNREPORTABLE_DELAY = 30.0
"""How long a task is put off whose report was refused for good (no permission, say): another worker may do better."""

ERROR_NOTE = 1024
"""Characters of an error kept in the note."""


class _Phase(Enum):
    ADMITTING = 1
    EXECUTING = 2
    CONCLUDING = 3


class Attempt:
    """From the delivery to its acknowledgement. A `leases.Held`."""

    def __init__(self, lane: Lane, message: Message, task: TaskQueued) -> None:
        self._lane = lane
        self._shop = lane.shop
        self.message = message
        self.task = task
        self.since = asyncio.get_running_loop().time()
        self.cancelled_by_control: str | None = None
        self.slot_freed = False
        """The slot was given back before the report was stored."""
        self._first_delivery = message.deliveries == 1
        self._phase = _Phase.ADMITTING
        self._interrupt: Interrupt | None = None
        self._why = ""
        self._noted = Noted()
        self._starts = 1
        self._attempt = 1
        self._started_at = now_ms()
        self._retryable = True
        self._retry_after = 0.0
        self._work: asyncio.Task[None] | None = None
        self._begun = False
        self._noting = False
        self._execution: Execution | None = None
        self._early_controls: Controls | None = None
        self._timers: list[asyncio.TimerHandle] = []

    # --- in hand ---

    def renew(self) -> None:
        """Say that it is still worked on."""
        self.message.in_progress()

    def adopt(self, message: Message) -> bool:
        """Go on with this delivery, if it is of the same message."""
        if message.seq != self.message.seq:
            return False
        if self.message.settled:
            return False
        self.message = message
        return True

    @property
    def executing(self) -> bool:
        """Whether its Operative is at it; otherwise it waits for the bus, before its start or after its end."""
        return self._phase is _Phase.EXECUTING

    # --- ways in ---

    def admit(self, as_of: float) -> None:
        """Find out whether and how it is to be run, then do so. `as_of`: from when an answer about it has to be."""
        self._go(lambda: self._admit_and_run(as_of))

    def go_on(self, execution: Execution, result: Awaitable[Result]) -> None:
        """The attempt was started and has something to wait for."""
        self._execution = execution
        self._phase = _Phase.EXECUTING
        self._go(lambda: self._run(execution, result))

    def prepare(self) -> None:
        """It may start, but its params have to be fetched first."""
        self._go(self._begin)

    def conclude(self, execution: Execution, outcome: Result) -> None:
        """The attempt was started and is over already."""
        self._execution = execution
        self._phase = _Phase.CONCLUDING
        self._go(lambda: self._conclude(execution, outcome))

    def conclude_raised(self, execution: Execution, error: BaseException) -> None:
        """The attempt was started and is over already, by an error."""
        self.conclude(execution, self.failure_of(error))

    def reject(self, error: str) -> None:
        """It can't be started, now or later."""
        self.conclude(self._bare(), Failed(error=error, kind=FailureKind.REJECTED))

    def _go(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = self._shop.spawn(self._guarded(work))

    def control(self, control_id: str, control: TaskControl) -> bool:
        """Pass a control message on, also before the Operative is at it. False where too many wait already."""
        if self._phase is _Phase.CONCLUDING or self._interrupt is not None:
            return True
        if self._execution is not None:
            return self._execution.controls.tell(control_id, control)
        if self._early_controls is None:
            self._early_controls = Controls()
        return self._early_controls.tell(control_id, control)

    def interrupt(self, reason: Interrupt, why: str = "") -> None:
        """End it: a cancelled or timed-out one is reported, one of a stopping worker handed back."""
        if self._interrupt is not None or self._phase is _Phase.CONCLUDING:
            return
        if self._phase is _Phase.ADMITTING:
            if reason is Interrupt.CANCEL:
                self.cancelled_by_control = why
                return
            if reason is Interrupt.TIMEOUT:
                return
        self._interrupt = reason
        self._why = why
        self._end_controls()
        execution = self._execution
        if execution is not None:
            execution.interrupted = reason
        if execution is None or not execution.watched:
            self._cancel_work()
            return
        execution.cancel()
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(self._shop.settings.interrupt_grace, self._cancel_work))

    def _end_controls(self) -> None:
        if self._execution is not None and self._execution.made_controls is not None:
            self._execution.made_controls.end()

    def _cancel_work(self) -> None:
        if self._work is None or self._phase is _Phase.CONCLUDING or self._noting:
            return
        if self._begun:
            self._work.cancel()
        else:  # a task that is cancelled before its first step never runs: its slot would be lost
            asyncio.get_running_loop().call_soon(self._cancel_work)

    # --- the way through ---

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Whatever happens, the slot is free afterwards; what was not settled is delivered again some time."""
        self._begun = True
        try:
            await work()
        except asyncio.CancelledError:
            if self._interrupt is not Interrupt.STOP or self._phase is _Phase.CONCLUDING:
                raise
            _uncancel()
            await self._hand_back_unstarted()
        except Exception:
            log.exception("task %s: its worker got it wrong; it will be delivered again", self.task.task_id)
        finally:
            for timer in self._timers:
                timer.cancel()
            self._end_controls()
            self._lane.forget(self)
            if self._execution is not None and self._execution.made_work_dir is not None:
                await self._shop.work_dirs.remove(self._execution.made_work_dir)

    async def _admit_and_run(self, as_of: float) -> None:
        task = self.task
        if not await self._wanted(as_of):
            await self._drop()
            return
        self._noted = await self._shop.insist("read a note", lambda: self._shop.notes.read(task.task_id))
        if task.retry_count > (0 if self._noted.note is None else self._noted.note.failed):
            await self._put_off()
            return
        decision = decide(self.message.deliveries, self._noted.note, task.on_lost, self._shop.settings.crash_budget)
        self._attempt, self._starts = decision.attempt, decision.starts
        if self.cancelled_by_control is not None:
            await self._conclude(self._bare(), Failed(error=self.cancelled_by_control, kind=FailureKind.CANCELLED))
            return
        if isinstance(decision, LetGo):
            self._let_go("another start of it is under way")
            return
        if isinstance(decision, GiveUp):
            await self._give_up(decision)
            return
        if await self._note_start(decision):
            await self._begin()

    async def _wanted(self, as_of: float) -> bool:
        try:
            return await self._shop.insist("read a journal", lambda: self._shop.wishes.wanted(self.task, as_of))
        except NexusError as error:
            # Running what nobody wants does no harm but the work; not running what is wanted would.
            log.warning("whether task %s is still wanted can't be found out: %s", self.task.task_id, error)
            return True

    async def _drop(self) -> None:
        """Nobody wants it any more."""
        self._phase = _Phase.CONCLUDING
        self._shop.metrics.counter("tasks_dropped").add()
        self.message.ack()
        if not self._first_delivery:
            await self._shop.notes.remove(self.task.task_id)

    async def _note_start(self, decision: Start) -> bool:
        """Write down that it starts; False where another worker was faster, whose task it is then."""
        note = decision.note
        if note is None:
            return True
        self._noting = True  # not to be cancelled: whether it was written would be unknown
        try:
            self._noted = await self._shop.insist(
                "write a note", lambda: self._shop.notes.write(self.task.task_id, self._noted, note)
            )
        except Conflict:
            self._let_go("another worker starts it")
            return False
        finally:
            self._noting = False
        if self._interrupt is Interrupt.STOP:
            self._phase = _Phase.CONCLUDING
            await self._hand_back()
            return False
        return True

    async def _begin(self) -> None:
        """Make the params and start the Operative."""
        shop, task = self._shop, self.task
        self._started_at = now_ms()
        try:
            inputs = self._lane.plan(task)
            execution = self._execution = self._lane.execution(task, self._attempt, inputs)
            execution.start = self._starts
            if self._early_controls is not None:
                execution.controls = self._early_controls
            await shop.insist(
                "fetch inputs", lambda: run_errands(inputs, task, shop.artifacts, shop.settings.fetch_limit)
            )
            refusal = await shop.checks.before(task, inputs, discreet=execution.masker is not None)
            if refusal is not None:
                await self._conclude(execution, refusal)
                return
        except (InputError, NexusError) as error:
            failure = Failed(error=str(error), kind=FailureKind.REJECTED)
            await self._conclude(self._execution or self._bare(), failure)
            return
        except Exception as error:  # a secret that can't be read, say
            await self._conclude(self._execution or self._bare(), Failed(error=_text(error), kind=FailureKind.REJECTED))
            return
        if self.cancelled_by_control is not None:
            await self._conclude(execution, Failed(error=self.cancelled_by_control, kind=FailureKind.CANCELLED))
            return
        self._phase = _Phase.EXECUTING  # from here on it has been started
        try:
            result = self._lane.operative.execute(execution)
        except (Exception, SystemExit) as error:
            await self._conclude(execution, self.failure_of(error))
            return
        if isinstance(result, Awaitable):
            await self._run(execution, result)
        else:
            await self._conclude(execution, result)

    async def _run(self, execution: Execution, result: Awaitable[Result]) -> None:
        outcome: Result
        loop = asyncio.get_running_loop()
        self._phase = _Phase.EXECUTING
        self._timers.append(loop.call_later(self._shop.settings.moment, self._go_live, execution))
        if self.task.timeout_secs is not None:
            execution.deadline = loop.time() + self.task.timeout_secs
            self._timers.append(loop.call_at(execution.deadline, self.interrupt, Interrupt.TIMEOUT))
        try:
            outcome = await result
        except asyncio.CancelledError:
            if self._interrupt is None and _being_cancelled():
                raise  # the worker gives up on everything
            _uncancel()
            outcome = Failed(error="the Operative cancelled itself")
        except (Exception, SystemExit) as error:
            outcome = self.failure_of(error)
        self._phase = _Phase.CONCLUDING
        if isinstance(execution.progress_state, AttemptProgress):
            execution.progress_state.end()
        if isinstance(outcome, Delegated):  # whatever was wanted of it meanwhile: that job hears of it
            await self._conclude(execution, outcome)
            return
        if self._interrupt is Interrupt.STOP:
            await self._hand_back()
            await self._shop.unspill(execution, None)
            return
        if self._interrupt is Interrupt.TIMEOUT:
            outcome = _interrupted(
                outcome, FailureKind.TIMEOUT, TIMEOUT_EXIT_CODE, f"timed out after {self.task.timeout_secs:g} s"
            )
        elif self._interrupt is Interrupt.CANCEL:
            outcome = _interrupted(outcome, FailureKind.CANCELLED, 1, self._why or "cancelled")
        await self._conclude(execution, outcome)

    def _go_live(self, execution: Execution) -> None:
        self._shop.progress_of(execution).go_live(self._started_at)

    def failure_of(self, error: BaseException) -> Failed:
        """What was raised, as an outcome."""
        if isinstance(error, OperativeError):
            self._retryable = error.retryable
            self._retry_after = error.retry_after
            code = TIMEOUT_EXIT_CODE if error.kind is FailureKind.TIMEOUT else 1
            return Failed(
                error=str(error) or "failed",
                kind=error.kind,
                exit_code=code,
                output=list(error.output),
                data=error.data,
            )
        log.debug("task %s raised", self.task.task_id, exc_info=error)
        return Failed(error=_text(error))

    # --- ways out ---

    async def _conclude(self, execution: Execution, result: object) -> None:
        """Repeat it or report it."""
        self._phase = _Phase.CONCLUDING
        if isinstance(result, Delegated):
            await self._delegate(result)
            return
        if isinstance(result, Completed | Skipped | Failed):
            outcome = masked(execution, result)
        else:
            outcome = Failed(error=f"the Operative returned {type(result).__name__}, not an outcome")
        if isinstance(outcome, Completed) and self.task.output_schema is not None:
            outcome, self._retryable = await self._shop.checks.after(self.task, outcome)
        if self._worth_another(outcome) and isinstance(outcome, Failed):
            await self._retry(execution, outcome)
            return
        outcome = await fitted(self._shop, execution, outcome)
        self.slot_freed = self._lane.end(1) > 0
        if await self._report(outcome):
            self.message.ack()
            await self._shop.unspill(execution, outcome)
            await self._forget_note()

    async def _delegate(self, result: Delegated) -> None:
        """Its end comes from the job that does its work now. Nothing of it is held here: no slot, no note."""
        self._shop.metrics.counter("tasks_delegated").add()
        log.debug("task %s goes on as %s", self.task.task_id, result.job_id)
        self.message.ack()
        await self._forget_note()

    def _worth_another(self, outcome: TaskOutcome) -> bool:
        return (
            isinstance(outcome, Failed)
            and self._retryable
            and outcome.kind in (FailureKind.ERROR, FailureKind.TIMEOUT)
            and self._attempt <= self.task.max_retries
        )

    async def _retry(self, execution: Execution, outcome: Failed) -> None:
        """Back to the queue, not before the back-off is over."""
        note = after_failure(self._noted.note, self._starts, outcome.error[:ERROR_NOTE])
        try:
            await self._shop.insist(
                "write a note", lambda: self._shop.notes.write(self.task.task_id, self._noted, note)
            )
        except Conflict:
            self._let_go("another worker has it")
            return
        delay = retry_delay(self.task.retry, self._attempt, self._shop.random, self._retry_after)
        text = f"attempt {self._attempt} failed, next in {seconds_text(delay)}: {outcome.error[:ERROR_NOTE]}"
        self._shop.metrics.counter("attempts_failed").add()
        self.message.nak(delay)
        await self._shop.unspill(execution, None)
        body = retry_message(self._shop.worker, self.task, self._attempt, text)
        hint(self._shop.transport, self.task.task_type, body)

    async def _put_off(self) -> None:
        """The job that did its work failed, and the Oracle queued it once more: the back-off is ours."""
        self._phase = _Phase.CONCLUDING
        task = self.task
        before = self._noted.note or TaskNote()
        note = replace(before, failed=task.retry_count, starts=max(before.starts, task.retry_count), running=False)
        try:
            await self._shop.insist("write a note", lambda: self._shop.notes.write(task.task_id, self._noted, note))
        except Conflict:
            self._let_go("another worker has it")
            return
        delay = retry_delay(task.retry, task.retry_count, self._shop.random)
        self.message.nak(delay)
        text = f"attempt {task.retry_count} failed, next in {seconds_text(delay)}"
        hint(self._shop.transport, task.task_type, retry_message(self._shop.worker, task, task.retry_count, text))

    async def _report(self, outcome: TaskOutcome) -> bool:
        """Get the terminal stored; False where that can't be."""
        shop, task = self._shop, self.task
        ended_at = now_ms()
        refusal: object = None
        for _ in range(2):
            terminal = make_terminal(
                shop.worker, task, self._attempt, self._starts, self._started_at, ended_at, outcome
            )
            (result,) = await deliver(shop.transport, [terminal], [await shop.outbox.publish(terminal)])
            if isinstance(result, PubAck):
                shop.metrics.counter(f"tasks_{outcome.__struct_config__.tag}").add()
                return True
            refusal = result
            if not isinstance(result, PayloadTooLarge):
                break
            outcome = Failed(error=f"the outcome can't be reported: {result}")
        log.error("the end of task %s can't be reported: %s", task.task_id, refusal)
        try:
            await self._write_hand_back()
        except NexusError as error:
            log.warning("no note of it either: %s", error)
        self.message.nak(UNREPORTABLE_DELAY)
        return False

    async def _give_up(self, decision: GiveUp) -> None:
        """Too many starts came to no end."""
        self._phase = _Phase.CONCLUDING
        if not await self._report(Failed(error=decision.error, kind=FailureKind.LOST)):
            return
        if decision.dead_letter:
            self._shop.metrics.counter("tasks_dead_lettered").add()
            await self._shop.insist("store a dead letter", lambda: self.message.dead_letter(decision.error))
        else:
            self.message.ack()
        await self._forget_note()

    async def _forget_note(self) -> None:
        if self.task.on_lost is OnLost.FAIL:
            await self._shop.notes.retire(self.task.task_id, self._noted)
        elif self._noted.revision:
            await self._shop.notes.remove(self.task.task_id)

    async def _hand_back(self) -> None:
        """It was started, and ended in an orderly way without an outcome: that uses up nothing."""
        try:
            await self._write_hand_back()
        except Conflict:
            self._let_go("another worker has it")
            return
        self._shop.metrics.counter("tasks_handed_back").add()
        self.message.nak()

    async def _write_hand_back(self) -> None:
        note = after_hand_back(self._noted.note, self._starts)
        self._noted = await self._shop.insist(
            "write a note", lambda: self._shop.notes.write(self.task.task_id, self._noted, note)
        )

    async def _hand_back_unstarted(self) -> None:
        """It was not started here. A first delivery needs a note, lest the next be taken for a lost start."""
        self._phase = _Phase.CONCLUDING
        if self._noted.note is not None and self._noted.note.running:
            await self._hand_back()  # the start was noted, and then nothing came of it
            return
        await hand_back_unstarted(self._lane, self.message, self.task)

    def _let_go(self, why: str) -> None:
        """Somebody else's now: saying nothing leaves it to the other's lease."""
        self._shop.metrics.counter("tasks_let_go").add()
        log.info("task %s: %s; let go", self.task.task_id, why)

    def _bare(self) -> Execution:
        """An execution that never came to be, for its outcome's sake."""
        return Execution(self._shop, self.task, self._attempt, {}, {})


async def hand_back_unstarted(lane: Lane, message: Message, task: TaskQueued) -> None:
    """Give a message back that nothing was begun with."""
    if message.deliveries == 1:
        note = after_hand_back(None, 0)
        try:
            await lane.shop.insist("write a note", lambda: lane.shop.notes.write(task.task_id, Noted(), note))
        except NexusError as error:
            log.debug("task %s is handed back without a note: %s", task.task_id, error)
    lane.shop.metrics.counter("tasks_handed_back").add()
    message.nak()


def _interrupted(outcome: TaskOutcome, kind: FailureKind, exit_code: int, error: str) -> Failed:
    """The outcome of an attempt that was ended from outside: what it said until then is kept."""
    if isinstance(outcome, Failed):
        return replace(outcome, kind=kind, exit_code=exit_code, error=error, data=None)
    if isinstance(outcome, Completed):
        return Failed(error=error, kind=kind, exit_code=exit_code, output=outcome.output, stderr=outcome.stderr)
    return Failed(error=error, kind=kind, exit_code=exit_code)


def _text(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling() > 0:
        task.uncancel()
