"""The durable index: runs from their start on, what the operator chose, and the audit of every write."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from trinity_gate.database import Database, readable_rows

MIGRATIONS: Final = (
    """
    CREATE TABLE runs(
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL UNIQUE,
        job_id TEXT NOT NULL UNIQUE,
        scenario_id TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'completed', 'fault', 'cancelled')),
        started_at INTEGER NOT NULL,
        ended_at INTEGER,
        log_state TEXT NOT NULL,
        log_bytes INTEGER NOT NULL DEFAULT 0,
        record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX runs_unfinished ON runs(seq) WHERE state = 'running' OR log_state = 'live';
    CREATE INDEX runs_by_scenario ON runs(scenario_id, seq);
    CREATE TABLE choices(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE audit(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        actor TEXT NOT NULL,
        role TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        detail TEXT NOT NULL,
        result TEXT
    ) STRICT;
    """,
)

RUNNING, COMPLETED, FAULT, CANCELLED = "running", "completed", "fault", "cancelled"

ACTIVE_SCENARIO: Final = "active_scenario"
DISMISSED: Final = "dismissed_run"
GOVERNANCE_BASE: Final = "governance_base"
PROBE: Final = "probe"
REBUILD: Final = "rebuild"
"""Set while the index lacks runs that the bus may know; to the name of the damaged file while that is to be read."""

_ODD: Final = (msgspec.DecodeError, TypeError, ValueError, OverflowError, sqlite3.IntegrityError)
"""What a row of a damaged file may lead to."""

LITTLE: Final = 4 << 20
"""Bytes free on the disk below which it is doubtful whether anything can be written."""

AUDIT_ENTRIES: Final = 200_000
"""How many writes the audit remembers at least; older ones go."""


class RunRecord(msgspec.Struct, omit_defaults=True):
    """A run as it is kept. Times in milliseconds; `ended_at` 0 = not yet.

    `job_type`, `task_id`: how it is found on the bus. `log_state`: `live` (what was heard is not stored yet),
    `complete`, `partial` (the whole log never came), `disabled`, `expired` (removed by the retention limit).
    `report`: JSON of the last report. `rate`: points (seconds, ticks/s). `bundle_size`: bytes, -1 = there is none.
    """

    run_id: str
    job_id: str
    scenario_id: str
    state: str
    started_at: int
    ticks_total: int
    ended_at: int = 0
    ticks_completed: int = 0
    paused: bool = False
    fault_reason: str | None = None
    stop_reason: str | None = None
    overrides: dict[str, Any] = {}
    governance: dict[str, Any] = {}
    metrics: dict[str, Any] | None = None
    report: msgspec.Raw = msgspec.Raw(b"null")
    rate: list[tuple[float, float]] = []
    log_state: str = "live"
    log_entries: int = 0
    log_bytes: int = 0
    bundle_size: int | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state != RUNNING


class Caller(msgspec.Struct, frozen=True):
    """Who asks: for the audit."""

    name: str
    role: str


class AuditRecord(msgspec.Struct, frozen=True):
    """A write. `result`: `ok`, the code of an error, None while it goes on (or the service was killed in it)."""

    id: int
    at: int
    actor: str
    role: str
    action: str
    target: str
    detail: dict[str, Any]
    result: str | None


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What could be read of a damaged index: how many runs and audit entries, and whether the governance base was."""

    runs: int
    audit: int
    governance: bool


_record = msgspec.json.Decoder(RunRecord)
_encode = msgspec.json.Encoder().encode


class Index:
    """The index in `directory`. Every method that writes returns when it is on the disk."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, MIGRATIONS)

    # --- runs ---

    async def add(self, run: RunRecord) -> None:
        """A run that is about to be submitted."""
        await self.database.write(lambda db: _insert(db, run))

    async def save(self, run: RunRecord) -> None:
        """What is known of it now."""
        text = _encode(run).decode()
        values = (run.state, run.ended_at or None, run.log_state, run.log_bytes, text, run.run_id)
        sql = "UPDATE runs SET state=?, ended_at=?, log_state=?, log_bytes=?, record=? WHERE run_id=?"
        await self.database.write(lambda db: db.execute(sql, values))

    async def run(self, run_id: str) -> RunRecord | None:
        """The run of that id."""
        return await self.database.read(
            lambda db: _only(db.execute("SELECT record FROM runs WHERE run_id=?", (run_id,)).fetchone())
        )

    async def last_run(self) -> RunRecord | None:
        """The newest one, whatever became of it."""
        return await self.database.read(
            lambda db: _only(db.execute("SELECT record FROM runs ORDER BY seq DESC LIMIT 1").fetchone())
        )

    async def unfinished(self) -> list[RunRecord]:
        """Those under way, and those whose log is still to be fetched; oldest first."""
        return await self.database.read(
            lambda db: [
                _record.decode(row[0])
                for row in db.execute("SELECT record FROM runs WHERE state='running' OR log_state='live' ORDER BY seq")
            ]
        )

    async def history(
        self, limit: int, before: int | None = None, scenario: str | None = None, result: str | None = None
    ) -> tuple[list[RunRecord], int | None]:
        """Runs that have ended, newest first, and the cursor for those after them (None: there are none)."""
        where, values = ["state != 'running'"], list[Any]()
        if before is not None:
            where.append("seq < ?")
            values.append(before)
        if scenario is not None:
            where.append("scenario_id = ?")
            values.append(scenario)
        if result is not None:
            where.append("state = ?")
            values.append(result)
        sql = f"SELECT seq, record FROM runs WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"

        def work(db: sqlite3.Connection) -> tuple[list[RunRecord], int | None]:
            rows = db.execute(sql, [*values, limit + 1]).fetchall()
            more = rows[limit - 1][0] if len(rows) > limit else None
            return [_record.decode(row[1]) for row in rows[:limit]], more

        return await self.database.read(work)

    async def with_stored_logs(self) -> list[RunRecord]:
        """Runs whose logs take room, newest first."""

        sql = "SELECT record FROM runs WHERE log_bytes > 0 ORDER BY seq DESC"
        return await self.database.read(lambda db: [_record.decode(row[0]) for row in db.execute(sql)])

    # --- health ---

    async def trouble(self) -> str | None:
        """Why nothing can be written now; None where it can. It is tried where there is doubt."""
        if self.database.trouble is None:
            free = (await asyncio.to_thread(shutil.disk_usage, self.database.path.parent)).free
            if free >= LITTLE:
                return None
        try:
            await self.choose(PROBE, "written")
        except sqlite3.OperationalError as error:
            return str(error)
        return None

    # --- after damage ---

    async def salvage(self, damaged: Path) -> Salvaged:
        """Take over what can be read of an index that was set aside into this one, which is empty: all of it, or, where
        it raises, nothing."""

        def work(db: sqlite3.Connection) -> Salvaged:
            runs = choices = audit = 0
            for seq, text in readable_rows(damaged, "runs", "seq", "record"):
                with contextlib.suppress(*_ODD):
                    _insert(db, _record.decode(text), seq)
                    runs += 1
            for name, text in readable_rows(damaged, "choices", "name", "value"):
                with contextlib.suppress(*_ODD):
                    msgspec.json.decode(text)
                    db.execute("INSERT INTO choices VALUES (?, ?)", (name, text))
                    choices += name == GOVERNANCE_BASE
            columns = "at, actor, role, action, target, detail, result"
            for row in readable_rows(damaged, "audit", "id", columns):
                with contextlib.suppress(*_ODD):
                    _audit_record(dict(zip(("id", *columns.split(", ")), row, strict=True)))
                    db.execute(f"INSERT INTO audit(id, {columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                    audit += 1
            db.execute("INSERT OR REPLACE INTO choices VALUES (?, ?)", (REBUILD, "true"))
            return Salvaged(runs, audit, bool(choices))

        return await self.database.write(work)

    async def job_ids(self) -> set[str]:
        """Of all runs."""
        return await self.database.read(lambda db: {row[0] for row in db.execute("SELECT job_id FROM runs")})

    async def take_in(self, found: Sequence[RunRecord]) -> None:
        """Add runs that were started before or between those that are here, and have nothing to look for any more; all
        of it, or nothing. Cursors of the history change."""

        def work(db: sqlite3.Connection) -> None:
            for run in found:
                _insert(db, run)
            order = db.execute("SELECT run_id FROM runs ORDER BY started_at, run_id").fetchall()
            db.execute("UPDATE runs SET seq = -seq")
            db.executemany("UPDATE runs SET seq=? WHERE run_id=?", [(n, row[0]) for n, row in enumerate(order, 1)])
            db.execute("UPDATE sqlite_sequence SET seq=? WHERE name='runs'", (len(order),))
            db.execute("DELETE FROM choices WHERE name=?", (REBUILD,))

        await self.database.write(work)

    # --- choices ---

    async def choice(self, name: str) -> Any:
        """What was chosen under that name, None where nothing was."""

        def work(db: sqlite3.Connection) -> Any:
            row = db.execute("SELECT value FROM choices WHERE name=?", (name,)).fetchone()
            return None if row is None else msgspec.json.decode(row[0])

        return await self.database.read(work)

    async def choose(self, name: str, value: object) -> None:
        """Keep a choice."""
        text = _encode(value).decode()
        await self.database.write(lambda db: db.execute("INSERT OR REPLACE INTO choices VALUES (?, ?)", (name, text)))

    # --- audit ---

    async def begin(self, at: int, caller: Caller, action: str, target: str, detail: Mapping[str, Any]) -> int:
        """Write down what somebody is about to do; returns the entry's number."""
        values = (at, caller.name, caller.role, action, target, _encode(detail).decode())

        def work(db: sqlite3.Connection) -> int:
            cursor = db.execute(
                "INSERT INTO audit(at, actor, role, action, target, detail) VALUES (?, ?, ?, ?, ?, ?)", values
            )
            number = cursor.lastrowid or 0
            if number % 1000 == 0:
                db.execute("DELETE FROM audit WHERE id <= ?", (number - AUDIT_ENTRIES,))
            return number

        return await self.database.write(work)

    async def finish(self, number: int, result: str, target: str | None = None) -> None:
        """Write down what came of it (and on what, where that was not known before)."""
        await self.database.write(
            lambda db: db.execute(
                "UPDATE audit SET result=?, target=coalesce(?, target) WHERE id=?", (result, target, number)
            )
        )

    async def audit(self, limit: int, before: int | None = None) -> tuple[list[AuditRecord], int | None]:
        """Newest first, and the cursor for those after them."""

        def work(db: sqlite3.Connection) -> tuple[list[AuditRecord], int | None]:
            rows = db.execute(
                "SELECT id, at, actor, role, action, target, detail, result FROM audit WHERE id < ? "
                "ORDER BY id DESC LIMIT ?",
                (before if before is not None else 1 << 62, limit + 1),
            ).fetchall()
            more = rows[limit - 1][0] if len(rows) > limit else None
            return [_audit_record(dict(row)) for row in rows[:limit]], more

        return await self.database.read(work)


def _insert(db: sqlite3.Connection, run: RunRecord, seq: int | None = None) -> None:
    values = (run.run_id, run.job_id, run.scenario_id, run.state, run.started_at, run.ended_at or None)
    db.execute(
        "INSERT INTO runs(seq, run_id, job_id, scenario_id, state, started_at, ended_at, log_state, log_bytes, record) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (seq, *values, run.log_state, run.log_bytes, _encode(run).decode()),
    )


def _only(row: sqlite3.Row | None) -> RunRecord | None:
    return None if row is None else _record.decode(row[0])


def _audit_record(row: Mapping[str, Any]) -> AuditRecord:
    return AuditRecord(**{**row, "detail": msgspec.json.decode(row["detail"])})
