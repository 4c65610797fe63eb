"""`Group`: a consumer group (or an observer), its leases, and who gets which message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from gbe_nexus import ConsumerSpec, ConsumerState, Handler, PubAck, Start, Subscription
from gbe_nexus_memory.message import MemoryMessage
from gbe_nexus_memory.stream import MemoryStream, Stored
from gbe_nexus_memory.subjects import matcher
from gbe_nexus_memory.timers import Timers

BATCH = 256
"""Messages one call of a handler gets at most: the loop has its turn in between."""


class Owner(Protocol):
    """The transport a subscription belongs to, as far as its messages need it."""

    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> PubAck: ...


class Lease:
    """A message that was delivered and not yet acknowledged.

    It ends at `deadline` unless settled: then the message is delivered again. `armed` is the time of the one
    timer that looks after it (0: it waits for redelivery); a deadline that moves away costs no new timer.
    """

    __slots__ = ("armed", "deadline", "deliveries", "seq")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.deliveries = 0
        self.deadline = 0.0
        self.armed = 0.0


class MemorySubscription(Subscription):
    """One member of a group. `cut_off`: its transport is closed, nothing it says arrives any more."""

    def __init__(self, owner: Owner, group: Group, handler: Handler, credit: int | None) -> None:
        self.owner = owner
        self.group = group
        self.handler = handler
        self.credit = credit
        self.cut_off = False

    @property
    def ack_wait(self) -> float:
        """The existing group's."""
        return self.group.spec.ack_wait

    @property
    def has_room(self) -> bool:
        """Whether a message may come."""
        return self.credit is None or self.credit > 0

    def grant(self, credit: int) -> None:
        """Let more messages come."""
        if self.credit is None:
            raise ValueError("this subscription was made without a credit: its messages come as they are")
        if credit < 0:
            raise ValueError(f"credit can't be taken back: {credit}")
        self.credit += credit
        self.group.wake()

    async def stop(self) -> None:
        """No more deliveries."""
        self.group.leave(self)


class Group:
    """Delivers a stream's messages to its members, each to one of them.

    Without acknowledgements (`leases` False) it is an observer: it only remembers how far it has come.
    """

    def __init__(
        self,
        stream: MemoryStream,
        spec: ConsumerSpec,
        loop: asyncio.AbstractEventLoop,
        timers: Timers,
        on_end: Callable[[Group], None],
    ) -> None:
        self.stream = stream
        self.spec = spec
        self.leases = spec.name is not None
        self._loop = loop
        self._timers = timers
        self._on_end = on_end
        self._matches = matcher(spec.subjects or (">",))
        self._cursor = 1 if spec.start is Start.EARLIEST else stream.last_seq + 1
        self._pending: dict[int, Lease] = {}
        self._again: deque[Lease] = deque()
        self._members: deque[MemorySubscription] = deque()
        self._pin: MemorySubscription | None = None
        self._pin_watched = False
        self._woken = False
        self._left_at = 0.0
        stream.listeners.append(self.wake)

    # --- members ---

    def join(self, subscription: MemorySubscription) -> None:
        """Take a member in."""
        self._members.append(subscription)
        self.wake()

    def leave(self, subscription: MemorySubscription) -> None:
        """Let a member go; what it holds stays its own until the ack wait is over."""
        if subscription not in self._members:
            return
        self._members.remove(subscription)
        if self._pin is subscription:
            self._pin = None
        if self._members:
            self.wake()
        elif not self.leases:
            self._end()
        elif self.spec.inactive_threshold > 0:
            self._left_at = self._loop.time()
            self._timers.at(self._left_at + self.spec.inactive_threshold, self._end_if_deserted, self._left_at)

    def _end_if_deserted(self, left_at: float) -> None:
        if not self._members and self._left_at == left_at:
            self._end()

    def _end(self) -> None:
        self.stream.listeners.remove(self.wake)
        self._on_end(self)

    # --- delivering ---

    def wake(self) -> None:
        """Deliver what there is, soon: never from within the caller."""
        if not self._woken and self._members:
            self._woken = True
            self._loop.call_soon(self._deliver)

    def _takers(self) -> deque[MemorySubscription]:
        takers = deque(member for member in self._members if member.has_room)
        if not self.spec.pinned or not takers:
            return takers
        if self._pin is None:
            self._pin = takers[0]
        if self._pin in takers:
            return deque((self._pin,))
        # The pinned one asks for nothing: after the pin timeout it counts as silent.
        if not self._pin_watched:
            self._pin_watched = True
            self._timers.at(self._loop.time() + self.spec.pin_timeout, self._unpin, self._pin)
        return deque()

    def _unpin(self, silent: MemorySubscription) -> None:
        self._pin_watched = False
        if self._pin is silent and not silent.has_room:
            self._pin = None
        self.wake()

    def _deliver(self) -> None:
        self._woken = False
        takers = self._takers()
        if not takers:
            return
        batches: dict[MemorySubscription, list[MemoryMessage]] = {taker: [] for taker in takers}
        deadline = self._loop.time() + self.spec.ack_wait
        leased: list[Lease] = []
        most = BATCH * len(takers)
        taken = 0
        while taken < most:
            lease: Lease | None = None
            stored = None
            if self._again:
                lease = self._again.popleft()
                stored = self._stored(lease)
                if stored is None:
                    continue
            else:
                stored = self._next()
                if stored is None:
                    break
                if self.leases:
                    lease = self._pending[stored.seq] = Lease(stored.seq)
            if lease is not None:
                lease.deliveries += 1
                lease.deadline = lease.armed = deadline
                leased.append(lease)
            taken += 1
            taker = takers[0]
            batches[taker].append(MemoryMessage(stored, lease, taker))
            if taker.credit is not None:
                taker.credit -= 1
                if not taker.credit:
                    takers.popleft()
                    if not takers:
                        break
                    continue
            takers.rotate(-1)
        if leased:
            self._timers.at(deadline, self._expire, deadline, leased)
        if taken == most or self._again:
            self.wake()
        self._members.rotate(-taken)
        for taker, batch in batches.items():
            if batch:
                self._hand_over(taker, batch)

    def _hand_over(self, taker: MemorySubscription, batch: list[MemoryMessage]) -> None:
        try:
            taker.handler(batch)
        except Exception as error:
            # Handlers must not raise; one that does must not take the others' messages with it.
            who = f"{self.spec.name or 'an observer'} on {self.spec.stream}"
            self._loop.call_exception_handler({"message": f"the handler of {who} raised", "exception": error})

    def _next(self) -> Stored | None:
        """The next message never delivered so far, if the group may hold one more."""
        stream = self.stream
        last = stream.last_seq
        if self._cursor > last or len(self._pending) >= self.spec.max_ack_pending:
            return None
        cursor = max(self._cursor, stream.first_seq)
        found = None
        while cursor <= last:
            stored = stream.messages.get(cursor)
            cursor += 1
            if stored is not None and self._matches(stored.subject):
                found = stored
                break
        self._cursor = cursor
        return found

    def _stored(self, lease: Lease) -> Stored | None:
        """The message of a lease to be delivered again; None where it was acknowledged or deleted meanwhile."""
        if self._pending.get(lease.seq) is not lease:
            return None
        stored = self.stream.messages.get(lease.seq)
        if stored is None:
            del self._pending[lease.seq]
        return stored

    # --- leases ---

    def settle(self, lease: Lease) -> None:
        """The message is done with."""
        if self._pending.get(lease.seq) is not lease:
            return
        if len(self._pending) >= self.spec.max_ack_pending:
            self.wake()
        del self._pending[lease.seq]
        if self.stream.spec.work_queue:
            stored = self.stream.messages.get(lease.seq)
            if stored is not None:
                self.stream.remove(stored)

    def give_back(self, lease: Lease | None, delay: float) -> None:
        """The holder does not want it: deliver it again, not before `delay` seconds."""
        if lease is None or self._pending.get(lease.seq) is not lease or not lease.armed:
            return
        if delay <= 0:
            self._requeue(lease)
            return
        lease.deadline = self._loop.time() + delay
        if lease.deadline < lease.armed:
            self._arm(lease)

    def renew(self, lease: Lease | None) -> None:
        """The holder is still at it."""
        if lease is not None and lease.armed:
            lease.deadline = self._loop.time() + self.spec.ack_wait

    def _arm(self, lease: Lease) -> None:
        lease.armed = lease.deadline
        self._timers.at(lease.deadline, self._expire, lease.deadline, [lease])

    def _expire(self, when: float, leases: list[Lease]) -> None:
        for lease in leases:
            if lease.armed != when or self._pending.get(lease.seq) is not lease:
                continue
            if lease.deadline > when:
                self._arm(lease)
            else:
                self._requeue(lease)

    def _requeue(self, lease: Lease) -> None:
        lease.armed = 0.0
        if 0 < self.spec.max_deliver <= lease.deliveries:
            del self._pending[lease.seq]
        else:
            self._again.append(lease)
        self.wake()

    def state(self) -> ConsumerState:
        """Where the group stands."""
        # Leases are made in order of their sequence and never re-made: the first one is the lowest.
        floor = next(iter(self._pending)) - 1 if self._pending else self._cursor - 1
        first = max(self._cursor, self.stream.first_seq)
        messages = self.stream.messages
        undelivered = (messages.get(seq) for seq in range(first, self.stream.last_seq + 1))
        pending = sum(1 for stored in undelivered if stored is not None and self._matches(stored.subject))
        return ConsumerState(
            name=self.spec.name or "",
            ack_floor=floor,
            delivered=self._cursor - 1,
            pending=pending,
            ack_pending=len(self._pending),
            waiting=sum(member.has_room for member in self._members),
        )
