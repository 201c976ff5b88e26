"""The SQLite ledger: a sink that keeps every record once, and the file that reports read.

Writers take turns by a lease on a file beside it, so no two of them ever checkpoint at the same time. An application
never waits: whoever can't have the lease keeps its records in its outbox.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Final, TypeVar

from spanledger.model import COLUMNS, iso
from spanledger.recording.files import Lease, private_directory, private_file
from spanledger.recording.sink import Row, SinkError

MIGRATIONS: Final = ("schema_sqlite.sql", "schema_sqlite_2.sql", "schema_sqlite_3.sql", "schema_sqlite_4.sql")
"""One file per version; version n is what the first n files make."""
LEASE_WAIT: Final = 2.0
Answer = TypeVar("Answer")

# A background call is told of twice: when it is made and when its answer is there. The first telling to arrive makes
# the row, the other one completes it; what is known never changes.
_FINAL: Final = "usage_records.status = 'incomplete' AND excluded.status <> 'incomplete'"
_OUTCOME: Final = ("status", "usage_status", "cost_status", "cost_source")
_UPSERT: Final = (
    f"INSERT INTO usage_records ({', '.join(COLUMNS)}, recorded_at) VALUES ({', '.join('?' * len(COLUMNS))}, ?)"
    " ON CONFLICT (record_id) DO UPDATE SET "
    + ", ".join(
        f"{name} = CASE WHEN {_FINAL} THEN excluded.{name} ELSE usage_records.{name} END"
        if name in _OUTCOME
        else f"{name} = coalesce(usage_records.{name}, excluded.{name})"
        for name in COLUMNS
        if name != "record_id"
    )
)


class LedgerVersionError(Exception):
    """The ledger was made by a later version of spanledger."""


class SqliteLedger:
    """The sink `ledger`. Opens its file when the first record comes."""

    name = "ledger"

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = path
        self._clock = clock
        self._lease = Lease(path.with_name(path.name + ".lock"))
        self._connection: sqlite3.Connection | None = None

    def send(self, rows: Sequence[Row]) -> None:
        """Keep the rows in one transaction; a row that is there already is completed, never doubled.

        Raises `SinkError`.
        """
        now = iso(self._clock())
        values = [(*(_stored(row.get(name)) for name in COLUMNS), now) for row in rows]
        self.write(lambda connection: connection.executemany(_UPSERT, values))

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

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _take_lease(self) -> None:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True) if self.path.parent.exists() else private_directory(
                self.path.parent
            )
            private_file(self.path)
        deadline = time.monotonic() + LEASE_WAIT
        while not self._lease.acquire():
            if time.monotonic() > deadline:
                raise SinkError(f"{self.path} is being written by another process")
            time.sleep(0.01)

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


def _stored(value: object) -> object:
    """SQLite has no word for a lone surrogate."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The ledger at the current version, made or migrated if need be. Raises `LedgerVersionError`, `sqlite3.Error`."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    migrate(connection)
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


def path_of(url: str) -> Path:
    """The file of a `sqlite:///` URL: three slashes and a relative path, four and an absolute one."""
    return Path(url.removeprefix("sqlite:///")).expanduser()
