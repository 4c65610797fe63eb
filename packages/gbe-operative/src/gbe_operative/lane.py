"""One task type: its messages, its slots, and the fast way through for tasks that are done at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from gbe_jobs_domain.edges import nested_deeper
from gbe_jobs_domain.outcomes import Completed, Skipped, TaskOutcome
from gbe_jobs_domain.payloads import ControlKind, OnLost, TaskControl, TaskQueued
from gbe_nexus import (
    Message,
    NexusError,
    Outgoing,
    PayloadDecoder,
    PubAck,
    Subscription,
    UndecodableMessage,
    UnknownVersion,
    now_ms,
)
from gbe_operative.attempt import Attempt, hand_back_unstarted
from gbe_operative.contract import Execution, Interrupt, Operative
from gbe_operative.core.credit import Slots
from gbe_operative.core.inputs import InputError, Inputs, plan_inputs
from gbe_operative.core.masking import Masker
from gbe_operative.reports import Results, deliver
from gbe_operative.standing import Standing
from gbe_operative.terminals import make_terminal
from gbe_operative.workshop import Workshop

log = logging.getLogger(__name__)

_decode = PayloadDecoder(TaskQueued).decode


@dataclass(slots=True)
class _Done:
    """A task that ended within the call that brought it."""

    message: Message
    execution: Execution
    outcome: TaskOutcome


class _Batch:
    """Tasks that ended at once and are being reported. A `leases.Held`."""

    __slots__ = ("done", "freed", "outgoing")

    def __init__(self) -> None:
        self.done: list[_Done] = []
        self.outgoing: list[Outgoing] = []
        self.freed = 0

    def renew(self) -> None:
        """Still at it."""
        for done in self.done:
            done.message.in_progress()

    def adopt(self, message: Message) -> bool:
        """Go on with this delivery of one of them."""
        for done in self.done:
            if done.message.seq == message.seq and not done.message.settled:
                done.message = message
                return True
        return False


class Lane:
    """Takes the messages of one task type."""

    def __init__(self, shop: Workshop, task_type: str, slots: int, operative: Operative, standing: Standing) -> None:
        self.shop = shop
        self.task_type = task_type
        self.operative = operative
        self.slots = Slots(slots)
        self.attempts: set[Attempt] = set()
        self.subscription: Subscription | None = None
        self._standing = standing
        self._stopping = False
        self._owed = 0
        self._granting = False
        self._controls = operative.controls(task_type)
        self._not_served: set[ControlKind] = set()

    def subscribed(self) -> None:
        """The subscription is there; what was owed to it meanwhile is granted."""
        self._grant()

    # --- messages ---

    def on_messages(self, messages: Sequence[Message]) -> None:
        """Everything that arrived at once."""
        self.slots.taken(len(messages))
        standing, shop = self._standing, self.shop
        if shop.leases.stalled:
            standing.doubt()
        batch = _Batch()
        started_at = now_ms()
        for message in messages:
            try:
                task = _decode(message.payload).data
            except (UndecodableMessage, UnknownVersion) as error:
                shop.spawn(self._reject(message, error))
                continue
            if task.task_type != self.task_type:
                shop.spawn(self._reject(message, UndecodableMessage(f"task of type {task.task_type!r}")))
            elif self._stopping:
                shop.spawn(self._hand_back(message, task))
            elif _may_start_at_once(message, task) and standing.is_new(message.seq) and not standing.is_cancelled(task):
                self._start(message, task, batch, started_at)
            elif shop.leases.adopt(message):
                self.free(1)
            else:
                attempt = self._new_attempt(message, task)
                attempt.cancelled_by_control = standing.cancel_reason(task)
                attempt.admit(standing.as_of(message))
        if batch.done:
            self._report(batch)

    def _start(self, message: Message, task: TaskQueued, batch: _Batch, started_at: int) -> None:
        """A first delivery: attempt 1, at once and without a note."""
        try:
            inputs = self.plan(task)
            execution = self.execution(task, 1, inputs)
            if inputs.errands or task.input_schema is not None or task.output_schema is not None:
                self._new_attempt(message, task).prepare()
                return
        except InputError as error:
            self._new_attempt(message, task).reject(str(error))
            return
        except Exception as error:  # a secret that can't be read, say
            self._new_attempt(message, task).reject(f"{type(error).__name__}: {error}")
            return
        try:
            result = self.operative.execute(execution)
        except (Exception, SystemExit) as error:
            attempt = self._new_attempt(message, task)
            attempt.conclude_raised(execution, error)
            return
        if isinstance(result, Completed | Skipped) and execution.masker is None and execution.made_work_dir is None:
            terminal = make_terminal(self.shop.worker, task, 1, 1, started_at, now_ms(), result)
            if len(terminal.payload) <= self.shop.settings.inline_limit and not nested_deeper(terminal.payload):
                batch.done.append(_Done(message, execution, result))
                batch.outgoing.append(terminal)
                return
        attempt = self._new_attempt(message, task)
        if isinstance(result, Awaitable):
            attempt.go_on(execution, result)
        else:
            attempt.conclude(execution, result)

    def plan(self, task: TaskQueued) -> Inputs:
        """The task's params. Raises `InputError`."""
        return plan_inputs(task, self.shop.secrets.get)

    def execution(self, task: TaskQueued, attempt: int, inputs: Inputs) -> Execution:
        """An attempt, as its Operative sees it."""
        execution = Execution(self.shop, task, attempt, inputs.params, inputs.refs)
        if inputs.secrets and (masker := Masker(inputs.secrets)):
            execution.masker = masker
        return execution

    def _new_attempt(self, message: Message, task: TaskQueued) -> Attempt:
        attempt = Attempt(self, message, task)
        self.attempts.add(attempt)
        self.shop.leases.add(attempt)
        return attempt

    # --- what was done at once ---

    def _report(self, batch: _Batch) -> None:
        self.shop.leases.add(batch)
        self.shop.batches += 1
        batch.freed = self.end(len(batch.done))
        try:
            published = self.shop.transport.publish_many(batch.outgoing)
        except NexusError as error:
            log.error("reports could not be published: %s", error)
            self._settled(batch)
            return
        published.then(lambda results: self._reported(batch, results))

    def _reported(self, batch: _Batch, results: Results) -> None:
        for done, result in zip(batch.done, results, strict=True):
            if not isinstance(result, PubAck):
                self.shop.spawn(self._insist(batch, results))
                return
            done.message.ack()
        self._settled(batch)

    async def _insist(self, batch: _Batch, results: Results) -> None:
        """Some are not stored: silence is met with patience, a refusal with a smaller report."""
        try:
            results = await deliver(self.shop.transport, batch.outgoing, results)
            for done, result in zip(batch.done, results, strict=True):
                if isinstance(result, PubAck):
                    done.message.ack()
                else:
                    self.slots.taken(1)
                    self._new_attempt(done.message, done.execution.task).conclude(done.execution, done.outcome)
        finally:
            self._settled(batch)

    def _settled(self, batch: _Batch) -> None:
        self.shop.leases.remove(batch)
        self.shop.batches -= 1
        self.shop.metrics.counter("tasks_at_once").add(len(batch.done))
        if batch.freed:
            self.slots.reported(batch.freed)
        else:
            self._owed += self.slots.freed(len(batch.done))
            self._grant()  # at once: it leaves in the same write as the acknowledgements

    # --- slots ---

    def forget(self, attempt: Attempt) -> None:
        """The attempt is over."""
        self.attempts.discard(attempt)
        self.shop.leases.remove(attempt)
        if attempt.slot_freed:
            self.slots.reported(1)
        else:
            self.free(1)

    def end(self, count: int) -> int:
        """So many tasks ended and are about to be reported; returns how many slots that made free."""
        freed = self.slots.ended(count)
        if freed:
            self._owed += freed
            self._grant()  # at once: it leaves in the same write as the report
        return freed

    def free(self, count: int) -> None:
        """Slots are free; their credit is given back at once for all that become free together."""
        self._owed += self.slots.freed(count)
        if not self._granting and not self._stopping:
            self._granting = True
            asyncio.get_running_loop().call_soon(self._grant)

    def _grant(self) -> None:
        self._granting = False
        if self.subscription is None or self._stopping or not self._owed:
            return
        owed, self._owed = self._owed, 0
        self.subscription.grant(owed)

    # --- what can't be run ---

    async def _reject(self, message: Message, error: UndecodableMessage | UnknownVersion) -> None:
        """A message that makes no sense, or none yet."""
        settings = self.shop.settings
        try:
            waited = message.deliveries * settings.unknown_version_delay
            if isinstance(error, UnknownVersion) and waited <= settings.unknown_version_for:
                message.nak(settings.unknown_version_delay)
                return
            log.warning("message %d on %s is dead-lettered: %s", message.seq, message.subject, error)
            self.shop.metrics.counter("tasks_dead_lettered").add()
            await self.shop.insist("store a dead letter", lambda: message.dead_letter(str(error)))
        except NexusError as problem:
            log.error("message %d on %s can't be dead-lettered: %s", message.seq, message.subject, problem)
            message.nak(settings.unknown_version_delay)
        finally:
            self.free(1)

    async def _hand_back(self, message: Message, task: TaskQueued) -> None:
        try:
            await hand_back_unstarted(self, message, task)
        finally:
            self.free(1)

    # --- from outside ---

    def on_cancel(self, control: TaskControl) -> None:
        """End what is running of it."""
        why = f"cancelled: {control.reason}" if control.reason else "cancelled"
        for attempt in self._attempts_of(control):
            attempt.interrupt(Interrupt.CANCEL, why)

    def on_control(self, control_id: str, control: TaskControl) -> None:
        """Pass a pause, resume or step on to the attempts it is about; most are about another worker's."""
        for attempt in self._attempts_of(control):
            if control.kind not in self._controls:
                if control.kind not in self._not_served:
                    self._not_served.add(control.kind)
                    log.warning(
                        "%s of task %s ignored: tasks of type %s can't do that (not said again)",
                        control.kind,
                        attempt.task.task_id,
                        self.task_type,
                    )
            elif not attempt.control(control_id, control):
                log.warning("%s of task %s dropped: too many wait", control.kind, attempt.task.task_id)

    def _attempts_of(self, control: TaskControl) -> list[Attempt]:
        return [
            attempt
            for attempt in self.attempts
            if attempt.task.job_id == control.job_id
            and (not control.task_ids or attempt.task.task_id in control.task_ids)
        ]

    async def stop_taking(self) -> None:
        """No more tasks. What arrives all the same is handed back."""
        self._stopping = True
        if self.subscription is not None:
            await self.subscription.stop()

    def interrupt_all(self) -> None:
        """Hand back what is running."""
        for attempt in list(self.attempts):
            attempt.interrupt(Interrupt.STOP)


def _may_start_at_once(message: Message, task: TaskQueued) -> bool:
    """A first delivery, of a task that may run again: what must not is noted before it starts. Nor one whose last
    attempt failed as a job of its own: that one has to wait."""
    return message.deliveries == 1 and task.on_lost is not OnLost.FAIL and not task.retry_count
