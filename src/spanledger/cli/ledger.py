"""`spanledger ledger`: the tables, where they stand, and what goes in and out of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from spanledger.cli.ledgers import NoLedger, NotWell, WrongUse, checked_url, ledger_option, opened, settings_of
from spanledger.cli.tables import print_rows, progress
from spanledger.ledger import books, copying, erasure, queries
from spanledger.ledger.addresses import is_postgres, path_of, shown
from spanledger.ledger.sqlite import MIGRATIONS, bring_up_to_date
from spanledger.recording.sink import SinkError
from spanledger.recording.survey import erase, quarantined
from spanledger.settings import Settings

_INI: Final = """[alembic]
script_location = spanledger.ledger:migrations
# Without this line it is the ledger that SPANLEDGER_LEDGER_URL names.
# sqlalchemy.url = postgresql://user:password@host/database
"""


@click.group()
def ledger() -> None:
    """Migrate, look at, copy, prune the ledger; take a user out of it; import another one."""


@ledger.command()
@click.option("--sql", is_flag=True, help="Print the SQL of all migrations instead, for psql or an SQL editor.")
@click.option("--ini", is_flag=True, help="Print an alembic.ini instead, for 'alembic upgrade head'.")
@ledger_option
def migrate(ledger: str | None, *, sql: bool, ini: bool) -> None:
    """Make the tables, or bring them up to date."""
    if ini:
        click.echo(_INI, nl=False)
        return
    if sql:
        from spanledger.ledger import postgres  # noqa: PLC0415  # only here

        for text in postgres.texts():
            click.echo(text)
        return
    settings = settings_of(ledger)
    if is_postgres(settings.ledger_url):
        _migrate_postgres(settings.ledger_url)
        return
    if settings.ledger_url == "none":
        raise WrongUse("the ledger is switched off (ledger_url is none)")
    path = path_of(settings.ledger_url)
    try:
        if path.exists():
            bring_up_to_date(path)
        else:
            made = books.ledger_of(settings)
            made.write(lambda _: None)
            made.close()
    except (SinkError, OSError) as error:
        raise NotWell(f"the ledger {path} can't be migrated ({error}); nothing was changed") from None
    click.echo(f"{path}: version {len(MIGRATIONS)}")


def _migrate_postgres(url: str) -> None:
    try:
        from spanledger.ledger.migrating import upgrade  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise NotWell(f"Alembic can't be loaded ({error}); pip install 'spanledger[postgres]'") from None
    try:
        version, left_out = upgrade(url)
    except SinkError as error:
        raise NotWell(f"the ledger {shown(url)} can't be migrated ({error}); nothing was changed") from None
    click.echo(f"{shown(url)}: version {version}")
    if left_out:
        click.echo(
            f"The names {', '.join(left_out)} belong to tables or views of somebody else (TokenLedger?), which were"
            " left alone. 'spanledger ledger import tokenledger' copies its rows; after you have renamed its table, run"
            " this command again."
        )


@ledger.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@ledger_option
def status(form: str, ledger: str | None) -> None:
    """Where the ledger is, what is in it, and what was pruned."""
    settings = settings_of(ledger)
    with opened(settings) as asked:
        rows, first, last = asked.execute(
            "SELECT count(*), min(started_at), max(started_at) FROM usage_records"
        ).fetchone()
        suspect = asked.execute("SELECT count(*) FROM usage_records WHERE clock_suspect").fetchone()[0]
        pruned = asked.execute("SELECT day, reason, records, cost_usd FROM pruned_days ORDER BY day").fetchall()
        total = queries.report(asked, [])
    found: dict[str, Any] = {
        "ledger": shown(settings.ledger_url),
        "records": rows,
        "first": first,
        "last": last,
        "cost_usd": total[0]["cost_usd"] if total else "0.000000000000",
        "clock_suspect": suspect,
        "pruned_records": sum(row["records"] for row in pruned),
        "pruned_days": [{name: row[name] for name in ("day", "reason", "records", "cost_usd")} for row in pruned],
    }
    if form == "json":
        click.echo(json.dumps(found, indent=2))
        return
    print_rows(("", ""), [(name, str(value)) for name, value in found.items() if name != "pruned_days"])
    if pruned:
        print_rows(
            ("pruned day", "reason", "records", "cost USD"),
            [(row["day"], row["reason"], str(row["records"]), row["cost_usd"]) for row in pruned],
        )


@ledger.command()
@click.option("--from", "source", required=True, metavar="URL", help="The ledger to read.")
@click.option("--to", "target", required=True, metavar="URL", help="The ledger to write. What is there stays.")
def copy(source: str, target: str) -> None:
    """Copy a ledger into another one, SQLite or PostgreSQL. Copying again adds nothing."""
    reading, writing = checked_url(source), checked_url(target)
    sink = books.ledger_of(reading, writing.ledger_url)
    with opened(reading, home=False) as asked, progress("copied", queries.count(asked)) as advance:
        copied = _written(lambda: copying.copy(asked, sink, advance), writing)
    sink.close()
    click.echo(f"{copied:,} records copied from {shown(source)} to {shown(target)}.")


@ledger.command()
@click.option("--before", metavar="T", help="What is older goes: 2026-01-01, 90d. Default: retention_days.")
@click.option("--dry-run", is_flag=True, help="Show what would go, change nothing.")
@ledger_option
def prune(before: str | None, ledger: str | None, *, dry_run: bool) -> None:
    """Delete old records. What went is written down by day."""
    settings, now = settings_of(ledger), datetime.now(UTC)
    try:
        bound = queries.moment(before, now) if before else now - timedelta(days=settings.retention_days)
    except ValueError as error:
        raise WrongUse(str(error)) from None
    with opened(settings) as asked:
        days = erasure.old_days(asked, bound)
    if not dry_run and days:
        sink = books.ledger_of(settings)
        days = _written(lambda: sink.write(lambda asked: erasure.prune(asked, bound, "asked for")), settings)
        sink.close()
    if days:
        print_rows(("day", "records", "cost USD"), [(each.day, str(each.records), each.cost_usd) for each in days])
    records = sum(each.records for each in days)
    click.echo(f"{records:,} records before {bound:%Y-%m-%d %H:%M} {'would be' if dry_run else 'were'} deleted.")


@ledger.command()
@click.option("--user-id", "user_ids", required=True, multiple=True, metavar="ID", help="May be given several times.")
@ledger_option
def forget(user_ids: Sequence[str], ledger: str | None) -> None:
    """Take from a user's records whatever leads to the person. Tokens and costs stay, and so do all totals."""
    settings = settings_of(ledger)
    directory = settings.state_dir / "outbox"
    try:
        waiting, elsewhere = erase(directory, user_ids, erasure.PERSONAL)  # first: what is delivered meanwhile is bare
    except (OSError, sqlite3.Error) as error:
        raise NotWell(f"the outbox can't be read ({error}); the ledger was not changed") from None
    changed = _forget(settings, user_ids)
    click.echo(f"{changed:,} records in {shown(settings.ledger_url)} and {waiting:,} in outbox files lead nowhere now.")
    if elsewhere:
        raise NotWell(
            f"{elsewhere} records of theirs wait in the outboxes of living processes; run this again in a minute"
        )
    if quarantined(directory):
        raise NotWell(f"damaged outbox files in {directory} may still name them: delete the *.corrupt-* files there")
    click.echo("Sinks beside the ledger have their own copies: ask them too.")


def _forget(settings: Settings, user_ids: Sequence[str]) -> int:
    """In the ledger, if there is one: how many records it was."""
    try:
        with opened(settings):
            pass  # brings home what dead processes have left
    except NoLedger:
        return 0
    sink = books.ledger_of(settings)
    changed = _written(lambda: sink.write(lambda asked: erasure.forget(asked, user_ids)), settings)
    _written(sink.scrub, settings)
    sink.close()
    return int(changed)


@ledger.group(name="import")
def import_() -> None:
    """Copy the records of another system into the ledger."""


@import_.command()
@click.option("--from", "source", required=True, metavar="URL", help="Its PostgreSQL database.")
@click.option("--table", default="token_ledger.token_ledger_events", show_default=True, help="Its table.")
@ledger_option
def tokenledger(source: str, table: str, ledger: str | None) -> None:
    """Copy the events of a TokenLedger. Its table is only read; importing again adds nothing."""
    if not copying.TABLE_NAME.fullmatch(table):
        raise WrongUse(f"{table!r} is no name of a table; try token_ledger.token_ledger_events")
    settings, reading = settings_of(ledger), checked_url(source)
    if not is_postgres(reading.ledger_url):
        raise WrongUse(f"{shown(source)} is no PostgreSQL database")
    sink = books.ledger_of(settings)
    with opened(reading, home=False) as asked:
        if asked.execute("SELECT to_regclass(?)", (table,)).fetchone()[0] is None:
            raise NotWell(f"there is no table {table} in {shown(source)}; name it with --table")
        (events,) = asked.execute(f"SELECT count(*) FROM {table}").fetchone()
        with progress("imported", events) as advance:
            copied = _written(lambda: copying.import_token_ledger(asked, table, sink, advance), settings)
    sink.close()
    click.echo(f"{copied:,} events imported from {table} into {shown(settings.ledger_url)}.")
    click.echo("Previews of prompts and answers, and messages of errors, were left where they are.")


def _written(write: Any, settings: Settings) -> Any:
    try:
        return write()
    except SinkError as error:
        raise NotWell(f"{shown(settings.ledger_url)} can't be written ({error})") from None
