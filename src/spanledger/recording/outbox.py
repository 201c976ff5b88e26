"""One SQLite file per process, in which every record waits until each sink has taken it.

WAL, full sync, one connection per file. Rows are numbered; each sink has a cursor, and a row goes when every cursor of
its file has passed it. The process holds a lease on its file, so that a file without one belongs to nobody and can be
adopted by whoever is alive.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from spanledger.recording.files import Lease, private_directory, private_file

VERSION: Final = 1
_PAGE: Final = 4096
_FORGOTTEN_NS: Final = 60 * 10**9
_SCHEMA: Final = """
CREATE TABLE records (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  record_id TEXT NOT NULL,
  settle_at INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX unsettled ON records (record_id) WHERE settle_at > 0;
CREATE TABLE cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dead (seq INTEGER, sink TEXT, reason TEXT NOT NULL, died_at INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (seq, sink)) WITHOUT ROWID;
"""


class OutboxFullError(Exception):
    """The file has reached its bound; what is in it stays, new records are refused."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A row to be kept, as text."""

    record_id: str
    body: str
    settle_at: int = 0
    """By when (Unix time in ns) it is to be final; 0 if it is. Until then it may be replaced, and no sink takes it."""
    replaces: tuple[str, ...] = ()
    """Ids of rows that are not final yet and whose place it takes, its own first. It is kept only if that is there."""

    @classmethod
    def of(cls, row: dict[str, Any], settle_at: int = 0, replaces: tuple[str, ...] = ()) -> Draft:
        """The draft of a row. Raises `ValueError` for what JSON has no word for."""
        body = json.dumps({"v": VERSION, **row}, separators=(",", ":"), allow_nan=False)
        return cls(row["record_id"], body, settle_at, replaces)


@dataclass(frozen=True, slots=True)
class Entry:
    """A waiting record."""

    seq: int
    row: dict[str, Any]


class Outbox:
    """The outbox file of one process. Thread-safe. Methods raise `OSError` or `sqlite3.Error`."""

    def __init__(self, path: Path, lease: Lease, connection: sqlite3.Connection) -> None:
        self.path = path
        self._lease = lease
        self._connection = connection
        self._lock = threading.Lock()

    @classmethod
    def create(cls, directory: Path, sinks: Iterable[str], *, full_sync: bool, max_bytes: int) -> Outbox:
        """A new file for this process, meant for these sinks."""
        private_directory(directory.parent)
        private_directory(directory)
        path = directory / f"{os.uname().nodename[:32]}-{os.getpid()}-{time.time_ns()}.db"
        lease = Lease(path.with_suffix(".lock"))
        if not lease.acquire():
            raise OSError(f"{path} is taken")
        private_file(path)
        connection = _connect(path, full_sync=full_sync)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.executemany("INSERT INTO cursors VALUES (?, 0)", [(sink,) for sink in sinks])
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(f"PRAGMA max_page_count = {max(16, max_bytes // _PAGE)}")
        return cls(path, lease, connection)

    @classmethod
    def adopt(cls, path: Path) -> Outbox | None:
        """The file of a dead process, `None` if its owner lives or somebody else was first."""
        lease = Lease(path.with_suffix(".lock"))
        if not lease.acquire():
            return None
        if not path.exists():  # drained and removed between the listing and the lease
            lease.release(remove=True)
            return None
        try:
            connection = _connect(path, full_sync=True)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version:  # nobody is left who could tell more of its records
                connection.execute("UPDATE records SET settle_at = 0 WHERE settle_at > 0")
        except sqlite3.Error:
            lease.release()
            raise
        if version == 0:  # its process died before the first commit: there is nothing in it
            connection.close()
            _remove(path)
            lease.release(remove=True)
            return None
        return cls(path, lease, connection)

    def append(self, drafts: Sequence[Draft]) -> None:
        """Keep the rows, all or none, on the disk when this returns. Raises `OutboxFullError` at the bound."""
        with self._lock, self._transaction() as connection:
            try:
                for draft in drafts:
                    if draft.replaces and not _delete(connection, draft.replaces):
                        continue
                    connection.execute(
                        "INSERT INTO records (record_id, settle_at, crc, body) VALUES (?, ?, ?, ?)",
                        (draft.record_id, draft.settle_at, zlib.crc32(draft.body.encode()), draft.body),
                    )
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise OutboxFullError(str(error)) from error
                raise

    def settle(self, record_ids: Iterable[str]) -> None:
        """These rows are final, and those that nobody has settled for long: a row that isn't holds up all after it."""
        with self._lock, self._transaction() as connection:
            connection.executemany(
                "UPDATE records SET settle_at = 0 WHERE record_id = ? AND settle_at > 0",
                [(each,) for each in record_ids],
            )
            connection.execute(
                "UPDATE records SET settle_at = 0 WHERE settle_at > 0 AND settle_at < ?",
                (time.time_ns() - _FORGOTTEN_NS,),
            )

    def waiting(self, sink: str, most: int) -> list[Entry]:
        """The next final rows this sink has not taken, in order; a row that isn't final holds up those after it.

        A row whose checksum is wrong is put aside as dead.
        """
        with self._lock:
            found = self._connection.execute(
                "SELECT seq, crc, body FROM records WHERE seq > (SELECT seq FROM cursors WHERE sink = ?1) AND seq <"
                " coalesce((SELECT min(seq) FROM records WHERE settle_at > 0), 9223372036854775807)"
                " ORDER BY seq LIMIT ?2",
                (sink, most),
            ).fetchall()
        entries = []
        for seq, crc, body in found:
            if zlib.crc32(body.encode("utf-8", "surrogatepass")) != crc:
                self.bury(sink, seq, "the row is damaged: its checksum is wrong", body)
                continue
            entries.append(Entry(seq, json.loads(body)))
        if found and not entries:
            self.taken(sink, found[-1][0])
            return self.waiting(sink, most)
        return entries

    def taken(self, sink: str, seq: int) -> None:
        """This sink has everything up to `seq`; what all sinks of the file have goes."""
        with self._lock, self._transaction() as connection:
            connection.execute("UPDATE cursors SET seq = max(seq, ?) WHERE sink = ?", (seq, sink))
            connection.execute("DELETE FROM records WHERE seq <= (SELECT min(seq) FROM cursors)")

    def bury(self, sink: str, seq: int, reason: str, body: str) -> None:
        """Put one row aside: this sink will never take it."""
        with self._lock, self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO dead VALUES (?, ?, ?, ?, ?)", (seq, sink, reason[:500], time.time_ns(), body)
            )

    def sinks(self) -> tuple[str, ...]:
        """The sinks this file's rows are meant for."""
        with self._lock:
            return tuple(name for (name,) in self._connection.execute("SELECT sink FROM cursors ORDER BY sink"))

    def pending(self) -> int:
        """How many rows some sink has not taken yet."""
        with self._lock:
            return _count(self._connection, "records")

    def close(self) -> None:
        """Close the file; an empty one goes."""
        with self._lock:
            empty = not _count(self._connection, "records") and not _count(self._connection, "dead")
            self._connection.close()
            if empty:
                _remove(self.path)
            self._lease.release(remove=empty)

    def forget(self) -> sqlite3.Connection:
        """In a forked child: let go without touching the parent's file. The connection must be kept, never closed."""
        self._lease.forget()
        return self._connection

    def _transaction(self) -> _Transaction:
        return _Transaction(self._connection)


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT, rolled back on any error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _connect(path: Path, *, full_sync: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=5
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if full_sync else 'NORMAL'}")
    return connection


def _count(connection: sqlite3.Connection, table: str) -> int:
    (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(number)


def _delete(connection: sqlite3.Connection, record_ids: Iterable[str]) -> bool:
    """Take back rows that are not final; whether the first one was there."""
    gone = [
        connection.execute("DELETE FROM records WHERE record_id = ? AND settle_at > 0", (each,)).rowcount
        for each in record_ids
    ]
    return gone[0] > 0


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()


@dataclass(frozen=True, slots=True)
class OutboxState:
    """What a look from outside says of an outbox file."""

    path: Path
    owner_alive: bool
    pending: int
    dead: int
    reasons: tuple[str, ...] = ()


def survey(directory: Path) -> list[OutboxState]:
    """Look at every outbox file without changing one. Raises `sqlite3.Error` for a file that can't be read."""
    states = []
    for path in sorted(directory.glob("*.db")) if directory.is_dir() else []:
        lease = Lease(path.with_suffix(".lock"))
        alive = not lease.acquire()
        if not alive:
            lease.release()
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            try:
                reasons = connection.execute("SELECT DISTINCT sink || ': ' || reason FROM dead LIMIT 5").fetchall()
                states.append(
                    OutboxState(
                        path,
                        alive,
                        _count(connection, "records"),
                        _count(connection, "dead"),
                        tuple(text for (text,) in reasons),
                    )
                )
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
    return states
