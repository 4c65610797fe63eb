"""Consuming: a pull loop of our own, and the two subscriptions made of it (consumer group and observer).

A few slots per subscription, each with an inbox of its own and at most one pull request outstanding, so that what a
request still owes is known exactly and credit that was asked for in vain comes back. Messages arrive on the slot's
inbox under their own subject; only statuses carry the inbox, with a token that tells an old request's from the
present one's.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from nats.errors import Error as NatsError

from gbe_nexus.errors import NexusError, NotFound, PermissionDenied, Refused
from gbe_nexus.transport import ConsumerSpec, Handler, Subscription
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.errors import CONSUMER_EXISTS, ServerRefusal
from gbe_nexus_nats.message import NatsMessage, ObservedMessage
from gbe_nexus_nats.parser import Delivery, Lane, Sink
from gbe_nexus_nats.publisher import Publisher
from gbe_nexus_nats.requests import Requests
from gbe_nexus_nats.wire import STATUS_LINE, api_name, parse_headers, status_of, subject_pattern

logger = logging.getLogger("gbe.nexus.nats")

BATCH = 256
SLOTS = 2
"""Requests of 256, two of them overlapping: the server always has one to go on with."""

LONGEST_PULL = 5.0
HEARTBEAT = 1.0
PINNED_PULL = 1.0
"""Seconds. A stopped process with an open pull swallows deliveries, so pulls end long before a lease does."""

MAX_WAITING = 8192
"""Open pulls a group takes, over all its subscribers."""

GROUP = "main"
OBSERVER_THRESHOLD = 60.0
"""Seconds without a pull after which the server forgets an observer's consumer."""

_LINGER = 2.0
_NANO = 1_000_000_000


class _Slot:
    __slots__ = ("active", "asked", "got", "heard", "prefix", "sent", "sink", "token")

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.prefix = b""
        self.token = b""
        self.active = False
        self.asked = 0
        self.got = 0
        self.heard = 0.0
        self.sent = 0.0


class PullLoop:
    """Keeps pull requests open on one consumer and hands over what they bring.

    `deliver` gets the messages of one read and returns how many it handed on; `gone` is called when the server says,
    or makes one suspect, that the consumer isn't there any more. The loop then waits for `start`.
    """

    def __init__(
        self,
        client: FastClient,
        deliver: Callable[[list[Delivery]], int],
        late: Callable[[list[Delivery]], None],
        gone: Callable[[], None],
        credit: int | None,
    ) -> None:
        self._client = client
        self._deliver = deliver
        self._late = late
        self._gone = gone
        self._credit = credit
        self._loop = asyncio.get_running_loop()
        self._slots = [_Slot() for _ in range(SLOTS)]
        # One lane for all slots: the server spreads messages over the open requests, their order is over all of them.
        self._lane = Lane(self._arrived)
        self._late_lane = Lane(self._arrived_late)
        self._request = b""
        self._subject = b""
        self._group: str | None = None
        self._pin = ""
        self._expires = LONGEST_PULL
        self._heartbeat = HEARTBEAT
        self._running = False
        self._delivering = False
        self._pump_scheduled = False
        self._pause: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._watch_due = 0.0
        self._troubles = 0

    @property
    def credit(self) -> int | None:
        """What may still be delivered."""
        return self._credit

    @property
    def pinned_group(self) -> str | None:
        """The priority group whose pin is (as far as is known) ours."""
        return self._group if self._pin else None

    def grant(self, credit: int) -> None:
        """More may be delivered."""
        assert self._credit is not None
        self._credit += credit
        if not self._delivering and not self._pump_scheduled:
            # Grants come one by one as work ends: one request for all of a loop's turn.
            self._pump_scheduled = True
            self._loop.call_soon(self._scheduled_pump)

    def start(self, stream: str, consumer: str, expires: float, heartbeat: float, group: str | None) -> None:
        """Pull from this consumer from now on."""
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}".encode()
        self._expires = expires
        self._heartbeat = heartbeat
        self._group = group
        self._pin = ""
        self._prepare_request()
        self._running = True
        self._watch_in(self._heartbeat)
        self._pump()

    def suspend(self, linger: float = _LINGER) -> None:
        """Give up all requests; what they still bring counts as late."""
        self._running = False
        for timer in (self._pause, self._watch):
            if timer is not None:
                timer.cancel()
        self._pause = self._watch = None
        for slot in self._slots:
            self._retire(slot, linger)

    # --- asking -----------------------------------------------------------------------------------

    def _prepare_request(self) -> None:
        fields = b',"expires":%d,"idle_heartbeat":%d' % (int(self._expires * _NANO), int(self._heartbeat * _NANO))
        if self._group is not None:
            fields += b',"group":%b' % msgspec.json.encode(self._group)
            if self._pin:
                fields += b',"id":%b' % msgspec.json.encode(self._pin)
        self._request = fields + b"}"

    def _scheduled_pump(self) -> None:
        self._pump_scheduled = False
        self._pump()

    def _pump(self) -> None:
        if not self._running or self._pause is not None or not self._client.live:
            return
        for slot in self._slots:
            if slot.active:
                continue
            count = BATCH
            if self._credit is not None:
                owed = sum(max(other.asked - other.got, 0) for other in self._slots if other.active)
                count = min(BATCH, self._credit - owed)
                if count <= 0:
                    return
            self._ask(slot, count)

    def _ask(self, slot: _Slot, count: int) -> None:
        if slot.sink is None:
            inbox = self._client.inbox()
            slot.prefix = inbox + b"."
            slot.token = b"0"
            slot.sink = self._client.attach(inbox + b".*", self._lane)
        slot.token = b"%d" % (int(slot.token) + 1)
        slot.asked = count
        slot.got = 0
        slot.active = True
        slot.heard = slot.sent = self._loop.time()
        body = b'{"batch":%d%b' % (count, self._request)
        self._client.write(b"PUB %b %b%b %d\r\n%b\r\n" % (self._subject, slot.prefix, slot.token, len(body), body))

    def _retire(self, slot: _Slot, linger: float = _LINGER) -> None:
        """Give up a request whose fate is not known. A new inbox makes the old one void on the server."""
        slot.active = False
        sink, slot.sink = slot.sink, None
        if sink is not None:
            sink.lane = self._late_lane
            self._client.detach(sink, linger)

    # --- what arrives -----------------------------------------------------------------------------

    def _arrived(self, batch: list[Delivery]) -> None:
        now = self._loop.time()
        for slot in self._slots:
            sink = slot.sink
            if sink is not None and sink.count:
                slot.heard = now
                slot.got += sink.count
                sink.count = 0
        messages = [one for one in batch if one[2] is None or not one[2].startswith(STATUS_LINE)]
        self._delivering = True
        try:
            if len(messages) < len(batch):
                for delivery in batch:
                    if delivery[2] is not None and delivery[2].startswith(STATUS_LINE):
                        self._status(delivery)
            for slot in self._slots:
                if slot.got >= slot.asked:
                    slot.active = False
            if messages:
                self._troubles = 0
                if self._group is not None:
                    self._take_pin(messages[-1][2])
                handed_on = self._deliver(messages)
                if self._credit is not None:
                    self._credit -= handed_on
        finally:
            self._delivering = False
        self._pump()

    def _take_pin(self, headers: bytes | None) -> None:
        # On every message; a new one comes where the pin was lost and won again.
        if headers is None or (self._pin and self._pin.encode() in headers):
            return
        pin = parse_headers(headers).get("Nats-Pin-Id")
        if pin:
            self._pin = pin
            self._prepare_request()

    def _drop_pin(self) -> None:
        if self._pin:
            self._pin = ""
            self._prepare_request()

    def _status(self, delivery: Delivery) -> None:
        subject, _, headers, _ = delivery
        slot = next((one for one in self._slots if subject.startswith(one.prefix)), None)
        if slot is None:
            return
        slot.got -= 1  # It was counted with the messages.
        if subject != slot.prefix + slot.token or not slot.active:
            return  # Of a request filled before.
        code, text = status_of(headers)
        if code == 100:
            return
        slot.active = False
        quick = self._loop.time() - slot.sent < 0.02
        if code == 408 and not quick:
            return
        if code == 423:
            self._drop_pin()
            if quick:
                self._wait(0.05)
            return
        lower = text.lower()
        if code == 409 and ("batch completed" in lower or "maxbytes" in lower):
            return
        if code in (404, 408):
            self._wait(0.05)
            return
        self._troubles += 1
        if code == 409 and "consumer deleted" in lower:
            self._is_gone()
        elif code == 409 and "leadership" in lower:
            self._wait(0.05)
        elif code == 503 and self._troubles > 2:
            # Nobody listens for pulls on it: an election, or the consumer isn't there.
            self._is_gone()
        else:
            if code not in (409, 503):
                logger.warning("pull on %s: %d %s", self._subject.decode(), code, text)
            self._wait(min(0.05 * 2**self._troubles, 1.0))

    def _arrived_late(self, batch: list[Delivery]) -> None:
        messages = [one for one in batch if one[2] is None or not one[2].startswith(STATUS_LINE)]
        if messages:
            self._late(messages)

    def take_late(self, count: int) -> int:
        """How many of `count` late messages the credit allows, taken from it."""
        if not self._running or self._credit is None:
            return count if self._running else 0
        owed = sum(max(slot.asked - slot.got, 0) for slot in self._slots if slot.active)
        taken = max(min(count, self._credit - owed), 0)
        self._credit -= taken
        return taken

    # --- time -------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        if self._running and self._pause is None:
            self._pause = self._loop.call_later(seconds, self._waited)

    def _waited(self) -> None:
        self._pause = None
        self._pump()

    def _is_gone(self) -> None:
        if self._running:
            self.suspend()
            self._loop.call_soon(self._gone)

    def _watch_in(self, seconds: float) -> None:
        self._watch_due = self._loop.time() + seconds
        self._watch = self._loop.call_later(seconds, self._watched)

    def _watched(self) -> None:
        now = self._loop.time()
        late = now - self._watch_due
        if late > self._heartbeat:
            # We were stopped, not the server: read first what waits in the socket.
            for slot in self._slots:
                slot.heard = now
        else:
            for slot in self._slots:
                if slot.active and now - slot.heard > 2 * self._heartbeat + 0.25:
                    self._troubles += 1
                    self._retire(slot)
                    if self._troubles > 2:
                        self._is_gone()
                        return
        self._watch_in(self._heartbeat)
        self._pump()


class PullSubscription(Subscription):
    """What both kinds of subscription share: keeping a consumer, and a loop on it, through everything."""

    def __init__(
        self,
        client: FastClient,
        requests: Requests,
        publisher: Publisher,
        spec: ConsumerSpec,
        handler: Handler,
        credit: int | None,
        forget: Callable[[Subscription], None],
    ) -> None:
        if credit is not None and credit < 0:
            raise ValueError(f"credit must not be negative: {credit}")
        self._client = client
        self._requests = requests
        self._publisher = publisher
        self._spec = spec
        self._handler = handler
        self._forget = forget
        self._stream = api_name(spec.stream)
        self._ack_wait = spec.ack_wait
        for subject in spec.subjects:
            subject_pattern(subject)
        self._pull = PullLoop(client, self._deliver, self._deliver_late, self._consumer_gone, credit)
        self._finite = credit is not None
        self._stopped = False
        self._made = 0.0
        self._repair: asyncio.Task[None] | None = None

    @property
    def ack_wait(self) -> float:
        return self._ack_wait

    @abstractmethod
    async def _make(self) -> None:
        """Create or find the consumer and start pulling."""

    @abstractmethod
    def _deliver(self, batch: list[Delivery]) -> int: ...

    @abstractmethod
    def _deliver_late(self, batch: list[Delivery]) -> None: ...

    async def open(self) -> None:
        """Make the consumer for the first time; errors are the caller's."""
        await self._make()
        self._client.up.append(self._on_up)
        self._client.down.append(self._on_down)

    def grant(self, credit: int) -> None:
        if not self._finite:
            raise ValueError("this subscription was made without a credit")
        if credit < 0:
            raise ValueError(f"credit must not be negative: {credit}")
        if credit and not self._stopped:
            self._pull.grant(credit)

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._forget(self)
        if self._on_up in self._client.up:
            self._client.up.remove(self._on_up)
            self._client.down.remove(self._on_down)
        if self._repair is not None:
            self._repair.cancel()
        self._pull.suspend()
        await self._finished()

    async def _finished(self) -> None:
        """What is left to do after the last delivery."""

    def _call(self, messages: Sequence[NatsMessage]) -> None:
        try:
            self._handler(messages)
        except Exception:  # it broke its word not to raise; what else the read brought must not suffer
            logger.exception("the handler of %s failed: %d messages stay unsettled", self._label, len(messages))

    @property
    def _label(self) -> str:
        return f"{self._spec.stream}/{self._spec.name or 'observer'}"

    def _on_down(self) -> None:
        if self._repair is not None:
            self._repair.cancel()
            self._repair = None
        self._pull.suspend(0)

    def _on_up(self) -> None:
        self._consumer_gone()

    def _consumer_gone(self) -> None:
        if not self._stopped and (self._repair is None or self._repair.done()):
            self._repair = asyncio.get_running_loop().create_task(self._make_again())

    async def _make_again(self) -> None:
        pause = 0.1
        since = asyncio.get_running_loop().time() - self._made
        if since < 0.5:
            await asyncio.sleep(0.2)  # Made a moment ago and gone already: not in a tight circle.
        while not self._stopped:
            try:
                await self._make()
                self._made = asyncio.get_running_loop().time()
                return
            except Exception as error:  # nobody waits for this: a consumer given up would be silence for ever
                if not self._client.live:
                    return  # The next connection starts it again.
                expected = isinstance(error, NexusError)
                logger.warning("%s: can't consume, trying again: %s", self._label, error, exc_info=not expected)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _create(self, name: str, config: dict[str, Any], action: str) -> dict[str, Any]:
        subject = f"$JS.API.CONSUMER.CREATE.{self._stream}.{name}"
        if len(self._spec.subjects) == 1:
            config["filter_subject"] = self._spec.subjects[0]
        elif self._spec.subjects:
            config["filter_subjects"] = list(self._spec.subjects)
        request = {"stream_name": self._stream, "config": config, "action": action}
        return await self._requests.api(subject, request)


class GroupSubscription(PullSubscription):
    """A subscriber of a durable consumer group."""

    @property
    def _name(self) -> str:
        assert self._spec.name is not None
        return api_name(self._spec.name)

    async def _make(self) -> None:
        wanted = self._config()
        try:
            info = await self._create(self._name, dict(wanted), "create")
        except (Refused, NotFound) as error:
            cause = error.__cause__
            exists = isinstance(cause, ServerRefusal) and cause.code in CONSUMER_EXISTS
            if not exists and not isinstance(error, PermissionDenied):
                raise
            # There with other settings, or not ours to make: then it is used as it is.
            info = await self._requests.api(f"$JS.API.CONSUMER.INFO.{self._stream}.{self._name}")
        config: dict[str, Any] = info["config"]
        self._note_differences(wanted, config)
        self._ack_wait = config.get("ack_wait", 30 * _NANO) / _NANO
        groups = config.get("priority_groups") or []
        expires = min(LONGEST_PULL, self._ack_wait / 2)
        if groups:
            # The pin is held by asking; a pull as long as the pin's timeout would lose it every time.
            expires = min(expires, PINNED_PULL, config.get("priority_timeout", 2 * _NANO) / _NANO / 2)
        expires = max(expires, 0.25)
        if not self._stopped:
            heartbeat = min(HEARTBEAT, expires / 2)
            self._pull.start(self._stream, self._name, expires, heartbeat, groups[0] if groups else None)

    def _config(self) -> dict[str, Any]:
        spec = self._spec
        config: dict[str, Any] = {
            "name": self._name,
            "durable_name": self._name,
            "deliver_policy": spec.start.value,
            "ack_policy": "explicit",
            "ack_wait": int(spec.ack_wait * _NANO),
            "max_deliver": spec.max_deliver or -1,
            "max_ack_pending": spec.max_ack_pending,
            "max_waiting": MAX_WAITING,
            "replay_policy": "instant",
        }
        if spec.inactive_threshold > 0:
            config["inactive_threshold"] = int(spec.inactive_threshold * _NANO)
        if spec.pinned:
            config["priority_groups"] = [GROUP]
            config["priority_policy"] = "pinned_client"
            config["priority_timeout"] = int(spec.pin_timeout * _NANO)
        return config

    def _note_differences(self, wanted: dict[str, Any], found: dict[str, Any]) -> None:
        subjects: list[str] = sorted(found.get("filter_subjects") or [])
        differences = [
            f"{key} is {found.get(key)!r} instead of {value!r}"
            for key, value in wanted.items()
            if key not in ("name", "max_waiting") and found.get(key) != value
        ]
        if found.get("filter_subject"):
            subjects = [found["filter_subject"]]
        if subjects != sorted(self._spec.subjects):
            differences.append(f"subjects are {subjects!r} instead of {sorted(self._spec.subjects)!r}")
        if differences:
            logger.warning("consumer group %s exists and is used as it is: %s", self._label, "; ".join(differences))

    def _deliver(self, batch: list[Delivery]) -> int:
        client, publisher = self._client, self._publisher
        self._call([NatsMessage(client, publisher, *delivery) for delivery in batch])
        return len(batch)

    def _deliver_late(self, batch: list[Delivery]) -> None:
        # Of a request given up. What the credit does not cover goes back at once rather than after the ack wait.
        taken = 0 if self._stopped else self._pull.take_late(len(batch))
        for _, reply, _, _ in batch[taken:]:
            self._client.write_or_hold(b"PUB %b 4\r\n-NAK\r\n" % reply)
        if taken:
            self._deliver(batch[:taken])

    async def _finished(self) -> None:
        # After this round trip everything that was under way to us has come, and was handed back.
        if self._client.live:
            try:
                await self._client.flush(2)
            except (NatsError, OSError) as error:
                logger.debug("%s: stopped without a last round trip: %s", self._label, error)
        group = self._pull.pinned_group
        if group is not None and self._client.live:
            # Otherwise the next in line waits for the pin's timeout.
            subject = f"$JS.API.CONSUMER.UNPIN.{self._stream}.{self._name}"
            try:
                await self._requests.api(subject, {"group": group}, timeout=1.0)
            except NexusError as error:
                logger.debug("%s: the pin was not given back: %s", self._label, error)


class ObserverSubscription(PullSubscription):
    """An observer: a consumer of its own without acks, made again from the last seen message after every loss."""

    _position: int | None = None
    """The last sequence seen or passed over."""
    _next_delivery = 1
    _current = b""

    async def _make(self) -> None:
        self._drop_consumer()
        name = self._client.inbox().rpartition(b".")[2].decode()
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_waiting": 16,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int((self._spec.inactive_threshold or OBSERVER_THRESHOLD) * _NANO),
        }
        if self._position is None:
            config["deliver_policy"] = self._spec.start.value
        else:
            config["deliver_policy"] = "by_start_sequence"
            config["opt_start_seq"] = self._position + 1
        info = await self._create(name, config, "create")
        if self._position is None:
            # So that "only later ones" still holds for what is published before the first message was seen.
            self._position = int(info["delivered"]["stream_seq"])
        self._next_delivery = 1
        self._current = name.encode()
        if self._stopped:
            self._drop_consumer()
        else:
            self._pull.start(self._stream, name, LONGEST_PULL, HEARTBEAT, None)

    def _deliver(self, batch: list[Delivery]) -> int:
        messages: list[NatsMessage] = []
        for delivery in batch:
            message = ObservedMessage(self._client, self._publisher, *delivery)
            meta = message.meta
            if meta.consumer.encode() != self._current:
                continue
            if meta.consumer_seq != self._next_delivery:
                # Something was lost on the way: again from the last one seen.
                self._pull.suspend(0)
                self._consumer_gone()
                break
            self._next_delivery += 1
            self._position = meta.seq
            messages.append(message)
        if messages:
            self._call(messages)
        return len(messages)

    def _deliver_late(self, batch: list[Delivery]) -> None:
        # Dropped, which shows as a gap in what follows, and that is repaired.
        return

    def _drop_consumer(self) -> None:
        if self._current:
            self._client.write(b"PUB $JS.API.CONSUMER.DELETE.%b.%b 0\r\n\r\n" % (self._stream.encode(), self._current))
            self._current = b""

    async def _finished(self) -> None:
        self._drop_consumer()
