"""What Alembic runs. The database is that of `sqlalchemy.url`, else the ledger that spanledger's settings name.

The version stands in a table of its own, so that an application's `alembic_version` in the same database is left alone.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import create_engine, pool

from spanledger.ledger.addresses import sqlalchemy_url
from spanledger.settings import read_settings

VERSION_TABLE = "spanledger_schema"


def _run() -> None:
    url = context.config.get_main_option("sqlalchemy.url") or read_settings().ledger_url
    how: dict[str, Any] = {"version_table": VERSION_TABLE, "transaction_per_migration": True, "target_metadata": None}
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", literal_binds=True, **how)
        with context.begin_transaction():
            context.run_migrations()
        return
    engine = create_engine(sqlalchemy_url(url), poolclass=pool.NullPool, connect_args={"prepare_threshold": None})
    with engine.connect() as connection:
        context.configure(connection=connection, **how)
        with context.begin_transaction():
            context.run_migrations()


_run()
