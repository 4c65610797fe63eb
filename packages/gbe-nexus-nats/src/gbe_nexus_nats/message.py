"""A delivered JetStream message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gbe_nexus.deadletter import dead_letter_subject, make_dead_letter
from gbe_nexus.envelope import encode_payload
from gbe_nexus.errors import NexusError, PayloadTooLarge
from gbe_nexus.transport import Outgoing
from gbe_nexus_nats.wire import parse_headers

if TYPE_CHECKING:
    from gbe_nexus_nats.client import FastClient
    from gbe_nexus_nats.publisher import Publisher

_ACK = b"PUB %b 4\r\n+ACK\r\n"
_TERM = b"PUB %b 5\r\n+TERM\r\n"
_PROGRESS = b"PUB %b 4\r\n+WPI\r\n"


class AckReply:
    """The parts of `$JS.ACK.…`, the reply subject that carries a message's metadata."""

    __slots__ = ("consumer", "consumer_seq", "deliveries", "pending", "seq", "stream")

    def __init__(self, reply: bytes) -> None:
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<consumer seq>.<time>.<pending>; newer servers put domain and
        # account hash in front and may append a token.
        parts = reply.split(b".")
        first = 2 if len(parts) == 9 else 4
        self.stream = parts[first].decode()
        self.consumer = parts[first + 1].decode()
        self.deliveries = int(parts[first + 2])
        self.seq = int(parts[first + 3])
        self.consumer_seq = int(parts[first + 4])
        self.pending = int(parts[first + 6])


class NatsMessage:
    """Implements `gbe_nexus.Message`. Everything but the payload is worked out when it is asked for."""

    __slots__ = ("_client", "_headers", "_meta", "_publisher", "_reply", "_settled", "_subject", "payload")

    def __init__(
        self,
        client: FastClient,
        publisher: Publisher,
        subject: bytes,
        reply: bytes,
        headers: bytes | None,
        payload: bytes,
    ) -> None:
        self._client = client
        self._publisher = publisher
        self._subject = subject
        self._reply = reply
        self._headers = headers
        self.payload = payload
        self._settled = False
        self._meta: AckReply | None = None

    def __repr__(self) -> str:
        return f"<NatsMessage {self.subject} seq={self.seq} {len(self.payload)} bytes>"

    @property
    def subject(self) -> str:
        return self._subject.decode()

    @property
    def headers(self) -> Mapping[str, str]:
        return parse_headers(self._headers)

    @property
    def meta(self) -> AckReply:
        """What the reply subject says."""
        if self._meta is None:
            self._meta = AckReply(self._reply)
        return self._meta

    @property
    def seq(self) -> int:
        return self.meta.seq

    @property
    def deliveries(self) -> int:
        return self.meta.deliveries

    @property
    def settled(self) -> bool:
        return self._settled

    def ack(self) -> None:
        if not self._settled:
            self._settled = True
            self._client.write_or_hold(_ACK % self._reply)

    def nak(self, delay: float = 0.0) -> None:
        if not self._settled:
            self._settled = True
            word = b'-NAK {"delay": %d}' % int(delay * 1e9) if delay > 0 else b"-NAK"
            self._client.write_or_hold(b"PUB %b %d\r\n%b\r\n" % (self._reply, len(word), word))

    def in_progress(self) -> None:
        if not self._settled:
            self._client.write(_PROGRESS % self._reply)

    def term(self) -> None:
        if not self._settled:
            self._settled = True
            self._client.write_or_hold(_TERM % self._reply)

    async def dead_letter(self, reason: str) -> None:
        if self._settled:
            return
        self._settled = True  # From here on nothing else counts, unless storing fails.
        try:
            await self._store_dead_letter(reason)
        except BaseException:
            self._settled = False
            raise
        self._client.write_or_hold(_TERM % self._reply)

    async def _store_dead_letter(self, reason: str) -> None:
        stream, seq, subject = self.meta.stream, self.meta.seq, self.subject
        msg_id = f"{stream}:{seq}:dead"
        target = dead_letter_subject(subject)
        letter = make_dead_letter(subject, stream, seq, reason, dict(self.headers), self.payload)
        (result,) = await self._publisher.publish([Outgoing(target, encode_payload(msg_id, letter), msg_id)])
        if isinstance(result, PayloadTooLarge):
            # As base64 it is a third larger than it was. A letter without the body beats a message that comes back
            # for ever.
            note = f"{reason} (its payload of {len(self.payload)} bytes does not fit into a dead letter)"
            letter = make_dead_letter(subject, stream, seq, note, dict(self.headers), b"")
            (result,) = await self._publisher.publish([Outgoing(target, encode_payload(msg_id, letter), msg_id)])
        if isinstance(result, NexusError):
            raise result


class ObservedMessage(NatsMessage):
    """A message of an observer: nobody waits for its ack."""

    __slots__ = ()

    def ack(self) -> None:
        self._settled = True

    def nak(self, delay: float = 0.0) -> None:
        self._settled = True

    def in_progress(self) -> None:
        return

    def term(self) -> None:
        self._settled = True

    async def dead_letter(self, reason: str) -> None:
        if not self._settled:
            self._settled = True
            try:
                await self._store_dead_letter(reason)
            except BaseException:
                self._settled = False
                raise
