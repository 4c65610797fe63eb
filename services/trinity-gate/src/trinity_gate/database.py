"""A SQLite file with one writing thread: nothing of it ever runs on the event loop.

WAL, `synchronous=FULL`: what a call returned from is on the disk. A file that is damaged is set aside, never repaired
in place and never deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from trinity_gate.entries import iso
from trinity_gate.errors import DamagedFile

T = TypeVar("T")

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 5_000


class Database:
    """Open it with `open`, use it with `write` and `read`, each of which runs a function in a thread of its own.

    `migrations`: SQL scripts; the n-th makes version n of version n - 1. They are never changed, only added to.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self.path = path
        self.set_aside: Path | None = None
        """Where a damaged file went that was found at the opening."""
        self.begun = False
        """Whether there was nothing before the opening (or nothing that could be read)."""
        self.trouble: str | None = None
        """Why the last write failed; None where it did not."""
        self._migrations = migrations
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-read")
        self._connections: list[sqlite3.Connection] = []
        self._for_writing: sqlite3.Connection | None = None
        self._for_reading: sqlite3.Connection | None = None

    async def open(self, now_ms: int) -> None:
        """Open or make it, and bring it to the newest version.

        Raises `DamagedFile` where it was made by a newer release, or can't be read and can't be set aside either.
        """
        try:
            self._for_writing = await self._in(self._writer, lambda: self._opened(now_ms))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                raise DamagedFile(f"{self.path} can't be opened: {error}") from error
            self.set_aside = await self._in(self._writer, lambda: set_aside(self.path, now_ms))
            log.error("%s is damaged (%s): set aside as %s, begun anew", self.path, error, self.set_aside.name)
            self._for_writing = await self._in(self._writer, lambda: self._opened(now_ms))
        self._for_reading = await self._in(self._reader, self._connected)

    def _opened(self, now_ms: int) -> sqlite3.Connection:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        connection = self._connected()
        try:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"quick_check: {verdict}")
            self._migrate(connection, now_ms)
        except BaseException:
            self._connections.remove(connection)
            connection.close()
            raise
        return connection

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._connections.append(connection)
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _migrate(self, connection: sqlite3.Connection, now_ms: int) -> None:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations(version INTEGER PRIMARY KEY, at TEXT NOT NULL) STRICT"
        )
        done = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()[0]
        self.begun = done == 0
        if done > len(self._migrations):
            raise DamagedFile(
                f"{self.path} is of a newer release (version {done}, this one knows {len(self._migrations)}): "
                "start that one, or name another directory with --data"
            )
        for version in range(done + 1, len(self._migrations) + 1):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in _statements(self._migrations[version - 1]):
                    connection.execute(statement)
                connection.execute("INSERT INTO migrations VALUES (?, ?)", (version, iso(now_ms)))
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction. Where it raises, nothing of it is kept."""
        connection = self._for_writing
        assert connection is not None, "open() first"

        def transaction() -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        def noted() -> T:
            try:
                result = transaction()
            except sqlite3.OperationalError as error:
                self.trouble = str(error)
                raise
            self.trouble = None
            return result

        # A transaction that was begun is ended, also when nobody waits for it any more.
        return await asyncio.shield(self._in(self._writer, noted))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which only reads."""
        connection = self._for_reading
        assert connection is not None, "open() first"
        return await self._in(self._reader, lambda: work(connection))

    async def close(self) -> None:
        """When what was begun is done. Twice is fine."""
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        for pool in (self._writer, self._reader):
            pool.shutdown(wait=True)
        while self._connections:
            self._connections.pop().close()

    @staticmethod
    def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(pool, work)


def _is_damage(error: sqlite3.OperationalError) -> bool:
    """`disk I/O error` of a torn file is damage as much as `malformed`; a lock or missing rights are not."""
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ"))


def _statements(script: str) -> list[str]:
    """`executescript` would end the transaction."""
    return [statement for part in script.split(";\n") if (statement := part.strip())]


def readable_rows(path: Path, table: str, key: str, columns: str) -> list[tuple[Any, ...]]:
    """What can still be read of a table in a damaged file, which is not touched: from its first row on as far as it
    goes, and from its last row back. `key` is the first column, and the order of what is returned."""
    found: dict[Any, tuple[Any, ...]] = {}
    for direction in ("ASC", "DESC"):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db,
        ):
            for row in db.execute(f"SELECT {key}, {columns} FROM {table} ORDER BY {key} {direction}"):
                if row[0] in found:
                    break
                found[row[0]] = row
            if direction == "ASC":
                break  # it was read to its end
    return [found[key] for key in sorted(found, key=lambda key: (str(type(key)), key))]  # damage may change a type


def set_aside(path: Path, now_ms: int) -> Path:
    """Move a file, and what SQLite keeps beside it, out of the way under a name that says since when."""
    for number in range(1000):
        target = path.with_name(f"{path.name}.damaged-{now_ms}{f'-{number}' if number else ''}")
        if not target.exists():
            break
    os.replace(path, target)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            os.replace(beside, target.with_name(target.name + suffix))
    return target
