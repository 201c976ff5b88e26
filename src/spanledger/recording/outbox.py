"""One SQLite file per process, in which every record waits until each sink has taken it.

WAL, full sync, one connection per file. Rows are numbered; each sink has a cursor, and a row goes when every cursor of
its file has passed it. A row that is not final yet stands beside that order: it takes its place, a new one at the end,
when it becomes final. For a sink a row is *pending* (after its cursor), *leased* (in a batch that was sent and not
answered yet; what is in that batch never changes), *delivered* (before its cursor) or *dead* (refused for good, kept
with the reason). The process holds a lease on its file, so that a file without one belongs to nobody and can be adopted
by whoever is alive.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from spanledger.homes import private_directory, private_file, sync_directory
from spanledger.recording.files import Lease
from spanledger.recording.forking import in_sqlite

VERSION: Final = 2
"""Of the file. Files of every earlier version are brought to it when they are adopted."""
_ROW_VERSION: Final = 1
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
CREATE TABLE cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL, leased INTEGER NOT NULL DEFAULT 0,
  parts INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, reason TEXT) WITHOUT ROWID;
CREATE TABLE dead (seq INTEGER, sink TEXT, reason TEXT NOT NULL, died_at INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (seq, sink)) WITHOUT ROWID;
"""
_MIGRATIONS: Final = {
    1: (
        "ALTER TABLE cursors ADD COLUMN leased INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE cursors ADD COLUMN parts INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE cursors ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE cursors ADD COLUMN reason TEXT",
    )
}
"""Version of a file → what makes it one of the next version."""
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


_WAITING: Final = (
    "SELECT seq, crc, body FROM records, (SELECT seq AS taken, leased FROM cursors WHERE sink = ?1)"
    " WHERE seq > taken AND settle_at = 0"
    " AND (leased <= taken OR seq <= leased) ORDER BY seq LIMIT ?2"
)
_TAKEN: Final = "UPDATE cursors SET seq = max(seq, ?), parts = 0, attempts = 0, reason = NULL WHERE sink = ?"
_GONE: Final = "DELETE FROM records WHERE settle_at = 0 AND seq <= (SELECT min(seq) FROM cursors)"
_OPEN: Final = "SELECT seq FROM records WHERE settle_at > 0"


DAMAGED: Final = "the row is damaged: its checksum is wrong"
"""Why a row is dead whose body is not what was written. Nobody can say what is true of it."""


class OutboxFullError(Exception):
    """The file has reached its bound; what is in it stays, new records are refused."""


class OutboxVersionError(OSError):
    """The file was made by a later version of spanledger."""


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file itself is broken, rather than that it can't be reached now."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED


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
        known = {"v": _ROW_VERSION, **{name: value for name, value in row.items() if value is not None}}
        return cls(row["record_id"], _encode(known), settle_at, replaces)


@dataclass(frozen=True, slots=True)
class Entry:
    """A waiting record."""

    seq: int
    row: dict[str, Any]
    """What is unknown is left out."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a sink is with a file."""

    seq: int
    leased: int
    """Up to where the batch goes that was sent and not answered; at most `seq` if there is none."""
    parts: int
    """How many requests of the record after `seq` were accepted."""
    attempts: int
    """Failed attempts since the last success."""
    reason: str | None
    """What the last one failed of."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What could be read of a damaged file: cursors by sink, whole rows of `records` and of `dead`."""

    cursors: Mapping[str, int]
    rows: Sequence[tuple[int, str, int, str]]
    """`seq, record_id, crc, body`."""
    dead: Sequence[tuple[Any, ...]]
    damaged: int
    """Rows that were there and can't be read."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """By sink, how many requests of the record after its cursor were accepted."""

    @classmethod
    def of(cls, cursors: Mapping[str, int], bodies: Sequence[str]) -> Saved:
        """These bodies, numbered anew."""
        rows = [(number, id_in(body), _crc(body), body) for number, body in enumerate(bodies, 1)]
        return cls(cursors, rows, (), 0)


class Outbox:
    """The outbox file of one process. Thread-safe. Methods raise `OSError` or `sqlite3.Error`."""

    def __init__(self, path: Path, lease: Lease, connection: sqlite3.Connection, *, full_sync: bool = True) -> None:
        self.path = path
        self.closed = False
        self._lease = lease
        self._connection = connection
        self._full_sync = full_sync
        self._lock = threading.RLock()  # a signal handler may come back here: an error then, rather than a standstill

    @classmethod
    @in_sqlite
    def create(cls, directory: Path, sinks: Iterable[str], *, full_sync: bool, max_bytes: int) -> Outbox:
        """A new file for this process, meant for these sinks."""
        private_directory(directory.parent)
        private_directory(directory)
        path = directory / f"{os.uname().nodename[:32]}-{os.getpid()}-{time.time_ns()}.db"
        lease = Lease(path.with_suffix(".lock"))
        if not lease.acquire():
            raise OSError(f"{path} is taken")
        connection = None
        try:
            private_file(path)
            connection = _connect(path, full_sync=full_sync)
            with _Transaction(connection):
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.executemany("INSERT INTO cursors (sink, seq) VALUES (?, 0)", [(sink,) for sink in sinks])
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute(f"PRAGMA max_page_count = {max(16, max_bytes // _PAGE)}")
            sync_directory(directory)  # or a power cut may take the file's name with it
        except BaseException:
            if connection is not None:
                connection.close()
            _remove(path)
            lease.release(remove=True)
            raise
        return cls(path, lease, connection, full_sync=full_sync)

    @classmethod
    @in_sqlite
    def of_saved(cls, directory: Path, saved: Saved) -> Outbox:
        """A new file with what was saved of a damaged one, as far as each sink was with it. It takes no new rows."""
        made = cls.create(directory, (), full_sync=True, max_bytes=2**40)
        cursors = [(sink, seq, saved.parts.get(sink, 0)) for sink, seq in saved.cursors.items()]
        try:
            with made._transaction() as connection:  # noqa: SLF001  # it is one of us
                connection.executemany("INSERT INTO cursors (sink, seq, parts) VALUES (?, ?, ?)", cursors)
                connection.executemany(
                    "INSERT INTO records (seq, record_id, settle_at, crc, body) VALUES (?, ?, 0, ?, ?)", saved.rows
                )
                connection.executemany("INSERT INTO dead VALUES (?, ?, ?, ?, ?)", saved.dead)
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    @in_sqlite
    def adopt(cls, path: Path) -> Outbox | None:
        """The file of a dead process, `None` if its owner lives or somebody else was first.

        Raises `OutboxVersionError` for one of a later version, `sqlite3.DatabaseError` for a damaged one.
        """
        lease = Lease(path.with_suffix(".lock"))
        if not lease.acquire():
            return None
        if not path.exists():  # drained and removed between the listing and the lease
            lease.release(remove=True)
            return None
        connection = None
        try:
            if _lacks_its_start(path):  # SQLite would throw the log away
                raise _damage("the file is empty, its log is not")
            connection = _connect(path, full_sync=True)
            version = _brought_up_to_date(connection)
            if version:  # nobody is left who could tell more of its records
                with _Transaction(connection):
                    _settle(connection, _OPEN)
        except (sqlite3.Error, OSError):
            if connection is not None:
                connection.close()
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
        with in_sqlite, self._lock:
            try:
                with self._transaction() as connection:
                    for draft in drafts:
                        if not draft.replaces or _delete(connection, draft.replaces):
                            connection.execute(
                                "INSERT INTO records (record_id, settle_at, crc, body) VALUES (?, ?, ?, ?)",
                                (draft.record_id, draft.settle_at, _crc(draft.body), draft.body),
                            )
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                if self._reaches_bound(sum(len(draft.body) for draft in drafts)):
                    raise OutboxFullError(str(error)) from error
                raise OSError(errno.ENOSPC, "the disk is full") from error

    def _reaches_bound(self, more: int) -> bool:
        """Whether so many bytes more are too many for the file's own bound."""
        asked = ("page_count", "freelist_count", "max_page_count")
        pages, free, most = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in asked)
        return int(pages - free + 2 * more // _PAGE + 8) >= int(most)

    def settle(self, record_ids: Iterable[str]) -> None:
        """These rows are final, and those that nobody has settled for long."""
        with in_sqlite, self._lock, self._transaction() as connection:
            for each in record_ids:
                _settle(connection, f"{_OPEN} AND record_id = ?", each)
            _settle(connection, f"{_OPEN} AND settle_at < ?", time.time_ns() - _FORGOTTEN_NS)

    def waiting(self, sink: str, most: int) -> list[Entry]:
        """The next final rows this sink has not taken, in order.

        A row whose checksum is wrong is put aside as dead.
        """
        with in_sqlite, self._lock:
            found = [] if self.closed else self._connection.execute(_WAITING, (sink, most)).fetchall()
        entries: list[Entry] = []
        for seq, crc, body in found:
            if _crc(body) != crc:
                self.bury(sink, seq, DAMAGED, body)
                if not entries:  # what was accepted of it is not of the row after it
                    self.taken(sink, seq)
                continue
            row = json.loads(body)
            row.pop("v", None)
            entries.append(Entry(seq, row))
        return self.waiting(sink, most) if found and not entries else entries

    def lease(self, sink: str, seq: int) -> None:
        """Everything up to `seq` is being sent as one batch: until it is answered, `waiting` gives just that."""
        with in_sqlite, self._lock, self._transaction() as connection:
            connection.execute("UPDATE cursors SET leased = ? WHERE sink = ?", (seq, sink))

    def cursor(self, sink: str) -> Cursor:
        """How far this sink is. Raises `LookupError` if the file is not meant for it."""
        with in_sqlite, self._lock:
            found = self._connection.execute(
                "SELECT seq, leased, parts, attempts, reason FROM cursors WHERE sink = ?", (sink,)
            ).fetchone()
        if found is None:
            raise LookupError(sink)
        return Cursor(*found)

    def taken(self, sink: str, seq: int, *, synced: bool = True) -> None:
        """This sink has everything up to `seq`; what all sinks of the file have goes.

        Without `synced` it holds against the death of the process; a power cut may undo it, never more than that.
        """
        with in_sqlite, self._lock, self._syncing(synced), self._transaction() as connection:
            connection.execute(_TAKEN, (seq, sink))
            connection.execute(_GONE)

    def part_taken(self, sink: str, parts: int) -> None:
        """This sink has accepted so many requests of the record after its cursor. Not synced, as `taken` without."""
        with in_sqlite, self._lock, self._syncing(False), self._transaction() as connection:
            connection.execute("UPDATE cursors SET parts = ? WHERE sink = ?", (parts, sink))

    def failed(self, sink: str, reason: str) -> None:
        """Another attempt to send to this sink has failed: for those who look from outside."""
        with in_sqlite, self._lock, self._transaction() as connection:
            connection.execute(
                "UPDATE cursors SET attempts = attempts + 1, reason = ? WHERE sink = ?", (reason[:500], sink)
            )

    def bury(self, sink: str, seq: int, reason: str, body: str) -> None:
        """Put one row aside: this sink will never take it."""
        with in_sqlite, self._lock, self._transaction() as connection:
            connection.execute(
                "INSERT INTO dead VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (seq, sink) DO UPDATE SET reason = dead.reason || '; ' || excluded.reason,"
                " body = excluded.body WHERE instr(dead.reason, excluded.reason) = 0",
                (seq, sink, reason[:500], time.time_ns(), body),
            )

    def refused(self, sink: str, record_id: str) -> str | None:
        """Why this sink will never take a record, `None` if it is not put aside."""
        with in_sqlite, self._lock:
            for reason, body in self._connection.execute("SELECT reason, body FROM dead WHERE sink = ?", (sink,)):
                if document_in(body).get("record_id") == record_id:
                    return str(reason)
        return None

    def exhume(self, sink: str, seqs: Iterable[int]) -> None:
        """Rows that were put aside are somewhere else now."""
        with in_sqlite, self._lock, self._transaction() as connection:
            connection.executemany("DELETE FROM dead WHERE sink = ? AND seq = ?", [(sink, seq) for seq in seqs])

    def rewrite(self, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> int:
        """Put what `change` makes of a row in its place, wherever it makes something of it; how many rows that was.

        What was there before is overwritten on the disk.
        """
        changed = 0
        with in_sqlite, self._lock:
            self._connection.execute("PRAGMA secure_delete = ON")
            with self._transaction() as connection:
                for table, statement in (
                    ("records", "UPDATE records SET body = ?1, crc = ?2 WHERE rowid = ?3"),
                    ("dead", "UPDATE dead SET body = ?1 WHERE seq = ?3 AND sink = ?4"),
                ):
                    keys = "seq, NULL" if table == "records" else "seq, sink"
                    for body, seq, sink in connection.execute(f"SELECT body, {keys} FROM {table}").fetchall():
                        row = change(document_in(body))
                        if row is not None:
                            text = _encode(row)
                            values = (text, _crc(text), seq) if table == "records" else (text, None, seq, sink)
                            changed += connection.execute(statement, values).rowcount
        self.checkpoint()
        return changed

    def pending(self, sinks: Iterable[str] | None = None) -> int:
        """How many rows some sink, or one of these sinks, has not taken yet."""
        with in_sqlite, self._lock:
            if self.closed:
                return 0
            if sinks is None:
                return _count(self._connection, "records")
            words = tuple(sinks)
            (number,) = self._connection.execute(
                "SELECT count(*) FROM records WHERE settle_at > 0 OR seq >"
                f" (SELECT min(seq) FROM cursors WHERE sink IN ({', '.join('?' * len(words))}))",
                words,
            ).fetchone()
            return int(number)

    def close(self) -> None:
        """Close the file; an empty one goes."""
        with in_sqlite, self._lock:
            if self.closed:
                return
            self.closed = True
            try:
                empty = not _count(self._connection, "records") and not _count(self._connection, "dead")
            except sqlite3.Error:
                empty = False
            self._connection.close()
            if empty:
                _remove(self.path)
            self._lease.release(remove=empty)

    def abandon(self) -> None:
        """The file is damaged: let go of it, so that whoever adopts it saves what can be read."""
        with in_sqlite, self._lock:
            if not self.closed:
                self.closed = True
                self._connection.close()
                self._lease.release()

    def checkpoint(self) -> None:
        """Bring everything from the write-ahead log into the file itself."""
        with in_sqlite, self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def forget(self) -> None:
        """In a forked child: let go of the parent's file, which must be kept: SQLite forbids closing it here."""
        self.closed = True
        self._lease.forget()

    @contextmanager
    def _syncing(self, synced: bool) -> Iterator[None]:
        if not synced:
            self._connection.execute(_synchronous(full=False))
        try:
            yield
        finally:
            if not synced:
                self._connection.execute(_synchronous(full=self._full_sync))

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
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:  # on a full disk a commit fails and leaves the transaction open
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _connect(path: Path, *, full_sync: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=5
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_synchronous(full=full_sync))
    except BaseException:
        connection.close()
        raise
    return connection


def _synchronous(*, full: bool) -> str:
    return f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}"


def _brought_up_to_date(connection: sqlite3.Connection) -> int:
    """The version of the file, after migrating it; 0 if there is nothing in it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise OutboxVersionError(f"it is of version {version}, this spanledger knows {VERSION}; upgrade spanledger")
    for number in range(version, VERSION) if version else ():
        with _Transaction(connection):
            for statement in _MIGRATIONS[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if verdict != "ok" or (tables and not version):
        raise _damage(verdict)
    return int(version)


def _damage(verdict: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(verdict)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _lacks_its_start(path: Path) -> bool:
    log = Path(f"{path}-wal")
    return not path.stat().st_size and log.exists() and log.stat().st_size > 0


def _crc(body: str) -> int:
    return zlib.crc32(body.encode("utf-8", "surrogatepass"))


def document_in(body: str) -> dict[str, Any]:
    """The row in a body; empty where the body is what is damaged."""
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError):
        return {}


def id_in(body: str) -> str:
    """The id of the record in a body."""
    return str(json.loads(body)["record_id"])


def _count(connection: sqlite3.Connection, table: str) -> int:
    (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(number)


def _settle(connection: sqlite3.Connection, which: str, *values: object) -> None:
    """Make the rows final that a query names: cursors may have passed their old place."""
    seqs = connection.execute(which, values).fetchall()
    connection.executemany(
        "INSERT INTO records (record_id, settle_at, crc, body)"
        " SELECT record_id, 0, crc, body FROM records WHERE seq = ?",
        seqs,
    )
    connection.executemany("DELETE FROM records WHERE seq = ?", seqs)


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
