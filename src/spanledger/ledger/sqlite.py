"""The SQLite ledger: a sink that keeps every record once, and the file that reports read.

Writers take turns by a lease on a file beside it, so no two of them ever checkpoint at the same time. An application
never waits: whoever can't have the lease keeps its records in its outbox.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from importlib import resources
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

from spanledger.guard import log
from spanledger.homes import private_directory, private_file
from spanledger.ledger.erasure import prune, said
from spanledger.ledger.rows import COLUMNS, enriched
from spanledger.model import iso
from spanledger.recording.files import Lease
from spanledger.recording.forking import in_sqlite
from spanledger.recording.sink import Row, SinkError

MIGRATIONS: Final = ("schema_sqlite.sql", *(f"schema_sqlite_{number}.sql" for number in range(2, 8)))
"""One file per version; version n is what the first n files make."""
LEASE_WAIT: Final = 2.0
Answer = TypeVar("Answer")


_left_open: Final[list[sqlite3.Connection]] = []


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_KNOWN: Final = frozenset((*COLUMNS, "recorded_at"))


class LedgerVersionError(Exception):
    """The ledger was made by a later version of spanledger."""


class SqliteLedger:
    """The sink `ledger`. Opens its file when the first record comes."""

    name = "ledger"
    idempotent = True
    bulk = 5000

    def __init__(
        self,
        path: Path,
        *,
        retention_days: int | None = None,
        max_bytes: int | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = path
        self._retention_days = retention_days
        self._max_bytes = max_bytes
        self._clock = clock
        self._lease = Lease(path.with_name(path.name + ".lock"))
        self._connection: sqlite3.Connection | None = None

    def send(self, rows: Sequence[Row]) -> None:
        """Keep the rows in one transaction; a row that is there already is completed, never doubled.

        Raises `SinkError`.
        """
        now = iso(self._clock())
        alike = _alike([row if row.get("recorded_at") else {**row, "recorded_at": now} for row in rows])

        def keep(connection: sqlite3.Connection, stored: Callable[[Any], Any]) -> None:
            for upsert, values in alike:
                connection.executemany(upsert, map(stored, values))

        try:
            self.write(lambda connection: keep(connection, tuple))
        except UnicodeEncodeError:
            self.write(lambda connection: keep(connection, lambda each: tuple(map(_stored, each))))

    def write(self, statements: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Run statements in one transaction, in turn with other writers. Raises `SinkError`."""
        try:
            self._take_lease()
            try:
                return self._transact(statements)
            finally:
                self._lease.release()
        except (OSError, sqlite3.Error, OverflowError, LedgerVersionError) as error:
            damaged = isinstance(
                error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, OverflowError)
            )
            self.close()
            raise SinkError(f"{type(error).__name__}: {error}", permanent=damaged) from error

    def tidy(self) -> None:
        """Prune what is too old, and the oldest days where the file is too large. Raises `SinkError`."""
        if self._connection is None:
            return
        now = self._clock()
        if self._retention_days is not None:
            before = now - timedelta(days=self._retention_days)
            if self._first_day() < iso(before):
                said(self.write(lambda asked: prune(asked, before, "retention_days", before)), "retention_days")
        if self._max_bytes is not None:
            self._keep_below(self._max_bytes, now)

    def scrub(self) -> None:
        """Overwrite on the disk what is no longer in the ledger. Raises `SinkError`."""
        try:
            self._take_turn()
            try:
                self._compact()
            finally:
                self._lease.release()
        except (OSError, sqlite3.Error, LedgerVersionError) as error:
            raise SinkError(f"{type(error).__name__}: {error}") from error

    @in_sqlite
    def _compact(self) -> None:
        if self._connection is None:
            self._connection = open_for_writing(self.path)
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _keep_below(self, most: int, now: datetime) -> None:
        size = self._size()
        if size > most * 0.8:
            log.warning(
                "The ledger %s holds %d MB of at most %d MB; at the bound its oldest days are pruned. Raise"
                " SPANLEDGER_LEDGER_MAX_BYTES, lower SPANLEDGER_RETENTION_DAYS, or move it to PostgreSQL.",
                self.path,
                size >> 20,
                most >> 20,
            )
        today = now.astimezone(UTC).strftime("%Y-%m-%d")
        while self._size() > most and (first := self._first_day()[:10]) < today:
            bound = datetime.fromisoformat(first).replace(tzinfo=UTC) + timedelta(days=1)
            said(self.write(partial(prune, before=bound, reason="ledger_max_bytes")), "ledger_max_bytes")

    @in_sqlite
    def _first_day(self) -> str:
        """When the oldest record is of; the end of time where there is none."""
        assert self._connection is not None  # noqa: S101  # `tidy` asks before
        (found,) = self._connection.execute("SELECT min(started_at) FROM usage_records").fetchone()
        return str(found or "9999")

    @in_sqlite
    def _size(self) -> int:
        """Bytes of the file that hold something."""
        assert self._connection is not None  # noqa: S101  # as above
        asked = ("page_count", "freelist_count", "page_size")
        pages, free, each = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in asked)
        return int((pages - free) * each)

    def close(self) -> None:
        """Close the file, in turn with other writers: the last one to close it brings its log home.

        Where the turn does not come, the file stays open until the process ends: two that checkpoint at once can
        damage it (SQLite before 3.51.3).
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            self._take_turn()
        except (OSError, SinkError):
            _left_open.append(connection)
            return
        try:
            with in_sqlite:
                connection.close()
        finally:
            self._lease.release()

    def _take_lease(self) -> None:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True) if self.path.parent.exists() else private_directory(
                self.path.parent
            )
            private_file(self.path)
        self._take_turn()

    def _take_turn(self) -> None:
        deadline = time.monotonic() + LEASE_WAIT
        while not self._lease.acquire():
            if time.monotonic() > deadline:
                raise SinkError(f"{self.path} is being written by another process")
            time.sleep(0.01)

    @in_sqlite
    def _transact(self, statements: Callable[[sqlite3.Connection], Answer]) -> Answer:
        if self._connection is None:
            self._connection = open_for_writing(self.path)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            answer = statements(self._connection)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return answer


@lru_cache(maxsize=256)
def _upsert_of(names: tuple[str, ...]) -> tuple[str, Callable[[Row], tuple[Any, ...]]]:
    """The statement for rows that have these keys, and what takes its values out of one.

    A row has half of the columns or less, and to bind a value takes longer than to store it.
    """
    known = [name for name in names if name in _KNOWN]
    statement = (
        f"INSERT INTO usage_records ({', '.join(known)}) VALUES ({', '.join('?' * len(known))})"
        f" ON CONFLICT (record_id) DO UPDATE SET {enriched(known)}"
    )
    return statement, itemgetter(*known)


def _alike(rows: Sequence[Row]) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """Statements and the values of the rows they are for. Rows of one record keep their order."""
    if len({row["record_id"] for row in rows}) < len(rows):
        return [(statement, [values(row)]) for row in rows for statement, values in (_upsert_of(tuple(row)),)]
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row), []).append(row)
    return [
        (statement, list(map(values, of_it)))
        for names, of_it in found.items()
        for statement, values in (_upsert_of(names),)
    ]


def _stored(value: object) -> object:
    """SQLite has no word for a lone surrogate."""
    return _SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The ledger at the current version, made or migrated if need be. Raises `LedgerVersionError`, `sqlite3.Error`."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the ledger to the current version, each step in one transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise LedgerVersionError(
            f"the ledger has version {version}, this spanledger knows {len(MIGRATIONS)}; upgrade spanledger"
        )
    for number in range(version, len(MIGRATIONS)):
        script = resources.files("spanledger.ledger").joinpath(MIGRATIONS[number]).read_text(encoding="utf-8")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in script.split("\n--;\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def bring_up_to_date(path: Path) -> None:
    """Migrate a ledger that an older version made, in turn with its writers. Raises `sqlite3.Error`, `SinkError`."""
    connection = open_for_reading(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    finally:
        connection.close()
    if 0 < version < len(MIGRATIONS):
        sink = SqliteLedger(path)
        sink.write(lambda _: None)
        sink.close()


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A read-only connection. Raises `sqlite3.OperationalError` where there is no ledger."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    connection.row_factory = sqlite3.Row
    return connection


@contextmanager
def nothing() -> Iterator[sqlite3.Connection]:
    """A ledger without a record, in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        migrate(connection)
        yield connection
    finally:
        connection.close()
