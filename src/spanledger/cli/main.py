"""`spanledger`: run, report, usage, doctor. Exit 0 ok, 1 the thing asked about is not well, 2 wrong use."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

from spanledger.cli.doctor import diagnose
from spanledger.cli.tables import print_findings, print_report
from spanledger.ledger import queries
from spanledger.ledger.sqlite import open_for_reading, path_of
from spanledger.settings import Settings, read_settings

_EXPORTERS = {
    "OTEL_TRACES_EXPORTER": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_METRICS_EXPORTER": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_LOGS_EXPORTER": "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
}

_ledger = click.option(
    "--ledger", metavar="URL", help="The ledger to read, as sqlite:///relative.db or sqlite:////absolute.db."
)


class WrongUse(click.ClickException):
    """One line on stderr, exit 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """One line, as every error here."""
        click.echo(f"spanledger: {self.format_message()}", file=file or sys.stderr)


class NotWell(WrongUse):
    """One line on stderr, exit 1."""

    exit_code = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="spanledger")
def main() -> None:
    """Count, price and attribute every generative-AI call of a Python service."""


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...]) -> NoReturn:
    """Run CMD under opentelemetry-instrument, with exporters off unless OTEL_* says otherwise."""
    program = Path(sys.executable).with_name("opentelemetry-instrument")
    found = str(program) if program.exists() else shutil.which("opentelemetry-instrument")
    if found is None:
        raise NotWell(
            "opentelemetry-instrument is not installed beside spanledger; pip install opentelemetry-instrumentation"
        )
    if shutil.which(command[0]) is None:
        raise WrongUse(f"there is no command {command[0]!r}")
    environ = dict(os.environ)
    for name, endpoint in _EXPORTERS.items():
        backend = endpoint in environ or "OTEL_EXPORTER_OTLP_ENDPOINT" in environ
        environ.setdefault(name, "otlp" if backend and name != "OTEL_LOGS_EXPORTER" else "none")
    os.execve(found, [found, *command], environ)  # noqa: S606  # running the user's command is the purpose


@main.command()
@click.option(
    "--by", "by", default="model", show_default=True, metavar="KEY[,KEY]", help="Keys: " + ", ".join(queries.KEYS) + "."
)
@click.option("--since", metavar="T", help="From then on: 2026-11-01, 2026-11-01T12:00Z or 7d.")
@click.option("--until", metavar="T", help="Before then.")
@click.option(
    "--where", "where", multiple=True, metavar="KEY=VALUE", help="Only rows with this value; KEY= for rows without one."
)
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@_ledger
def report(by: str, since: str | None, until: str | None, where: Sequence[str], form: str, ledger: str | None) -> None:
    """Calls, tokens and cost by any keys, dearest first."""
    keys = [key.strip() for key in by.split(",") if key.strip()]
    rows = _ask(ledger, keys, since, until, where)
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
    elif form == "csv":
        click.echo(_csv(rows, keys), nl=False)
    else:
        print_report(rows, keys)


@main.command()
@click.option("--since", metavar="T", help="From then on. Default: the first of this month.")
@_ledger
def usage(since: str | None, ledger: str | None) -> None:
    """This month's totals as JSON."""
    now = datetime.now(UTC)
    start = since or now.strftime("%Y-%m-01")
    total = _ask(ledger, [], start, None, ())
    click.echo(
        json.dumps(
            {
                "since": queries.moment(start, now).isoformat(),
                "total": total[0] if total else None,
                "by_model": _ask(ledger, ["provider", "model"], start, None, ()),
            },
            indent=2,
        )
    )


@main.command()
@_ledger
def doctor(ledger: str | None) -> None:
    """Say what is watched, where the records are, and what is wrong. Exit 1 if something is."""
    findings = diagnose(_settings(ledger))
    print_findings(findings)
    if any(not finding.well for finding in findings):
        raise SystemExit(1)


def _settings(ledger: str | None) -> Settings:
    settings = read_settings({"ledger_url": ledger} if ledger else {})
    if ledger and settings.ledger_url != ledger:
        raise WrongUse(f"{ledger} is no ledger URL; try sqlite:///relative.db or sqlite:////absolute.db")
    return settings


def _ask(
    ledger: str | None, by: Sequence[str], since: str | None, until: str | None, where: Sequence[str]
) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    try:
        conditions = {key: value or None for key, value in (_pair(each) for each in where)}
        start = queries.moment(since, now) if since else None
        end = queries.moment(until, now) if until else None
    except ValueError as error:
        raise WrongUse(str(error)) from None
    settings = _settings(ledger)
    _bring_home(settings)
    return _read(settings, lambda connection: queries.report(connection, by, since=start, until=end, where=conditions))


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--where takes KEY=VALUE, not {text!r}")
    return key, value


def _read(settings: Settings, question: Callable[[sqlite3.Connection], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    if settings.ledger_url == "none":
        raise WrongUse("the ledger is switched off (ledger_url is none)")
    path = path_of(settings.ledger_url)
    if not path.exists():
        raise NotWell(
            f"there is no ledger at {path} yet; run a program under 'spanledger run' first, or name one with --ledger"
        )
    try:
        connection = open_for_reading(path)
        try:
            return question(connection)
        finally:
            connection.close()
    except ValueError as error:
        raise WrongUse(str(error)) from None
    except sqlite3.Error as error:
        raise NotWell(f"the ledger {path} can't be read ({error}); nothing was changed") from None


def _bring_home(settings: Settings) -> None:
    """Deliver to the ledger what processes that died have left, so that a report shows everything."""
    from spanledger.assembly import bring_home  # noqa: PLC0415  # only where there is a ledger

    if settings.ledger_url == "none" or not (settings.state_dir / "outbox").is_dir():
        return
    if read_settings().ledger_url != settings.ledger_url:
        return  # somebody else's ledger: the records here are not for it
    bring_home(settings, timeout=10)


def _csv(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    out = io.StringIO()
    names = list(rows[0]) if rows else list(keys)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(_cell(row[name]) for name in names)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value
