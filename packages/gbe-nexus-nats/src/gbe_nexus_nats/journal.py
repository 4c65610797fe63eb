"""The journal: one subject per log, appended to with the subject's last sequence as the condition."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from gbe_nexus.answers import Answers
from gbe_nexus.errors import Conflict, NexusError, NotFound, Refused, Unavailable
from gbe_nexus.journal import Append, Journal, JournalEntry
from gbe_nexus.transport import PubAck
from gbe_nexus_nats.client import FastClient
from gbe_nexus_nats.publisher import Publisher, Raw, Result
from gbe_nexus_nats.requests import Requests
from gbe_nexus_nats.wire import STATUS_LINE, api_name, literal_subject, parse_headers, subject_pattern

NONCE = "Gbe-Nonce"
"""Header that tells a writer its own record. Not `Nats-Msg-Id`: the swap alone decides, and the server would keep each
id for the duplicate window."""

LASTING = 10.0
"""Seconds after which an append whose outcome can't be found out is given up."""

BATCH = 512
BATCH_BYTES = 4 * 1024 * 1024
MANY = 1000
"""Subjects per request for the last records of many (the server takes 1,024)."""

_HEADER = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: %d\r\nGbe-Nonce: %b\r\n\r\n"


class _Record(msgspec.Struct, frozen=True):
    entry: JournalEntry
    nonce: str


class NatsJournal(Journal):
    """Implements `gbe_nexus.Journal` on one stream."""

    def __init__(self, client: FastClient, requests: Requests, publisher: Publisher, stream: str) -> None:
        self._requests = requests
        self._publisher = publisher
        self._stream = api_name(stream)
        self._writer = client.inbox().rpartition(b".")[2]
        self._tries = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- writing ----------------------------------------------------------------------------------

    async def append(self, subject: str, payload: bytes, expected: int) -> int:
        (result,) = await self.append_many((Append(subject, payload, expected),))
        if isinstance(result, NexusError):
            raise result
        return result

    def append_many(self, records: Sequence[Append]) -> Answers[int | NexusError]:
        first = self._tries + 1
        answers: Answers[int | NexusError] = Answers()
        published = self._publisher.publish_raw([self._raw(record) for record in records])
        published.then(lambda results: self._appended(records, first, results, answers))
        return answers

    def _raw(self, record: Append) -> Raw:
        self._tries += 1
        # A second copy is not sent blindly: whether the first one was stored is asked for.
        return Raw(record.subject, _HEADER % (record.expected, self._nonce(self._tries)), record.payload, False)

    def _nonce(self, attempt: int) -> bytes:
        return b"%b-%d" % (self._writer, attempt)

    def _appended(
        self, records: Sequence[Append], first: int, results: list[Result], answers: Answers[int | NexusError]
    ) -> None:
        outcomes: list[int | NexusError] = []
        open_ones: list[int] = []
        for index, result in enumerate(results):
            if isinstance(result, PubAck):
                outcomes.append(result.seq)
            else:
                outcomes.append(result)
                if isinstance(result, Unavailable) or (isinstance(result, Conflict) and result.current is None):
                    open_ones.append(index)
        if open_ones:
            work = self._find_out(records, first, results, outcomes, open_ones, answers)
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            answers.settle(outcomes)

    async def _find_out(
        self,
        records: Sequence[Append],
        first: int,
        results: list[Result],
        outcomes: list[int | NexusError],
        open_ones: list[int],
        answers: Answers[int | NexusError],
    ) -> None:
        try:
            found = await asyncio.gather(
                *(self._resolve(records[index], self._nonce(first + index), results[index]) for index in open_ones)
            )
            for index, outcome in zip(open_ones, found, strict=True):
                outcomes[index] = outcome
        finally:
            answers.settle(outcomes)

    async def _resolve(self, record: Append, nonce: bytes, result: Result) -> int | NexusError:
        """What became of an append that was answered by silence, or by "another one is under way"."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LASTING
        nonces = {nonce.decode()}
        try:
            while True:
                found = await self._get({"seq": record.expected + 1, "next_by_subj": record.subject})
                if found is not None:
                    if found.nonce in nonces:
                        return found.entry.seq
                    last = await self.last(record.subject)
                    return Conflict(
                        f"append to {record.subject}: another writer was first", last.seq if last is not None else 0
                    )
                if isinstance(result, Conflict) and result.current is not None:
                    return result  # Nothing after it, and yet it isn't the last: purged, or never there.
                if loop.time() >= deadline:
                    assert isinstance(result, NexusError)
                    return result
                if isinstance(result, Conflict):
                    await asyncio.sleep(0.02)
                raw = self._raw(record)
                nonces.add(self._nonce(self._tries).decode())
                (result,) = await self._publisher.publish_raw((raw,))
                if isinstance(result, PubAck):
                    return result.seq
                if not isinstance(result, Conflict | Unavailable):
                    return result
        except NexusError as error:
            return error

    async def purge(self, subject: str) -> int:
        subject_pattern(subject)
        answer = await self._requests.api(f"$JS.API.STREAM.PURGE.{self._stream}", {"filter": subject})
        return int(answer["purged"])

    async def erase(self, seq: int) -> bool:
        try:
            # Without `no_erase` the server overwrites the bytes with random ones, which is for secrets.
            await self._requests.api(f"$JS.API.STREAM.MSG.DELETE.{self._stream}", {"seq": seq, "no_erase": True})
        except NotFound:
            return False
        return True

    # --- reading ----------------------------------------------------------------------------------

    async def last(self, subject: str) -> JournalEntry | None:
        subject_pattern(subject)
        found = await self._get({"last_by_subj": subject})
        return found.entry if found is not None else None

    async def read(self, seq: int) -> JournalEntry | None:
        if seq < 1:
            return None
        found = await self._get({"seq": seq})
        return found.entry if found is not None else None

    async def last_many(self, subjects: Sequence[str]) -> dict[str, JournalEntry]:
        for subject in subjects:
            literal_subject(subject)
        found: dict[str, JournalEntry] = {}
        for start in range(0, len(subjects), MANY):
            part = list(subjects[start : start + MANY])
            for entry in await self._direct({"multi_last": part, "batch": len(part)}):
                found[entry.subject] = entry
        return found

    async def replay(self, subject: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        # Batched direct gets are fast but may come from a replica that lags. A replica holds the same records in the
        # same order, so once the leader's last record has come, all before it have.
        last = await self.last(subject)
        position = after
        while last is not None and position < last.seq:
            request = {"seq": position + 1, "next_by_subj": subject, "batch": BATCH, "max_bytes": BATCH_BYTES}
            entries = await self._direct(request)
            if not entries or entries[0].seq <= position:
                # Lagging, or no direct gets at all: one record from the leader, then try again.
                found = await self._get({"seq": position + 1, "next_by_subj": subject})
                if found is None:
                    return  # Purged meanwhile.
                entries = [found.entry]
            for entry in entries:
                if entry.seq > last.seq:
                    return
                position = entry.seq
                yield entry

    async def subjects(self, pattern: str) -> dict[str, int]:
        subject_pattern(pattern)
        found: dict[str, int] = {}
        seen = 0
        while True:
            request = {"subjects_filter": pattern, "offset": seen}
            answer = await self._requests.api(f"$JS.API.STREAM.INFO.{self._stream}", request)
            page: dict[str, int] = answer["state"].get("subjects") or {}
            found.update(page)
            seen += len(page)
            if not page or seen >= int(answer.get("total", 0)):
                return found

    async def _get(self, request: dict[str, Any]) -> _Record | None:
        """One record from the leader."""
        try:
            answer = await self._requests.api(f"$JS.API.STREAM.MSG.GET.{self._stream}", request)
        except NotFound as error:
            if "stream not found" in str(error):
                raise
            return None
        message = answer["message"]
        headers = parse_headers(base64.b64decode(message.get("hdrs", "")))
        entry = JournalEntry(message["subject"], message["seq"], base64.b64decode(message.get("data", "")))
        return _Record(entry, headers.get(NONCE, ""))

    async def _direct(self, request: dict[str, Any]) -> list[JournalEntry]:
        """Records from whichever replica answers."""
        subject = f"$JS.API.DIRECT.GET.{self._stream}"
        for attempt in (1, 2, 3):
            try:
                *records, end = await self._requests.collect(subject, request)
            except Unavailable:
                if attempt == 3:
                    raise
                await asyncio.sleep(0.2)
                continue
            status = end[2] or b""
            if status.startswith((STATUS_LINE + b"408", STATUS_LINE + b"413")):
                raise Refused(f"{subject}: {status.splitlines()[0].decode('utf-8', 'replace')}")
            return [_entry(headers or b"", payload) for _, _, headers, payload in records]
        raise AssertionError("unreachable")


def _entry(headers: bytes, payload: bytes) -> JournalEntry:
    fields = parse_headers(headers)
    # Set by the server last; a stored message can't have brought its own.
    return JournalEntry(fields["Nats-Subject"], int(fields["Nats-Sequence"]), payload)
