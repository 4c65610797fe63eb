"""`NatsStateStore`: a JetStream key-value bucket, laid out as ADR-8 says, so that the `nats` tool reads it.

nats-py's own client is not used: its `get` and `create` take the markers that deletions and ended lives leave for
values. A read here asks the stream's leader; a write carries an id of its own, so that a lost ack is found out and a
writer is never told of a conflict with itself.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import Mapping

import msgspec

from gbe_nexus.errors import Conflict, IntegrityError, Refused, StreamConflict
from gbe_nexus.state import Entry, StateStore
from gbe_nexus_nats.bucket import NANOSECONDS, JetStream, Stored, ensure_bucket, last_message, purge, subjects

_KEY = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_=./-]{1,512}(?<!\.)")
_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MARKER_TTL = 5.0
"""Seconds after which the marker of a deletion goes by itself, should the purge right after it not get through."""

_WINDOW = 60.0
"""Seconds for which the server knows a write again; the transport gives up earlier."""

_TRIES = 100

_fields = msgspec.json.Decoder(dict[str, str])


async def open_state_store(jetstream: JetStream, bucket: str, *, ttl: float = 0) -> NatsStateStore:
    """The bucket, made where it does not exist.

    Raises `StreamConflict` where it exists with another time to live, or made by a client that did not allow one
    per entry.
    """
    if not _BUCKET.fullmatch(bucket):
        raise Refused(f"not a bucket name: {bucket!r} (1 to 128 of A-Za-z0-9_-)")
    window = min(_WINDOW, ttl) if ttl else _WINDOW
    config = {
        "subjects": [f"$KV.{bucket}.>"],
        "max_msgs_per_subject": 1,
        "max_age": int(ttl * NANOSECONDS),
        "duplicate_window": int(window * NANOSECONDS),
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        # No `subject_delete_marker_ttl`: it would leave a marker for each ended life, which counts as a key of the
        # bucket; nobody here watches buckets.
        "allow_msg_ttl": True,
    }
    try:
        await ensure_bucket(
            jetstream, f"KV_{bucket}", config, ["subjects", "max_age", "allow_rollup_hdrs", "allow_msg_ttl"]
        )
    except StreamConflict as error:
        raise StreamConflict(f"{error} (ages in nanoseconds)") from error
    return NatsStateStore(jetstream, bucket)


class NatsStateStore(StateStore):
    """A key-value bucket. Times to live are whole seconds to the server, one at least: a fraction is rounded up."""

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self._jetstream = jetstream
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."

    async def get(self, key: str) -> Entry | None:
        """The entry, or None."""
        return _entry(key, await self._last(self._subject(key)))

    async def put(self, key: str, value: bytes, *, ttl: float = 0) -> int:
        """Write unconditionally."""
        ack = await self._jetstream.publish(
            self._subject(key), value, msg_id=_nonce(), headers=_ttl_header(ttl) or None
        )
        return ack.seq

    async def create(self, key: str, value: bytes, *, ttl: float = 0) -> int:
        """Write if there is no entry."""
        subject = self._subject(key)
        expected = 0
        while True:
            nonce = _nonce()
            try:
                return await self._write(subject, value, expected, nonce, _ttl_header(ttl))
            except Conflict:
                last = await self._last(subject)
                entry = _entry(key, last)
                if entry is not None:
                    raise Conflict(f"{key} exists at revision {entry.revision}", entry.revision) from None
                # Either a marker holds the place or nothing does any more; each turn somebody got further.
                expected = last.seq if last is not None else 0

    async def swap(self, key: str, value: bytes, revision: int, *, ttl: float = 0) -> int:
        """Write if the entry's revision is `revision`."""
        subject = self._subject(key)
        if revision <= 0:
            await self._miss(key, revision)
        try:
            return await self._write(subject, value, revision, _nonce(), _ttl_header(ttl))
        except Conflict:
            return await self._miss(key, revision)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove (only at `revision`, where given)."""
        subject = self._subject(key)
        if revision is None:
            # No marker: a removed key holds no message, so it is no key.
            await purge(self._jetstream, self._stream, subject)
            return
        if revision <= 0:
            await self._miss(key, revision)
        # A purge knows no condition. So a marker takes the entry's place, if it may, and is purged itself: never
        # what somebody wrote after it.
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", **_ttl_header(_MARKER_TTL)}
        try:
            marker = await self._write(subject, b"", revision, _nonce(), headers)
        except Conflict:
            await self._miss(key, revision)
        else:
            await purge(self._jetstream, self._stream, subject, before=marker + 1)

    async def keys(self, prefix: str = "") -> list[str]:
        """Sorted keys that begin with `prefix`."""
        # Whole tokens can be left to the server.
        tokens, _, _ = prefix.rpartition(".")
        if tokens and not _KEY.fullmatch(tokens):
            return []
        pattern = f"{self._prefix}{tokens}.>" if tokens else f"{self._prefix}>"
        cut = len(self._prefix)
        found = [
            subject[cut:]
            async for subject, _ in subjects(self._jetstream, self._stream, pattern)
            if subject.startswith(prefix, cut)
        ]
        return sorted(set(found))

    async def get_fields(self, key: str) -> dict[str, str]:
        """The entry as a mapping."""
        return _mapping(key, await self.get(key))

    async def set_fields(self, key: str, fields: Mapping[str, str]) -> int:
        """Merge fields into the entry atomically."""
        while True:
            entry = await self.get(key)
            merged = msgspec.json.encode(_mapping(key, entry) | dict(fields))
            try:
                if entry is None:
                    return await self.create(key, merged)
                return await self.swap(key, merged, entry.revision)
            except Conflict:
                continue  # somebody else's went in between: theirs stay

    # --- how ---------------------------------------------------------------------------------------

    def _subject(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key: {key!r} (1 to 512 of A-Za-z0-9_=./-, no dot at an edge, none twice in a row)")
        return self._prefix + key

    async def _last(self, subject: str) -> Stored | None:
        return await last_message(self._jetstream, self._stream, subject)

    async def _write(self, subject: str, value: bytes, expected: int, nonce: str, headers: Mapping[str, str]) -> int:
        """Write where the subject's last sequence is `expected`; `Conflict` only where somebody else was first."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected), **headers}
        for left in reversed(range(_TRIES)):
            try:
                return (await self._jetstream.publish(subject, value, msg_id=nonce, headers=headers)).seq
            except Conflict:
                last = await self._last(subject)
                # The transport sends again after a silence, and the server knows the id again and says so. Only one
                # that was killed in between may have forgotten it, and then the conflict is with ourselves.
                if last is not None and last.headers.get("Nats-Msg-Id") == nonce:
                    return last.seq
                # On a cluster a write that is still on its way is a conflict already; it may yet come to nothing.
                if (last.seq if last is not None else 0) != expected or not left:
                    raise
            await asyncio.sleep(0.01)
        raise AssertionError("unreachable")

    async def _miss(self, key: str, revision: int) -> int:
        entry = await self.get(key)
        if entry is None:
            raise Conflict(f"{key} has no entry, expected revision {revision}")
        raise Conflict(f"{key} is at revision {entry.revision}, not {revision}", entry.revision)


def _nonce() -> str:
    return secrets.token_urlsafe(12)


def _ttl_header(ttl: float) -> dict[str, str]:
    return {"Nats-TTL": f"{max(1, math.ceil(ttl))}s"} if ttl else {}


def _entry(key: str, last: Stored | None) -> Entry | None:
    """The entry a message stands for; none where it is the marker of a deletion or of an ended life."""
    if last is None or "Nats-Marker-Reason" in last.headers or last.headers.get("KV-Operation") in ("DEL", "PURGE"):
        return None
    return Entry(key, last.data, last.seq)


def _mapping(key: str, entry: Entry | None) -> dict[str, str]:
    if entry is None:
        return {}
    try:
        return _fields.decode(entry.value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{key} holds something else than fields: {error}") from error
