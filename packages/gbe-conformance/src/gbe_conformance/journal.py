"""`JournalContract`: append-only logs, one writer at a time."""

from __future__ import annotations

import asyncio

import pytest

from gbe_conformance.contract import Bus, Contract
from gbe_nexus import (
    Append,
    ClosedError,
    Conflict,
    Journal,
    JournalEntry,
    NexusError,
    PayloadTooLarge,
    Refused,
    StreamFull,
    Transport,
)


async def records(journal: Journal, subject: str, after: int = 0) -> list[bytes]:
    """The payloads of a replay."""
    return [entry.payload async for entry in journal.replay(subject, after)]


class JournalContract(Contract):
    """N12. Subclass it as `Test…` and give the fixture `connect`."""

    @pytest.fixture
    async def journal(self, bus: Bus) -> Journal:
        """A journal in this test's stream."""
        await bus.ensure()
        return await bus.transport.journal(bus.stream)

    @pytest.fixture
    async def rival(self, bus: Bus, journal: Journal, second: Transport) -> Journal:
        """The same journal over another connection."""
        return await second.journal(bus.stream)

    async def test_append_and_replay(self, bus: Bus, journal: Journal) -> None:
        """N12: appended one after the other → replayed in that order, whole or after a sequence."""
        log = bus.subject("log")
        first = await journal.append(log, b"1", 0)
        second = await journal.append(log, b"2", first)
        third = await journal.append(log, b"3", second)
        assert 0 < first < second < third
        assert [entry async for entry in journal.replay(log)] == [
            JournalEntry(log, first, b"1"),
            JournalEntry(log, second, b"2"),
            JournalEntry(log, third, b"3"),
        ]
        assert await records(journal, log, first) == [b"2", b"3"]
        assert await records(journal, log, third) == []
        assert await records(journal, bus.subject("empty")) == []

    async def test_wrong_expectation_is_a_conflict(self, bus: Bus, journal: Journal) -> None:
        """N12: an append that expects another last sequence → `Conflict`, and nothing is written."""
        log = bus.subject("log")
        first = await journal.append(log, b"1", 0)
        for wrong in (0, first + 1, first + 1000):
            with pytest.raises(Conflict) as conflict:
                await journal.append(log, b"no", wrong)
            assert conflict.value.current in {None, first}
        with pytest.raises(Conflict):
            await journal.append(bus.subject("other"), b"no", first)
        assert await records(journal, log) == [b"1"]
        assert await records(journal, bus.subject("other")) == []

    async def test_same_bytes_of_another_writer_are_a_conflict(
        self, bus: Bus, journal: Journal, rival: Journal
    ) -> None:
        """N12: a second writer with the very same record loses like any other: an append is never a "duplicate"."""
        log = bus.subject("log")
        first = await journal.append(log, b"same", 0)
        with pytest.raises(Conflict):
            await rival.append(log, b"same", 0)
        with pytest.raises(Conflict):
            await journal.append(log, b"same", 0)
        second = await rival.append(log, b"same", first)
        assert second > first
        assert await records(journal, log) == [b"same", b"same"]

    async def test_two_writers_race(self, bus: Bus, journal: Journal, rival: Journal) -> None:
        """N12: two writers with one expectation → exactly one wins, each time."""
        log = bus.subject("log")
        last = 0
        for turn in range(20):
            results = await asyncio.gather(
                journal.append(log, b"%d mine" % turn, last),
                rival.append(log, b"%d its" % turn, last),
                return_exceptions=True,
            )
            (won,) = [result for result in results if isinstance(result, int)]
            (lost,) = [result for result in results if not isinstance(result, int)]
            assert isinstance(lost, Conflict)
            last = won
        assert [entry.split()[0] for entry in await records(journal, log)] == [b"%d" % turn for turn in range(20)]

    async def test_a_hundred_racing_appends(self, bus: Bus, journal: Journal, rival: Journal) -> None:
        """N12: a hundred writers with one expectation, over two connections → exactly one wins."""
        log = bus.subject("log")
        results = await asyncio.gather(
            *((journal, rival)[n % 2].append(log, b"%d" % n, 0) for n in range(100)), return_exceptions=True
        )
        winners = [n for n, result in enumerate(results) if isinstance(result, int)]
        assert len(winners) == 1
        assert all(isinstance(result, Conflict) for n, result in enumerate(results) if n not in winners)
        assert await records(journal, log) == [b"%d" % winners[0]]

    async def test_subjects_do_not_disturb_each_other(self, bus: Bus, journal: Journal) -> None:
        """Appends to different subjects, in flight together, all succeed: the expectation is the subject's."""
        logs = [bus.subject("log", str(n)) for n in range(50)]
        lasts = await asyncio.gather(*(journal.append(log, b"1", 0) for log in logs))
        again = await asyncio.gather(*(journal.append(log, b"2", last) for log, last in zip(logs, lasts, strict=True)))
        assert len(set(lasts) | set(again)) == 100
        assert await records(journal, logs[7]) == [b"1", b"2"]

    async def test_append_many(self, bus: Bus, journal: Journal) -> None:
        """Many at once, one with a wrong expectation, one too large → exactly these are reported, the rest appended."""
        first = await journal.append(bus.subject("log", "3"), b"before", 0)
        batch = [Append(bus.subject("log", str(n)), b"%d" % n, 0) for n in range(10)]
        batch[5] = Append(bus.subject("log", "5"), b"x" * (bus.transport.max_payload + 1), 0)
        results = await journal.append_many(batch)
        assert isinstance(results[3], Conflict)
        assert isinstance(results[5], PayloadTooLarge)
        seqs = [result for result in results if isinstance(result, int)]
        assert len(seqs) == 8
        assert seqs == sorted(seqs)
        assert await records(journal, bus.subject("log", "3")) == [b"before"]
        assert await records(journal, bus.subject("log", "4")) == [b"4"]
        again = await journal.append_many([Append(bus.subject("log", "3"), b"after", first)])
        assert await records(journal, bus.subject("log", "3")) == [b"before", b"after"]
        assert isinstance(again[0], int)
        assert await journal.append_many([]) == []

    async def test_append_many_is_written_at_the_call(self, bus: Bus, journal: Journal) -> None:
        """`append_many` writes before anything is awaited: a publish that follows comes after it."""
        pending = journal.append_many([Append(bus.subject("log", str(n)), b"1", 0) for n in range(3)])
        after = await bus.transport.publish(bus.subject("other"), b"x")
        told: list[int] = []
        pending.then(lambda results: told.append(len(results)))
        seqs = await pending
        assert told == [3]
        assert all(isinstance(seq, int) and seq < after.seq for seq in seqs)

    async def test_last(self, bus: Bus, journal: Journal) -> None:
        """`last`: the newest record of a subject or of all that match a pattern; None where there is none."""
        first = await journal.append(bus.subject("x", "job1"), b"1", 0)
        second = await journal.append(bus.subject("y", "job2"), b"2", 0)
        third = await journal.append(bus.subject("x", "job1"), b"3", first)
        assert await journal.last(bus.subject("x", "job1")) == JournalEntry(bus.subject("x", "job1"), third, b"3")
        assert await journal.last(bus.subject("*", "job2")) == JournalEntry(bus.subject("y", "job2"), second, b"2")
        assert await journal.last(bus.subject(">")) == JournalEntry(bus.subject("x", "job1"), third, b"3")
        assert await journal.last(bus.subject("*", "job3")) is None

    async def test_last_is_never_stale(self, bus: Bus, journal: Journal, rival: Journal) -> None:
        """What one writer appended, another one's `last`, `read` and replay see at once."""
        log = bus.subject("log")
        last = 0
        for turn in range(30):
            last = await journal.append(log, b"%d" % turn, last)
            seen = await rival.last(log)
            assert seen == JournalEntry(log, last, b"%d" % turn)
            assert await rival.read(last) == seen
            assert await records(rival, log, last - 1) == [b"%d" % turn]

    async def test_last_many(self, bus: Bus, journal: Journal) -> None:
        """`last_many`: the newest record of each of 1,500 subjects; those without one are missing."""
        logs = [bus.subject("log", str(n)) for n in range(1500)]
        seqs = await journal.append_many([Append(log, log.encode(), 0) for log in logs])
        newest = await journal.append(logs[0], b"newer", _sequence(seqs[0]))
        expected = {
            log: JournalEntry(log, _sequence(seq), log.encode()) for log, seq in zip(logs, seqs, strict=True)
        } | {logs[0]: JournalEntry(logs[0], newest, b"newer")}
        missing = [bus.subject("none", str(n)) for n in range(3)]
        deadline = asyncio.get_running_loop().time() + bus.patience
        while await journal.last_many([*logs, *missing]) != expected:  # it may lag behind on a cluster
            assert asyncio.get_running_loop().time() < deadline
        assert await journal.last_many(missing) == {}
        assert await journal.last_many([]) == {}

    async def test_read(self, bus: Bus, journal: Journal) -> None:
        """`read`: the record at a sequence; None where there is none."""
        first = await journal.append(bus.subject("x"), b"1", 0)
        second = await journal.append(bus.subject("y"), b"2", 0)
        assert await journal.read(first) == JournalEntry(bus.subject("x"), first, b"1")
        assert await journal.read(second) == JournalEntry(bus.subject("y"), second, b"2")
        assert await journal.read(second + 1) is None

    async def test_wildcard_replay(self, bus: Bus, journal: Journal) -> None:
        """A replay with a pattern: the records of all matching subjects, in the order of their sequences."""
        a = await journal.append(bus.subject("x", "1"), b"a", 0)
        b = await journal.append(bus.subject("y", "1"), b"b", 0)
        await journal.append(bus.subject("x", "1", "deeper"), b"no", 0)
        c = await journal.append(bus.subject("x", "2"), b"c", 0)
        d = await journal.append(bus.subject("x", "1"), b"d", a)
        assert [(entry.seq, entry.payload) async for entry in journal.replay(bus.subject("x", "*"))] == [
            (a, b"a"),
            (c, b"c"),
            (d, b"d"),
        ]
        assert await records(journal, bus.subject("*", "1"), a) == [b"b", b"d"]
        assert await records(journal, bus.subject(">"), b) == [b"no", b"c", b"d"]

    async def test_long_replay(self, bus: Bus, journal: Journal) -> None:
        """Thousands of records, among those of other subjects → all of the subject's, in order."""
        logs = [bus.subject("log", str(n)) for n in range(100)]
        lasts = [0] * 100
        for turn in range(30):
            batch = [Append(log, b"%d" % turn, last) for log, last in zip(logs, lasts, strict=True)]
            lasts = [_sequence(result) for result in await journal.append_many(batch)]
        assert await records(journal, logs[42]) == [b"%d" % turn for turn in range(30)]
        everything = [entry async for entry in journal.replay(bus.subject("log", "*"))]
        assert len(everything) == 3000
        assert [entry.seq for entry in everything] == sorted(entry.seq for entry in everything)

    async def test_large_records(self, bus: Bus, journal: Journal) -> None:
        """Records near the payload limit replay whole: bytes, not only counts, bound what is in flight."""
        payload = bytes(range(256)) * (bus.transport.max_payload // 2 // 256)
        last = 0
        for _ in range(12):
            last = await journal.append(bus.subject("log"), payload, last)
        assert await records(journal, bus.subject("log")) == [payload] * 12

    async def test_replay_ends(self, bus: Bus, journal: Journal) -> None:
        """A replay goes to the end as it is at its beginning: appends meanwhile do not prolong it for ever."""
        log = bus.subject("log")
        last = 0
        for n in range(5):
            last = await journal.append(log, b"%d" % n, last)
        seen = []
        async for entry in journal.replay(log):
            seen.append(entry.payload)
            last = await journal.append(log, b"meanwhile", last)
            assert len(seen) < 10
        assert seen[:5] == [b"0", b"1", b"2", b"3", b"4"]

    async def test_abandoned_replay(self, bus: Bus, journal: Journal) -> None:
        """A replay that is left half-way disturbs nothing."""
        log = bus.subject("log")
        last = 0
        for n in range(300):
            last = await journal.append(log, b"%d" % n, last) if n < 20 else last
        async for entry in journal.replay(log):
            if entry.payload == b"3":
                break
        assert len(await records(journal, log)) == 20

    async def test_purge_and_late_append(self, bus: Bus, journal: Journal, rival: Journal) -> None:
        """N12: purge, then a late append that expects the old end → refused; a new log may begin."""
        log, other = bus.subject("log"), bus.subject("other")
        first = await journal.append(log, b"1", 0)
        second = await journal.append(log, b"2", first)
        await journal.append(other, b"stays", 0)
        assert await journal.purge(log) == 2
        assert await journal.purge(log) == 0
        assert await journal.last(log) is None
        assert await journal.read(first) is None
        assert await records(journal, log) == []
        assert await records(journal, other) == [b"stays"]
        with pytest.raises(Conflict):
            await rival.append(log, b"late", second)
        assert await records(journal, log) == []
        third = await journal.append(log, b"new", 0)
        assert third > second

    async def test_subjects(self, bus: Bus, journal: Journal) -> None:
        """`subjects`: those that match and have records, with how many; purged ones are gone."""
        first = await journal.append(bus.subject("x", "1"), b"1", 0)
        await journal.append(bus.subject("x", "1"), b"2", first)
        await journal.append(bus.subject("x", "2"), b"3", 0)
        await journal.append(bus.subject("y", "1"), b"4", 0)
        assert await journal.subjects(bus.subject("x", "*")) == {bus.subject("x", "1"): 2, bus.subject("x", "2"): 1}
        assert await journal.subjects(bus.subject("*", "1")) == {bus.subject("x", "1"): 2, bus.subject("y", "1"): 1}
        await journal.purge(bus.subject("x", "1"))
        assert await journal.subjects(bus.subject(">")) == {bus.subject("x", "2"): 1, bus.subject("y", "1"): 1}
        assert await journal.subjects(bus.subject("none")) == {}

    async def test_foreign_subject_is_refused(self, bus: Bus, journal: Journal) -> None:
        """An append to a subject the stream doesn't have → `Refused`, wherever it might have gone."""
        with pytest.raises(Refused):
            await journal.append("elsewhere" + bus.token, b"x", 0)

    async def test_too_large(self, bus: Bus, journal: Journal) -> None:
        """A record above the limit → `PayloadTooLarge`; the log is as it was."""
        log = bus.subject("log")
        first = await journal.append(log, b"1", 0)
        with pytest.raises(PayloadTooLarge):
            await journal.append(log, b"x" * (bus.transport.max_payload + 1), first)
        assert await journal.append(log, b"2", first) > first

    async def test_full(self, bus: Bus) -> None:
        """A full stream → `StreamFull`; after a purge there is room again."""
        await bus.ensure(max_messages=2)
        journal = await bus.transport.journal(bus.stream)
        await journal.append(bus.subject("x"), b"1", 0)
        await journal.append(bus.subject("y"), b"2", 0)
        with pytest.raises(StreamFull):
            await journal.append(bus.subject("z"), b"3", 0)
        await journal.purge(bus.subject("x"))
        await journal.append(bus.subject("z"), b"3", 0)

    async def test_erase(self, bus: Bus, journal: Journal) -> None:
        """One record is deleted, the others stay; one that isn't there is none."""
        log = bus.subject("log")
        seqs = [(await bus.publish(body, subject=log))[0] for body in (b"1", b"2", b"3")]
        assert await journal.erase(seqs[1]) is True
        assert await journal.erase(seqs[1]) is False
        assert await records(journal, log) == [b"1", b"3"]
        assert await journal.read(seqs[1]) is None
        assert await journal.subjects(log) == {log: 2}

    async def test_published_messages_are_records(self, bus: Bus, journal: Journal) -> None:
        """A journal is a view of its stream: what was published on its subjects is part of the log."""
        log = bus.subject("log")
        (published,) = await bus.publish(b"published", subject=log)
        await journal.append(log, b"appended", published)
        assert await records(journal, log) == [b"published", b"appended"]

    async def test_closed(self, bus: Bus, journal: Journal) -> None:
        """After close of its transport → `ClosedError`."""
        await bus.transport.close()
        with pytest.raises(ClosedError):
            await journal.append(bus.subject("log"), b"1", 0)
        with pytest.raises(ClosedError):
            await journal.last(bus.subject("log"))
        with pytest.raises(ClosedError):
            await records(journal, bus.subject("log"))


def _sequence(result: int | NexusError) -> int:
    assert isinstance(result, int)
    return result
