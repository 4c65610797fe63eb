"""`MemoryStream`: the messages of one stream, its limits and its memory of message ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields

from gbe_nexus import Conflict, PayloadTooLarge, PubAck, Refused, Stream, StreamConflict, StreamFull, StreamSpec
from gbe_nexus import StreamState as State
from gbe_nexus_memory.subjects import has_wildcard, is_pattern, matcher
from gbe_nexus_memory.timers import Timers

_NO_HEADERS: Mapping[str, str] = {}


class Stored:
    """One message of a stream."""

    __slots__ = ("at", "headers", "payload", "seq", "size", "subject")

    def __init__(
        self, seq: int, subject: str, payload: bytes, headers: Mapping[str, str] | None, size: int, at: float
    ) -> None:
        self.seq = seq
        self.subject = subject
        self.payload = payload
        self.headers = headers or _NO_HEADERS
        self.size = size
        self.at = at


def freeze(spec: StreamSpec) -> Stream:
    """The spec as it is now, comparable; refuses what no stream can be."""
    stream = Stream(**{field.name: getattr(spec, field.name) for field in fields(Stream)})
    if not stream.subjects or not all(map(is_pattern, stream.subjects)):
        raise Refused(f"stream {stream.name}: not subjects a stream can have: {', '.join(stream.subjects) or 'none'}")
    return stream


def check_same(wanted: Stream, existing: Stream) -> None:
    """Raise `StreamConflict`, naming each setting that differs."""
    differing = []
    for field in fields(Stream):
        ours, theirs = getattr(wanted, field.name), getattr(existing, field.name)
        if field.name == "subjects":
            ours, theirs = sorted(ours), sorted(theirs)
        if ours != theirs:
            differing.append(f"{field.name} is {theirs!r}, wanted {ours!r}")
    if differing:
        raise StreamConflict(f"stream {wanted.name} exists with other settings: {'; '.join(differing)}")


class MemoryStream:
    """Messages by sequence and by subject. `on_stored` is called after each message that was stored."""

    def __init__(self, spec: Stream, clock: Callable[[], float], timers: Timers) -> None:
        self.spec = spec
        self.messages: dict[int, Stored] = {}
        self.last_seq = 0
        self.listeners: list[Callable[[], None]] = []
        self.matches = matcher(spec.subjects)
        self._first = 1
        self._bytes = 0
        self._by_subject: dict[str, dict[int, Stored]] = {}
        self._ids: dict[str, int] = {}
        self._id_ends: deque[tuple[float, str]] = deque()
        self._clock = clock
        self._timers = timers
        self._ageing = False

    # --- writing ---

    def store(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        size: int,
        msg_id: str | None = None,
        expected: int | None = None,
    ) -> PubAck:
        """Store one message, or raise why not. `size`: payload and headers; `expected`: the subject's last sequence."""
        spec = self.spec
        if spec.max_message_size and size > spec.max_message_size:
            raise PayloadTooLarge(size, spec.max_message_size)
        now = self._clock()
        if msg_id is not None and spec.duplicate_window > 0:
            known = self._known(msg_id, now)
            if known is not None:
                return PubAck(spec.name, known, True)
        if expected is not None:
            last = self.last_of(subject)
            if last != expected:
                raise Conflict(f"last sequence of {subject} is {last}, not {expected}", last)
        size += len(subject)
        self._make_room(subject, size)
        self.last_seq = seq = self.last_seq + 1
        stored = Stored(seq, subject, payload, headers, size, now)
        self.messages[seq] = stored
        siblings = self._by_subject.get(subject)
        if siblings is None:
            siblings = self._by_subject[subject] = {}
        siblings[seq] = stored
        self._bytes += size
        if msg_id is not None and spec.duplicate_window > 0:
            self._ids[msg_id] = seq
            self._id_ends.append((now + spec.duplicate_window, msg_id))
        if spec.max_age > 0 and not self._ageing:
            self._ageing = True
            self._timers.at(now + spec.max_age, self._age)
        for listener in self.listeners:
            listener()
        return PubAck(spec.name, seq)

    def _known(self, msg_id: str, now: float) -> int | None:
        while self._id_ends and self._id_ends[0][0] <= now:
            del self._ids[self._id_ends.popleft()[1]]
        return self._ids.get(msg_id)

    def _make_room(self, subject: str, size: int) -> None:
        """Evict what the limits say must go for this message, or raise `StreamFull` without touching anything."""
        spec = self.spec
        if spec.max_bytes and size > spec.max_bytes:
            raise StreamFull(f"stream {spec.name}: one message of {size} bytes is more than its {spec.max_bytes} bytes")
        replaced: list[Stored] = []
        if spec.max_per_subject:
            siblings = self._by_subject.get(subject, {})
            excess = len(siblings) - spec.max_per_subject + 1
            replaced = [stored for stored, _ in zip(siblings.values(), range(excess), strict=False)]
        if not spec.discard_old:
            messages = len(self.messages) - len(replaced) + 1
            used = self._bytes - sum(stored.size for stored in replaced) + size
            if spec.max_messages and messages > spec.max_messages:
                raise StreamFull(f"stream {spec.name} is full: {spec.max_messages} messages")
            if spec.max_bytes and used > spec.max_bytes:
                raise StreamFull(f"stream {spec.name} is full: {used} bytes of {spec.max_bytes}")
        for stored in replaced:
            self.remove(stored)
        while self.messages and (
            (spec.max_messages and len(self.messages) >= spec.max_messages)
            or (spec.max_bytes and self._bytes + size > spec.max_bytes)
        ):
            self.remove(self.messages[self.first_seq])

    def remove(self, stored: Stored) -> None:
        """Take one message out."""
        del self.messages[stored.seq]
        self._bytes -= stored.size
        siblings = self._by_subject[stored.subject]
        del siblings[stored.seq]
        if not siblings:
            del self._by_subject[stored.subject]

    def trim(self, before: int) -> int:
        """Remove everything below a sequence; returns how many."""
        gone = [stored for seq, stored in self.messages.items() if seq < before]
        for stored in gone:
            self.remove(stored)
        return len(gone)

    def purge(self, pattern: str) -> int:
        """Remove everything on the subjects that match; returns how many."""
        gone = [stored for siblings in self._matching(pattern) for stored in siblings.values()]
        for stored in gone:
            self.remove(stored)
        return len(gone)

    def _age(self) -> None:
        self._ageing = False
        now = self._clock()
        while self.messages:
            oldest = self.messages[self.first_seq]
            end = oldest.at + self.spec.max_age
            if end > now:
                self._ageing = True
                self._timers.at(end, self._age)
                return
            self.remove(oldest)

    # --- reading ---

    @property
    def first_seq(self) -> int:
        """Sequence of the oldest message; one above the last where there is none."""
        first, messages, end = self._first, self.messages, self.last_seq + 1
        if not messages:
            first = end
        while first < end and first not in messages:
            first += 1
        self._first = first  # only ever grows, so all the steps together are one per message
        return first

    def state(self) -> State:
        """What it holds now."""
        spec = self.spec
        return State(
            spec.name,
            len(self.messages),
            self._bytes,
            self.first_seq,
            self.last_seq,
            spec.max_messages,
            spec.max_bytes,
        )

    def last_of(self, subject: str) -> int:
        """Last sequence of one subject; 0 where it has no message."""
        siblings = self._by_subject.get(subject)
        return next(reversed(siblings)) if siblings else 0

    def newest(self, pattern: str) -> Stored | None:
        """The newest message of the subjects that match."""
        return max((siblings[next(reversed(siblings))] for siblings in self._matching(pattern)), default=None, key=_seq)

    def select(self, pattern: str, after: int) -> list[Stored]:
        """The messages above a sequence on the subjects that match, in order."""
        found = [stored for siblings in self._matching(pattern) for stored in siblings.values() if stored.seq > after]
        found.sort(key=_seq)
        return found

    def subjects(self, pattern: str) -> dict[str, int]:
        """Subjects that match, with how many messages each holds."""
        matches = matcher([pattern])
        return {subject: len(siblings) for subject, siblings in self._by_subject.items() if matches(subject)}

    def _matching(self, pattern: str) -> Iterator[dict[int, Stored]]:
        if not has_wildcard(pattern):
            siblings = self._by_subject.get(pattern)
            return iter([siblings] if siblings else [])
        matches = matcher([pattern])
        return (siblings for subject, siblings in self._by_subject.items() if matches(subject))


def _seq(stored: Stored) -> int:
    return stored.seq
