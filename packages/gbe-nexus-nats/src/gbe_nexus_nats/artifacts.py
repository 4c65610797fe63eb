"""`NatsArtifactStore`: a JetStream object bucket, laid out as ADR-20 says, so that the `nats` tool reads it.

nats-py's own client is not used: its reads are quadratic in the number of chunks. Chunks go out in windows through
the transport's pipelined publisher and come back through a pull consumer, a bounded number at a time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime

import msgspec

from gbe_nexus.artifacts import Artifact, ArtifactStore
from gbe_nexus.errors import (
    ClosedError,
    Conflict,
    IntegrityError,
    NexusError,
    NotFound,
    PayloadTooLarge,
    Refused,
    Unavailable,
)
from gbe_nexus.transport import Outgoing, PubAck
from gbe_nexus_nats.bucket import NANOSECONDS, JetStream, ensure_bucket, last_message, purge, subjects
from gbe_nexus_nats.chunks import ChunkReader, Gap

CHUNK = 128 * 1024
"""Bytes per chunk, where the server takes messages that large."""

WINDOW = 32
"""Chunks on their way to the server at a time; as many more are being made ready."""

_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,128}")
_KEY_BYTES = 700
"""UTF-8 bytes of the longest key: as base64 it is part of a subject, and those have a limit."""

_DIGEST = "SHA-256="
_MEDIA_TYPE = "Content-Type"
_PARALLEL = 16


class _Options(msgspec.Struct, omit_defaults=True):
    max_chunk_size: int = 0


class _Meta(msgspec.Struct, omit_defaults=True):
    """The message that describes an object; names and meaning are ADR-20's."""

    name: str
    bucket: str = ""
    nuid: str = ""
    size: int = 0
    chunks: int = 0
    digest: str = ""
    mtime: str = ""
    deleted: bool = False
    headers: dict[str, list[str]] | None = None
    options: _Options | None = None


class _Found(msgspec.Struct, frozen=True):
    """A description and where it is in the stream."""

    seq: int
    meta: _Meta
    digest: bytes


_meta = msgspec.json.Decoder(_Meta)


async def open_artifact_store(jetstream: JetStream, bucket: str) -> NatsArtifactStore:
    """The bucket, made where it does not exist. Raises `StreamConflict` where it exists as something else."""
    if not _BUCKET.fullmatch(bucket):
        raise Refused(f"not a bucket name: {bucket!r} (1 to 128 of A-Za-z0-9_-)")
    config = {
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "duplicate_window": 60 * NANOSECONDS,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
    await ensure_bucket(jetstream, f"OBJ_{bucket}", config, ["subjects", "allow_rollup_hdrs"])
    return NatsArtifactStore(jetstream, bucket)


class NatsArtifactStore(ArtifactStore):
    """An object bucket. Keys have up to 700 bytes in UTF-8.

    What another tool deleted stays listed until its key is written or deleted here.
    """

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self._jetstream = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._meta_prefix = f"$O.{bucket}.M."

    # --- writing -----------------------------------------------------------------------------------

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], *, media_type: str = "application/octet-stream"
    ) -> Artifact:
        """Store, replacing what was there once all of it is stored."""
        subject = self._subject(key)
        nuid = secrets.token_hex(11)
        try:
            digest, size, count = await self._put_chunks(nuid, data)
        except BaseException:
            await self._discard(nuid)
            raise
        meta = _Meta(
            name=key,
            bucket=self._bucket,
            nuid=nuid,
            size=size,
            chunks=count,
            digest=_DIGEST + base64.urlsafe_b64encode(digest).decode(),
            mtime=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            headers={_MEDIA_TYPE: [media_type]},
            options=_Options(max_chunk_size=self._chunk_size),
        )
        for old in await self._put_meta(subject, meta):
            await self._discard(old)
        return Artifact(self._bucket, key, size, digest.hex(), media_type)

    async def delete(self, key: str) -> None:
        """Remove it; fine where it isn't there."""
        await self._delete(self._subject(key))

    async def delete_prefix(self, prefix: str) -> int:
        """Remove all whose key begins with `prefix`."""
        if not prefix:
            raise ValueError("an empty prefix would delete everything")
        places = asyncio.Semaphore(_PARALLEL)

        async def remove(key: str) -> bool:
            async with places:
                return await self._delete(self._subject(key))

        keys = await self.keys(prefix)
        # All are tried before an error is raised.
        results = await asyncio.gather(*(remove(key) for key in keys), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results.count(True)

    async def discard_abandoned(self, older_than: float) -> int:
        """Remove chunks that no object has, of puts that wrote last so long ago."""
        prefix = self._chunk_subject("")
        # In this order: what is described by the time the descriptions are read is nobody's orphan.
        orphans = {subject async for subject, _ in subjects(self._jetstream, self._stream, prefix + "*")}
        if not orphans:
            return 0
        async for subject, _ in subjects(self._jetstream, self._stream, self._meta_prefix + "*"):
            try:
                found = await self._find(subject)
            except IntegrityError:
                return 0  # whose chunks these are can't be told
            if found is not None:
                orphans.discard(prefix + found.meta.nuid)
        now = datetime.now(UTC)
        discarded = 0
        for subject in orphans:
            last = await last_message(self._jetstream, self._stream, subject)
            if last is not None and (now - datetime.fromisoformat(last.time)).total_seconds() >= older_than:
                await purge(self._jetstream, self._stream, subject, before=last.seq + 1)
                discarded += 1
        return discarded

    @property
    def _chunk_size(self) -> int:
        # Room for the headers.
        return min(CHUNK, self._jetstream.max_payload - 512)

    async def _put_chunks(self, nuid: str, data: bytes | AsyncIterable[bytes]) -> tuple[bytes, int, int]:
        """Store the bytes; returns digest, size and number of chunks.

        One window is on its way while the next is read and hashed. Not two: a chunk that has to be sent again must
        not be overtaken, since the order in the stream is the order of the bytes.
        """
        digest = hashlib.sha256()
        size = count = last = 0
        under_way: asyncio.Future[list[PubAck | NexusError]] | None = None
        window: list[Outgoing] = []
        subject = self._chunk_subject(nuid)
        try:
            async with aclosing(_rechunk(data, self._chunk_size)) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    window.append(Outgoing(subject, chunk, msg_id=f"{nuid}.{count}"))
                    count += 1
                    if len(window) == WINDOW:
                        last = _in_order(await under_way, last) if under_way is not None else 0
                        under_way = asyncio.ensure_future(self._jetstream.publish_many(window))
                        window = []
                    elif count % 4 == 0:
                        await asyncio.sleep(0)  # hashing is work: others have their turn
            if under_way is not None:
                last = _in_order(await under_way, last)
            if window:
                under_way = asyncio.ensure_future(self._jetstream.publish_many(window))
                _in_order(await under_way, last)
        except BaseException:
            if under_way is not None and not under_way.done():
                # What is on its way must arrive before it can be removed.
                await asyncio.shield(asyncio.wait([under_way]))
            raise
        return digest.digest(), size, count

    async def _put_meta(self, subject: str, meta: _Meta) -> list[str]:
        """Make the chunks the object's; returns whose chunks they replace. One writer after the other, by swap."""
        replaced: list[str] = []
        body = msgspec.json.encode(meta)
        while True:
            old = await self._find(subject)
            if old is not None and old.meta.nuid == meta.nuid:
                return replaced  # a lost ack
            headers = {
                "Nats-Rollup": "sub",
                "Nats-Expected-Last-Subject-Sequence": str(old.seq if old is not None else 0),
            }
            try:
                await self._jetstream.publish(subject, body, msg_id=secrets.token_urlsafe(12), headers=headers)
            except Conflict:
                continue
            except (Unavailable, ClosedError):
                # Perhaps it is stored; then the chunks are needed. In doubt they are left (as when cancelled here).
                raise
            except NexusError:
                await self._discard(meta.nuid)
                raise
            if old is not None and old.meta.nuid:
                replaced.append(old.meta.nuid)
            return replaced

    async def _delete(self, subject: str) -> bool:
        found = await self._find(subject)
        if found is None:
            return False
        # Never what somebody wrote in the meantime. The description first: what is described is there.
        await purge(self._jetstream, self._stream, subject, before=found.seq + 1)
        if found.meta.nuid:
            await purge(self._jetstream, self._stream, self._chunk_subject(found.meta.nuid))
        return not found.meta.deleted

    async def _discard(self, nuid: str) -> None:
        """Remove chunks that belong to nothing, if it can be done; nobody sees them anyway."""
        with suppress(NexusError):
            await asyncio.shield(purge(self._jetstream, self._stream, self._chunk_subject(nuid)))

    # --- reading -----------------------------------------------------------------------------------

    async def info(self, key: str) -> Artifact | None:
        """What is there, or None."""
        found = await self._find(self._subject(key))
        return None if found is None or found.meta.deleted else self._artifact(key, found)

    def get(self, key: str) -> AsyncIterator[bytes]:
        """The bytes in chunks, the digest checked at the end."""
        return self._get(key, self._subject(key))

    async def read(self, key: str, *, limit: int) -> bytes:
        """All the bytes, checked."""
        subject = self._subject(key)
        while True:
            found = await self._existing(key, subject)
            if found.meta.size > limit:
                raise PayloadTooLarge(found.meta.size, limit, f"artifact {self._bucket}/{key}")
            try:
                async with aclosing(self._chunks(key, found)) as chunks:
                    return b"".join([chunk async for chunk in chunks])
            except _Replaced:
                continue

    async def keys(self, prefix: str = "") -> list[str]:
        """Sorted keys that begin with `prefix`."""
        cut = len(self._meta_prefix)
        names = []
        async for subject, _ in subjects(self._jetstream, self._stream, self._meta_prefix + "*"):
            try:
                name = base64.urlsafe_b64decode(subject[cut:]).decode()
            except (binascii.Error, UnicodeDecodeError):
                continue  # not made by anybody who knows the layout
            if name.startswith(prefix):
                names.append(name)
        return sorted(set(names))

    async def _get(self, key: str, subject: str) -> AsyncGenerator[bytes, None]:
        begun = False
        while True:
            found = await self._existing(key, subject)
            try:
                async with aclosing(self._chunks(key, found)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except _Replaced:
                if begun:  # its first half is out already
                    raise Conflict(f"artifact {self._bucket}/{key} was replaced while it was read") from None

    async def _chunks(self, key: str, found: _Found) -> AsyncGenerator[bytes, None]:
        """The bytes of an object, checked. Raises `_Replaced` where it is not the current one any more."""
        meta = found.meta
        digest = hashlib.sha256()
        size = 0
        if meta.chunks:
            reader = ChunkReader(self._jetstream, self._stream, self._chunk_subject(meta.nuid))
            try:
                async with aclosing(reader.read(meta.chunks)) as chunks:
                    async for chunk in chunks:
                        digest.update(chunk)
                        size += len(chunk)
                        yield chunk
            except Gap as gap:
                now = await self._find(self._subject(key))
                if now is None or now.meta.nuid != meta.nuid:
                    raise _Replaced from None
                raise IntegrityError(f"artifact {self._bucket}/{key} is incomplete: {gap}") from None
        if size != meta.size or not hmac.compare_digest(digest.digest(), found.digest):
            raise IntegrityError(f"artifact {self._bucket}/{key} does not match its sha256")

    async def _existing(self, key: str, subject: str) -> _Found:
        found = await self._find(subject)
        if found is None or found.meta.deleted:
            raise NotFound(f"no artifact {self._bucket}/{key}")
        return found

    async def _find(self, subject: str) -> _Found | None:
        last = await last_message(self._jetstream, self._stream, subject)
        if last is None or not last.data:
            return None
        try:
            meta = _meta.decode(last.data)
            digest = b"" if meta.deleted else base64.urlsafe_b64decode(meta.digest.removeprefix(_DIGEST))
        except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError) as error:
            raise IntegrityError(f"the description of an artifact in {self._bucket} is damaged: {error}") from error
        return _Found(last.seq, meta, digest)

    def _artifact(self, key: str, found: _Found) -> Artifact:
        media_type = (found.meta.headers or {}).get(_MEDIA_TYPE)
        if not media_type:
            return Artifact(self._bucket, key, found.meta.size, found.digest.hex())
        return Artifact(self._bucket, key, found.meta.size, found.digest.hex(), media_type[0])

    def _subject(self, key: str) -> str:
        if not 1 <= len(key) <= 512 or not key.isprintable() or ".." in key.split("/"):
            raise ValueError(f"not an artifact key: {key!r} (1 to 512 printable characters, no `..` segment)")
        encoded = key.encode()
        if len(encoded) > _KEY_BYTES:
            raise ValueError(f"artifact key of {len(encoded)} bytes in UTF-8, the limit is {_KEY_BYTES}: {key[:40]!r}…")
        return self._meta_prefix + base64.urlsafe_b64encode(encoded).decode()

    def _chunk_subject(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"


class _Replaced(Exception):
    """The object that was being read is not the key's any more."""


def _in_order(results: list[PubAck | NexusError], last: int) -> int:
    """Check that all are stored in the order they were sent; returns the last sequence."""
    for result in results:
        if isinstance(result, NexusError):
            raise result
        if result.seq <= last:
            raise Unavailable("the chunks of an artifact were stored out of order; put it again")
        last = result.seq
    return last


async def _rechunk(data: bytes | AsyncIterable[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """The same bytes in chunks of one size."""
    if isinstance(data, bytes | bytearray | memoryview):
        view = memoryview(data).cast("B")
        for start in range(0, len(view), size):
            yield bytes(view[start : start + size])
        return
    rest = bytearray()
    async for piece in data:
        view = memoryview(piece).cast("B")
        # A piece may be large: no copy of more than one chunk of it at a time.
        for start in range(0, len(view), size):
            rest += view[start : start + size]
            if len(rest) >= size:
                yield bytes(rest[:size])
                del rest[:size]
    if rest:
        yield bytes(rest)
