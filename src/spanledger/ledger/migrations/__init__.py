"""Alembic migrations of the PostgreSQL ledger, and the SQL that is generated from them."""
