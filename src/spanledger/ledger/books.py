"""The ledger that a URL names, SQLite or PostgreSQL: its sink, and a connection for questions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spanledger.ledger.addresses import is_postgres, path_of, shown
from spanledger.ledger.rows import Asked
from spanledger.ledger.sqlite import SqliteLedger, bring_up_to_date, open_for_reading
from spanledger.recording.sink import SinkError

if TYPE_CHECKING:
    from spanledger.ledger.postgres import PostgresLedger
    from spanledger.settings import Settings


class NoLedgerError(Exception):
    """There is no ledger at this address yet."""


class LedgerError(Exception):
    """The ledger can't be read."""


def ledger_of(settings: Settings, url: str | None = None) -> SqliteLedger | PostgresLedger:
    """The ledger that the settings name, or the one at `url`, as a sink."""
    address = url or settings.ledger_url
    if is_postgres(address):
        from spanledger.ledger.postgres import PostgresLedger  # noqa: PLC0415  # an extra

        return PostgresLedger(address, auto_migrate=settings.auto_migrate, retention_days=settings.retention_days)
    return SqliteLedger(path_of(address), retention_days=settings.retention_days, max_bytes=settings.ledger_max_bytes)


@contextmanager
def reading(url: str) -> Iterator[Asked]:
    """A connection for questions. Raises `NoLedgerError`, `LedgerError`."""
    if is_postgres(url):
        with _reading_postgres(url) as asked:
            yield asked
        return
    path = path_of(url)
    if not path.exists():
        raise NoLedgerError(f"there is no ledger at {path} yet")
    try:
        bring_up_to_date(path)
        connection = open_for_reading(path)
    except (sqlite3.Error, SinkError) as error:
        raise LedgerError(f"the ledger {path} can't be read ({error}); nothing was changed") from error
    try:
        yield connection
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger {path} can't be read ({error}); nothing was changed") from error
    finally:
        connection.close()


@contextmanager
def _reading_postgres(url: str) -> Iterator[Asked]:
    from spanledger.ledger import postgres  # noqa: PLC0415  # an extra

    try:
        import psycopg  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise LedgerError(
            f"the PostgreSQL driver can't be loaded ({error}); pip install 'spanledger[postgres]'"
        ) from error
    try:
        with postgres.reading(url) as asked:
            yield asked
    except psycopg.errors.UndefinedTable as error:
        raise NoLedgerError(f"there is no ledger in {shown(url)} yet") from error
    except psycopg.Error as error:
        raise LedgerError(f"the ledger {shown(url)} can't be read ({postgres.told(error, url)})") from error
