"""The driver's heart: events in, journal records out, then their effects, then the acknowledgements.

Everything that arrives in one read is decided together: one pipelined append for all jobs concerned, one pipelined
publish for all that follows, and the reports are acknowledged when both are durable (architecture section 4). While
one commit is on its way the next is built, but never two for the same job.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from gbe_jobs_domain import subjects
from gbe_jobs_domain.ids import task_index
from gbe_jobs_domain.records import JobRecord, JournalRecord
from gbe_nexus import (
    Append,
    Conflict,
    Journal,
    Message,
    NexusError,
    Outgoing,
    PayloadTooLarge,
    PubAck,
    Refused,
    Transport,
    UndecodableMessage,
    UnknownVersion,
    encode_payload,
    now_ms,
)
from gbe_oracle import inbox
from gbe_oracle.core.events import (
    CancelRequested,
    ChildStarted,
    DispatchRefused,
    JobEvent,
    Reported,
    Submitted,
    Verdict,
)
from gbe_oracle.core.job import DEFAULT_WINDOW, Job, shortened
from gbe_oracle.effects import Effects, too_large
from gbe_oracle.joint import Joint
from gbe_oracle.loading import (
    FinishedJob,
    InvalidDefinition,
    JobFound,
    LoadedJob,
    Loader,
    NewerJournal,
    TombstonedJob,
    UnreadableJournal,
)
from gbe_oracle.loudly import Loudly
from gbe_oracle.sending import RETRY_DELAY, VERSION_TRIES, VERSION_WAIT, Sending, Spawn
from gbe_oracle.slots import Acknowledgeable, Commit, Entry, Item, OutcomeCache, Recent, Slot
from gbe_oracle.summaries import Summaries

log = logging.getLogger("gbe.oracle")

TRUST = 1.0
"""Seconds for which "it is not in the history" holds; well below the time a journal outlives its history."""
_ITEM_OVERHEAD = 160  # a record's bytes for one outcome, beside the outcome


class Engine:
    """All live jobs of one Oracle. Its handler is given everything that arrives on `GBE_INBOX`."""

    def __init__(
        self,
        transport: Transport,
        journal: Journal,
        loader: Loader,
        effects: Effects,
        summaries: Summaries,
        *,
        identity: str,
        spawn: Spawn,
        window: int = DEFAULT_WINDOW,
        cache_bytes: int = 64 << 20,
        trust: float = TRUST,
    ) -> None:
        self._transport = transport
        self._journal = journal
        self._loader = loader
        self._effects = effects
        self._summaries = summaries
        self._identity = identity
        self._spawn = spawn
        self._loudly = Loudly(spawn)
        self._window = window
        self._trust = trust
        self._cache = OutcomeCache(cache_bytes)
        self._slots: dict[str, Slot] = {}
        self._recent = Recent()
        self._dirty: list[Slot] = []
        self._commits: set[Commit] = set()
        self.counters: Counter[str] = Counter()
        self._sending = Sending(transport, effects, spawn, self.counters, self.cycle)
        self.purgeable: list[tuple[float, str]] = []
        """Journals whose history is written: (loop time of that, subject)."""
        self.refusing: str | None = None
        """Why new jobs are not taken at the moment."""
        self._changed: asyncio.Future[None] | None = None

    # --- what the role reads -----------------------------------------------------------------------

    @property
    def live_jobs(self) -> int:
        """Jobs held in memory."""
        return len(self._slots)

    def held(self) -> Iterable[Acknowledgeable]:
        """Everything taken and not yet acknowledged, to be renewed."""
        for slot in self._slots.values():
            for item in slot.inbox:
                yield item.message
            for waiting in slot.inflight.values():
                yield from waiting
        for commit in self._commits:
            yield from commit.held()
        yield from self._sending.waiting

    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return (
            not self._commits
            and not self._sending.waiting
            and not any(slot.busy or slot.inbox or slot.inflight for slot in self._slots.values())
        )

    async def progressed(self) -> None:
        """Returns after the next step of anything that is on its way."""
        if self._changed is None or self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        await self._changed

    def deadlines(self) -> list[tuple[int, str, str]]:
        """`(deadline ms, job type, job id)` of the live jobs that have one."""
        return [
            (slot.job.spec.deadline_at, slot.job_type, slot.job_id)
            for slot in self._slots.values()
            if slot.job is not None and slot.job.spec.deadline_at and not slot.job.decided
        ]

    def quiet(self) -> dict[str, Slot]:
        """The journals of the jobs held for which nothing is under way here."""
        return {
            slot.subject: slot
            for slot in self._slots.values()
            if not (slot.busy or slot.inbox or slot.inflight) and slot.job is not None
        }

    def let_go(self, slots: Iterable[Slot]) -> None:
        """Forget those of these jobs for which still nothing is under way; their journals answer if anybody asks."""
        for slot in slots:
            if not (slot.busy or slot.inbox or slot.inflight):
                self._forget(slot)

    # --- taking events -----------------------------------------------------------------------------

    def on_messages(self, messages: Sequence[Message]) -> None:
        """Handler of the Oracle's subscription."""
        with self._loudly:
            self._on_messages(messages)

    def _on_messages(self, messages: Sequence[Message]) -> None:
        for message in messages:
            try:
                job_type, job_id, event = inbox.decode(message)
            except UnknownVersion as error:
                self._sending.newer(message, str(error))
            except (UndecodableMessage, ValueError) as error:
                self.counters["undecodable"] += 1
                self._sending.dead_letter(message, f"undecodable: {error}")
            else:
                if event is None:
                    self.counters["ignored"] += 1
                    message.ack()
                    continue
                size = _ITEM_OVERHEAD + (len(message.payload) if isinstance(event, Reported) else 0)
                self._take(job_type, job_id, Item(event, message, size, message.deliveries))
        self.cycle()

    def add(self, job_type: str, job_id: str, event: JobEvent, waiter: Acknowledgeable) -> None:
        """An event that did not come over the bus; `waiter.ack()` is called when it is durable."""
        self._take(job_type, job_id, Item(event, waiter, _ITEM_OVERHEAD, 2))
        self.cycle()

    def _take(self, job_type: str, job_id: str, item: Item) -> None:
        slot = self._slots.get(job_id)
        if slot is None:
            known = self._recent.sha256(job_id)
            if known is not None:
                self._about_finished(job_type, job_id, item, known)
                return
            slot = self._slots[job_id] = Slot(job_type, job_id)
        elif slot.job_type != job_type:
            # Somebody is wrong about the job's type. Nobody's messages are to be looked up under another's.
            if slot.job is not None and isinstance(item.event, Submitted):
                self._sending.refuse(item.event, item.message, "its id belongs to a job of another type")
                return
            key = f"{job_type}.{job_id}"
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = Slot(job_type, job_id, key)
        slot.inbox.append(item)
        if not slot.dirty:
            slot.dirty = True
            self._dirty.append(slot)

    # --- the cycle ---------------------------------------------------------------------------------

    def cycle(self) -> None:
        """Decide all jobs that have events and no commit of their own under way."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        slots, self._dirty = self._dirty, []
        if not slots:
            return
        commit = Commit()
        fresh: list[Slot] = []
        for slot in slots:
            slot.dirty = False
            if slot.busy or not slot.inbox:
                continue
            if slot.job is not None:
                self._decide(slot, commit)
            elif self._fresh(slot.inbox[0]):
                slot.busy = True
                fresh.append(slot)
            else:
                slot.busy = True
                self._spawn(self._load(slot))
        if fresh:
            self._spawn(self._admit(fresh))
        if commit.entries:
            self._append(commit)

    def _fresh(self, item: Item) -> bool:
        """Whether this is almost surely a new job that is taken at once, together with others like it.

        A definition by reference takes its time to be read; and where new jobs are refused, only what is new may be.
        """
        return (
            isinstance(item.event, Submitted)
            and item.deliveries == 1
            and self.refusing is None
            and item.event.submit.definition_ref is None
        )

    def _touch(self, slot: Slot) -> None:
        slot.busy = False
        if slot.inbox and not slot.dirty:
            slot.dirty = True
            self._dirty.append(slot)

    def _decide(self, slot: Slot, commit: Commit) -> None:
        job = slot.job
        assert job is not None
        items = slot.take(self._transport.max_payload * 3 // 4)
        deciding: list[Item] = []
        count = len(job.graph)
        for item in items:
            event = item.event
            if isinstance(event, Submitted):
                self._resubmitted(slot, job, item, event)
            elif isinstance(event, Reported | ChildStarted) and event.index >= count:
                self._ignore(item)
            else:
                deciding.append(item)
        if not deciding:
            return
        expected = job.seq
        events = [item.event for item in deciding if not isinstance(item.event, Submitted)]
        decision = job.decide(events, self._identity, now_ms())
        applied: list[Item] = []
        early: list[Item] = []
        for item, verdict in zip(deciding, decision.verdicts, strict=True):
            if verdict is Verdict.APPLIED or (
                # Known from this very batch: it waits for the same record.
                verdict is Verdict.KNOWN
                and decision.record is not None
                and not (isinstance(item.event, Reported) and job.applied_at[item.event.index])
            ):
                applied.append(item)
            elif verdict is Verdict.EARLY:
                early.append(item)
            else:
                self._answered(slot, job, item, verdict)
        if decision.record is not None:
            slot.busy = True
            commit.entries.append(Entry(slot, job, decision.record, expected, applied))
        if early:
            self._early(slot, early)

    def _early(self, slot: Slot, items: list[Item]) -> None:
        """Reports for tasks that this state has not queued: another Oracle may have. Look once, then let go."""
        again = [item for item in items if not item.early]
        for item in items:
            if item.early:
                self._ignore(item)
        slot.inbox.extendleft(reversed(again))
        # With a commit under way they are looked at again when it is through, and the journal read then.
        if again and not slot.busy:
            for item in again:
                item.early = True
            slot.busy = True
            self._spawn(self._load(slot))

    def _ignore(self, item: Item) -> None:
        self.counters["ignored"] += 1
        item.message.ack()

    # --- (1) the record ----------------------------------------------------------------------------

    def _append(self, commit: Commit, looked_at: float | None = None) -> None:
        """`looked_at`: the loop time of the look at the history that these first records rely on."""
        self._commits.add(commit)
        records = [
            Append(
                entry.slot.subject,
                encode_payload(f"{entry.slot.job_id}:{entry.expected}:record", entry.record),
                entry.expected,
            )
            for entry in commit.entries
        ]
        self._journal.append_many(records).then(partial(self._appended, commit, looked_at))

    def _appended(self, commit: Commit, looked_at: float | None, results: list[int | NexusError]) -> None:
        with self._loudly:
            self._proceed(commit, looked_at, results)

    def _proceed(self, commit: Commit, looked_at: float | None, results: list[int | NexusError]) -> None:
        stored: list[Entry] = []
        late = looked_at is not None and asyncio.get_running_loop().time() - looked_at > self._trust
        for entry, result in zip(commit.entries, results, strict=True):
            if isinstance(result, int) and late:
                # Meanwhile the job may have been run to its end and its journal purged. If not, its submit heals it.
                self._reload(entry)
            elif isinstance(result, int):
                self._stored(entry, result)
                stored.append(entry)
            else:
                self._not_stored(entry, result)
        commit.entries = stored
        if stored:
            self._issue(commit)
        else:
            self._commits.discard(commit)
        self.cycle()

    def _stored(self, entry: Entry, seq: int) -> None:
        slot, job, record = entry.slot, entry.job, entry.record
        entry.seq = seq
        slot.inflight[seq] = [item.message for item in entry.applied]
        entry.applied = []
        if job is not None:
            job.committed(record, seq)
            if slot.job is None:
                slot.job = job
            if record.created is not None:
                slot.created_at_seq = seq
            if record.final is not None:
                slot.final_seq = seq
            if record.outcomes:
                self._cache.remember(slot, record)
        self._touch(slot)

    def _not_stored(self, entry: Entry, error: NexusError) -> None:
        """Somebody else was first, or nobody knows: the state is void, the journal decides."""
        slot = entry.slot
        if isinstance(error, PayloadTooLarge) and entry.record.created is not None:
            others: list[Item] = []
            for item in entry.applied:
                if isinstance(item.event, Submitted):
                    self._sending.refuse(
                        item.event, item.message, f"its first journal record does not fit into one message: {error}"
                    )
                else:
                    others.append(item)
            slot.job = None
            slot.inbox.extendleft(reversed(others))
            self._drop(slot)
            return
        if isinstance(error, PayloadTooLarge):
            self._shrink(entry.applied, error)
        elif isinstance(error, Refused):
            log.error("job %s: the journal refuses a record: %s", slot.job_id, error)
        self.counters["conflicts"] += 1
        self._reload(entry, 0.0 if isinstance(error, Conflict | PayloadTooLarge) else RETRY_DELAY)

    def _reload(self, entry: Entry, delay: float = 0.0) -> None:
        slot = entry.slot
        slot.job = None
        self._cache.forget(slot)
        slot.inbox.extendleft(reversed(entry.applied))
        slot.busy = True
        self._spawn(self._load(slot, delay))

    def _shrink(self, items: list[Item], error: PayloadTooLarge) -> None:
        """Outcomes as large as messages can be do not fit into a record: the largest one fails its task instead."""
        reports = [item for item in items if isinstance(item.event, Reported)]
        if reports:
            largest = max(reports, key=lambda item: item.size)
            assert isinstance(largest.event, Reported)
            largest.event = inbox.oversized(largest.event, error.size, error.limit)
            largest.size = _ITEM_OVERHEAD

    # --- (2) its effects ---------------------------------------------------------------------------

    def _issue(self, commit: Commit) -> None:
        outgoing: list[Outgoing] | None = []
        assert outgoing is not None
        size = 0
        for entry in commit.entries:
            added = self._effects.build(entry, outgoing)
            if added is None:
                self._spawn(self._issue_slowly(commit))
                return
            size += added
            self._notice_child(entry)
        if size > self._effects.chunk:
            self._spawn(self._issue_slowly(commit, outgoing))
            return
        commit.outgoing = outgoing
        if not outgoing:
            self._settle(commit)
            return
        self._transport.publish_many(outgoing).then(partial(self._issued, commit))

    def _issued(self, commit: Commit, results: list[PubAck | NexusError]) -> None:
        with self._loudly:
            if any(isinstance(result, NexusError) for result in results):
                self._spawn(self._reissue(commit, results))
            else:
                self._settle(commit)
                self.cycle()

    async def _issue_slowly(self, commit: Commit, outgoing: list[Outgoing] | None = None) -> None:
        """Effects that need reading first, or are too large to be written at once."""
        if outgoing is None:
            outgoing = []
            for entry in list(commit.entries):
                size = await self._sending.retrying(partial(self._effects.build_reading, entry, outgoing))
                if size is None:
                    commit.entries.remove(entry)
                    self._purged(entry.slot, entry.seq)
                else:
                    self._notice_child(entry)
        commit.outgoing = outgoing
        results: list[PubAck | NexusError] = []
        for chunk in self._effects.chunks(outgoing):
            results.extend(await self._transport.publish_many(chunk))
        await self._reissue(commit, results)

    async def _reissue(self, commit: Commit, results: list[PubAck | NexusError]) -> None:
        """Send what was not stored again until it is; what the bus will never take fails its task."""
        outgoing = commit.outgoing
        while True:
            again: list[Outgoing] = []
            for message, result in zip(outgoing, results, strict=True):
                if isinstance(result, PubAck):
                    continue
                if isinstance(result, Refused) and message.subject.endswith(".queue"):
                    if isinstance(result, PayloadTooLarge):
                        smaller = await self._sending.retrying(partial(self._effects.spill_inputs, message))
                        if smaller is not None:
                            again.append(smaller)
                            continue
                    self._dispatch_refused(commit, message, result)
                else:
                    self._sending.complaints.say("%s was not stored, trying again: %s", message.subject, result)
                    again.append(message)
            if not again:
                break
            await asyncio.sleep(RETRY_DELAY if any(not isinstance(r, PayloadTooLarge | PubAck) for r in results) else 0)
            outgoing = again
            results = await self._transport.publish_many(again)
        self._settle(commit)
        self.cycle()

    def _dispatch_refused(self, commit: Commit, message: Outgoing, error: NexusError) -> None:
        assert message.msg_id is not None
        task = message.msg_id.rsplit(":", 1)[0]
        for entry in commit.entries:
            index = task_index(entry.slot.job_id, task)
            if index is not None:
                reason = too_large(message, error.limit) if isinstance(error, PayloadTooLarge) else ""
                text = shortened(f"the task could not be queued: {reason or error}")
                waiter = self._joint(entry)
                self._take(entry.slot.job_type, entry.slot.job_id, Item(DispatchRefused(index, text), waiter, 256, 2))
                return

    def _joint(self, entry: Entry) -> Acknowledgeable:
        """One more thing that whoever waits for this record waits for."""
        waiting = entry.slot.inflight[entry.seq]
        if len(waiting) == 1 and isinstance(waiting[0], Joint):
            joint = waiting[0]
        else:
            joint = Joint(waiting)
            entry.slot.inflight[entry.seq] = [joint]
        joint.missing += 1
        return joint

    def _notice_child(self, entry: Entry) -> None:
        """A child's first record tells its parent, whose cancel must be able to find it."""
        created = entry.record.created
        if created is None or created.parent is None:
            return
        parent = created.parent
        index = task_index(parent.job_id, parent.task_id)
        if index is None:
            return
        event = ChildStarted(index, created.job_type, created.job_id)
        self._take(parent.job_type, parent.job_id, Item(event, self._joint(entry), _ITEM_OVERHEAD, 2))

    # --- (3) the acknowledgements ------------------------------------------------------------------

    def _settle(self, commit: Commit) -> None:
        self._commits.discard(commit)
        ending: list[Entry] = []
        for entry in commit.entries:
            slot = entry.slot
            if entry.record.final is not None:
                slot.ending = entry
            else:
                slot.settled.add(entry.seq)
                waiting = slot.inflight.pop(entry.seq, ())
                if slot.final_seq and waiting and slot.job is not None:
                    # Nobody else may be waiting for the final record (a deadline's, a refused dispatch's).
                    self._await_effects(slot, slot.job, slot.final_seq, waiting)
                else:
                    for message in waiting:
                        message.ack()
                if slot.job is None and not slot.busy and not slot.inbox:
                    self._forget(slot)  # a tombstone: nothing to hold
            # The history comes last: when only the final record itself is left to be acknowledged.
            if slot.ending is not None and len(slot.inflight) == 1:
                ending.append(slot.ending)
                slot.ending = None
        if ending:
            self._end(ending)

    def _end(self, entries: list[Entry]) -> None:
        """The history is the last effect of a job's last record."""
        histories: list[Outgoing] = []
        complete: list[Entry] = []
        for entry in entries:
            message = self._summaries.build(entry)
            if message is None:
                self._spawn(self._end_slowly(entry))
            else:
                histories.append(message)
                complete.append(entry)
        if complete:
            commit = Commit()
            commit.entries = complete
            self._commits.add(commit)
            self._transport.publish_many(histories).then(partial(self._ended, commit))

    def _ended(self, commit: Commit, results: list[PubAck | NexusError]) -> None:
        with self._loudly:
            self._commits.discard(commit)
            for entry, result in zip(commit.entries, results, strict=True):
                if isinstance(result, PubAck):
                    self._over(entry)
                else:
                    self._spawn(self._end_slowly(entry))
            self.cycle()

    async def _end_slowly(self, entry: Entry) -> None:
        """A history that needs the journal read, or does not fit into one message, or was not taken."""
        commit = Commit()
        commit.entries = [entry]
        self._commits.add(commit)

        async def write() -> None:
            message = await self._summaries.build_reading(entry)
            for result in await self._transport.publish_many([message] if message is not None else []):
                if isinstance(result, NexusError):
                    raise result

        await self._sending.retrying(write)
        self._commits.discard(commit)
        self._over(entry)
        self.cycle()

    def _over(self, entry: Entry) -> None:
        slot, job = entry.slot, entry.job
        assert job is not None
        slot.settled.add(entry.seq)
        job.finished()
        for message in slot.inflight.pop(entry.seq, ()):
            message.ack()
        self.counters[f"jobs_{job.state.value}"] += 1
        self._release(slot, job.spec.definition_sha256)

    # --- what needs no new record ------------------------------------------------------------------

    def _answered(self, slot: Slot, job: Job, item: Item, verdict: Verdict) -> None:
        """The journal answers this event already. Not a duplicate until the answer's effects are out (healing)."""
        event = item.event
        self.counters["duplicates"] += 1
        seq = slot.final_seq
        if verdict is Verdict.KNOWN:
            if isinstance(event, Reported):
                seq = job.applied_at[event.index]
            elif not job.decided:
                item.message.ack()  # a child or refusal that a record holds; its effects are that record's waiters'
                return
        elif isinstance(event, ChildStarted):
            self._sending.cancel_child(event, item.message)
            return
        self._await_effects(slot, job, seq, [item.message])

    def _await_effects(self, slot: Slot, job: Job, seq: int, waiting: Sequence[Acknowledgeable]) -> None:
        """Acknowledge when the effects of the record at `seq` are out; whether its writer lived to that or not."""
        if seq in slot.settled:
            for message in waiting:
                message.ack()
        elif seq in slot.inflight:
            slot.inflight[seq].extend(waiting)
        else:
            slot.inflight[seq] = list(waiting)
            self._spawn(self._heal(slot, job, seq))

    async def _heal(self, slot: Slot, job: Job, seq: int) -> None:
        """Issue the effects of exactly the record at `seq` again: its writer may have died before it could."""
        self.counters["healed"] += 1
        record = await self._sending.retrying(lambda: self._loader.record(seq))
        if record is None:
            self._purged(slot, seq)
            return
        entry = Entry(slot, job, record, 0, [])
        entry.seq = seq
        commit = Commit()
        commit.entries = [entry]
        self._commits.add(commit)
        self._issue(commit)
        self.cycle()

    def _purged(self, slot: Slot, seq: int) -> None:
        """The record is gone: another Oracle has written the job's history, so everything that followed is out."""
        for message in slot.inflight.pop(seq, ()):
            message.ack()
        if self._slots.get(slot.key) is slot and not slot.busy:
            slot.busy = True
            self._spawn(self._load(slot))
        self.cycle()

    def _resubmitted(self, slot: Slot, job: Job, item: Item, event: Submitted) -> None:
        if event.sha256 != job.spec.definition_sha256 or event.submit.job_type != slot.job_type:
            self._sending.refuse(event, item.message, "its id belongs to a job with another definition")
            return
        self._await_effects(slot, job, slot.created_at_seq, [item.message])

    def _about_finished(self, job_type: str, job_id: str, item: Item, sha256: str) -> None:
        """An event of a job whose history is written: everything that follows from it is out."""
        self.counters["late"] += 1
        event = item.event
        if isinstance(event, Submitted) and event.sha256 != sha256:
            self._sending.refuse(event, item.message, "its id belongs to a finished job with another definition")
        elif isinstance(event, ChildStarted):
            self._sending.cancel_child(event, item.message)
        else:
            item.message.ack()

    # --- beginning -----------------------------------------------------------------------------------

    async def _admit(self, slots: list[Slot]) -> None:
        """Submits delivered for the first time: almost surely new. The swap finds out about a journal,
        one batched look at the history about a job that is over."""
        by_subject = {subjects.history(slot.job_type, slot.job_id): slot for slot in slots}
        found: dict[str, FinishedJob] = {}

        async def read() -> None:
            found.update(await self._loader.finished(list(by_subject)))

        looked_at = asyncio.get_running_loop().time()
        await self._sending.retrying(read)
        commit = Commit()
        for subject, slot in by_subject.items():
            finished = found.get(subject)
            if finished is not None:
                self._release(slot, finished.sha256)
                continue
            item = slot.inbox.popleft()
            assert isinstance(item.event, Submitted)
            await self._create(slot, item, item.event, commit, expected=0)
        if commit.entries:
            self._append(commit, looked_at)
        self.cycle()

    async def _create(
        self, slot: Slot, item: Item, event: Submitted, commit: Commit, *, expected: int, tombstone: str | None = None
    ) -> None:
        """Put the record that begins a job into `commit`, or refuse the submit."""
        submit = event.submit
        if self.refusing is not None and submit.parent is None and tombstone is None:
            self._sending.refuse(event, item.message, self.refusing)
            self._drop(slot)
            return
        spec = JobRecord(
            submit.job_id,
            submit.job_type,
            submit.org_id,
            now_ms(),
            event.sha256,
            definition=submit.definition,
            definition_ref=submit.definition_ref,
            parent=submit.parent,
            depth=submit.depth,
            deadline_at=submit.deadline_at,
            retry_of=submit.retry_of,
            reuse=submit.reuse,
            again=submit.again,
            lineage=submit.lineage,
        )
        self._sending.waiting.add(item.message)
        try:
            if problem := inbox.reuse_problem(spec.reuse):
                raise InvalidDefinition(problem)
            outline = await self._loader.outline(spec)
        except InvalidDefinition as error:
            self._sending.refuse(event, item.message, str(error))
            self._drop(slot)
            return
        except NexusError as error:
            log.warning("job %s: definition not readable now: %s", submit.job_id, error)
            item.message.nak(RETRY_DELAY)
            self._drop(slot)
            return
        finally:
            self._sending.waiting.discard(item.message)
        job = Job(spec, outline, window=self._window)
        applied = [item]
        for waiting in list(slot.inbox):  # a cancel that came together with its submit: nothing need begin
            if isinstance(waiting.event, CancelRequested):
                tombstone = waiting.event.reason if tombstone is None else tombstone
                slot.inbox.remove(waiting)
                applied.append(waiting)
        record = job.create(self._identity, spec.created_at, tombstone=tombstone)
        commit.entries.append(Entry(slot, job, record, expected, applied))

    def _drop(self, slot: Slot) -> None:
        """Nothing of the job is held any more; what still waits is looked at anew."""
        self._forget(slot)
        waiting = list(slot.inbox)
        slot.inbox.clear()
        for item in waiting:
            self._take(slot.job_type, slot.job_id, item)

    def _forget(self, slot: Slot) -> None:
        slot.busy = False
        self._cache.forget(slot)
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]

    def _release(self, slot: Slot, sha256: str) -> None:
        """The job's history is written: what is left of its journal may go."""
        self._recent.add(slot.job_id, sha256)
        self.purgeable.append((asyncio.get_running_loop().time(), slot.subject))
        self._forget(slot)
        for item in slot.inbox:
            self._about_finished(slot.job_type, slot.job_id, item, sha256)
        slot.inbox.clear()

    async def _load(self, slot: Slot, delay: float = 0.0) -> None:
        """Bring the slot to what the journal's leader says, then go on with what waits."""
        if delay:
            await asyncio.sleep(delay)
        looked_at = asyncio.get_running_loop().time()
        state: JobFound | None = await self._sending.retrying(
            lambda: self._loader.load(slot.job_type, slot.job_id, self._window)
        )
        if isinstance(state, LoadedJob):
            slot.job = state.job
            slot.created_at_seq = state.created_at_seq
            slot.final_seq = state.job.seq if state.job.decided else 0
            slot.whole = False
            self._touch(slot)
        elif isinstance(state, FinishedJob):
            self._release(slot, state.sha256)
        elif isinstance(state, NewerJournal):
            for item in slot.inbox:
                item.message.nak(VERSION_WAIT)
            slot.inbox.clear()
            self._drop(slot)
        elif isinstance(state, UnreadableJournal):
            self._unreadable(slot, state.reason)
        else:
            await self._begin(slot, state, looked_at)
        self.cycle()

    async def _begin(self, slot: Slot, tombstone: TombstonedJob | None, looked_at: float) -> None:
        """The journal knows no such job (or only that it was cancelled before it came)."""
        commit = Commit()
        expected = 0 if tombstone is None else tombstone.seq
        items = list(slot.inbox)
        slot.inbox.clear()
        submit = next((item for item in items if isinstance(item.event, Submitted)), None)
        if submit is not None:
            assert isinstance(submit.event, Submitted)
            slot.inbox.extend(item for item in items if item is not submit)
            reason = None if tombstone is None else tombstone.reason
            await self._create(slot, submit, submit.event, commit, expected=expected, tombstone=reason)
        else:
            cancels = [item for item in items if isinstance(item.event, CancelRequested)]
            for item in items:
                if not isinstance(item.event, CancelRequested):
                    self._ignore(item)
            if cancels and tombstone is None:
                assert isinstance(cancels[0].event, CancelRequested)
                record = JournalRecord(self._identity, cancel=cancels[0].event.reason)
                commit.entries.append(Entry(slot, None, record, 0, cancels))
            else:
                for item in cancels:
                    item.message.ack()
                self._drop(slot)
        if commit.entries:
            self._append(commit, looked_at)

    def _unreadable(self, slot: Slot, reason: str) -> None:
        """Nobody can go on with this job for now: another version may, or a person who mends what is missing."""
        self.counters["unreadable"] += 1
        log.error("job %s can't be read from its journal: %s", slot.job_id, reason)
        for item in slot.inbox:
            if isinstance(item.message, Message) and item.deliveries > VERSION_TRIES:
                self._sending.dead_letter(item.message, f"the job's journal can't be read: {reason}")
            else:
                item.message.nak(VERSION_WAIT)
        slot.inbox.clear()
        self._drop(slot)
