"""Alembic, run from Python: for the command. Applications make their tables by the generated SQL."""

from __future__ import annotations

import psycopg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from spanledger.ledger import postgres
from spanledger.ledger.addresses import sqlalchemy_url
from spanledger.ledger.migrations.versions.v0001_usage_records import VIEWS, where_free
from spanledger.recording.sink import SinkError


def upgrade(url: str) -> tuple[str, list[str]]:
    """Bring a database up to date: its version then, and the names that are somebody else's. Raises `SinkError`."""
    config = Config()
    config.set_main_option("script_location", "spanledger.ledger:migrations")
    config.set_main_option("sqlalchemy.url", sqlalchemy_url(url).replace("%", "%%"))
    try:
        connection = postgres.connect(url)
        try:
            if postgres.schema_of(connection).foreign:  # before Alembic makes its own table beside it
                raise SinkError("it has a table usage_records that is not spanledger's")
            command.upgrade(config, "head")
            with connection.transaction():
                for name, body in VIEWS:  # those whose names are free by now
                    connection.execute(where_free(name, body))
            version = postgres.schema_of(connection).version or "none"
            return version, [name for name, _ in VIEWS if not postgres.is_view_of_ours(connection, name)]
        finally:
            connection.close()
    except (psycopg.Error, SQLAlchemyError, CommandError) as error:
        raise SinkError(postgres.told(getattr(error, "orig", None) or error, url)) from error
