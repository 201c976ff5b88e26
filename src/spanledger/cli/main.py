"""The command `spanledger`. Exit 0: ok, 1: the thing asked about is not well, 2: wrong use."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from spanledger.cli.answers import NAMES, check_apart, days_options, tell
from spanledger.cli.doctor import diagnose
from spanledger.cli.export import export
from spanledger.cli.ledger import ledger as ledger_commands
from spanledger.cli.ledgers import NotWell, WrongUse, ask, ledger_option, period_of, period_options, settings_of
from spanledger.cli.outbox import outbox
from spanledger.cli.prices import prices
from spanledger.cli.reprice import reprice
from spanledger.cli.sheets import csv_of
from spanledger.cli.tables import print_findings, print_report
from spanledger.cli.usage import usage
from spanledger.ledger import queries

_EXPORTERS = {
    "OTEL_TRACES_EXPORTER": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_METRICS_EXPORTER": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_LOGS_EXPORTER": "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
}


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


@main.command(epilog=NAMES)
@click.argument("name", required=False)
@click.option(
    "--by", "by", default="model", show_default=True, metavar="KEY[,KEY]", help="Keys: " + ", ".join(queries.KEYS) + "."
)
@period_options
@days_options
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@ledger_option
def report(
    name: str | None,
    by: str,
    since: str | None,
    until: str | None,
    where: Sequence[str],
    days: int | None,
    limit: int | None,
    form: str,
    ledger: str | None,
) -> None:
    """Calls, tokens and cost by any keys, dearest first; or a report by its name."""
    check_apart(name)
    if name is not None:
        tell(name, days, limit, form, settings_of(ledger))
        return
    keys = [key.strip() for key in by.split(",") if key.strip()]
    rows = _ask(ledger, keys, since, until, where)
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
    elif form == "csv":
        click.echo(csv_of(rows, list(rows[0]) if rows else keys), nl=False)
    else:
        print_report(rows, keys)


@main.command()
@click.option(
    "--max-unattributed", "most", metavar="SHARE", help="Fail if more of the last week's calls have no owner: 5%."
)
@ledger_option
def doctor(most: str | None, ledger: str | None) -> None:
    """Say what is watched, where the records are, and what is wrong. Exit 1 if something is."""
    findings = diagnose(settings_of(ledger), None if most is None else _share(most))
    print_findings(findings)
    if any(not finding.well for finding in findings):
        raise SystemExit(1)


def _share(text: str) -> float:
    number, sign, rest = text.partition("%")
    try:
        share = float(number) / (100 if sign else 1)
    except ValueError:
        share = -1.0
    if rest or not 0 <= share <= 1:
        raise WrongUse(f"{text!r} is no share; try 5% or 0.05")
    return share


def _ask(
    ledger: str | None, by: Sequence[str], since: str | None, until: str | None, where: Sequence[str]
) -> list[dict[str, Any]]:
    start, end, conditions = period_of(since, until, where)
    return ask(
        settings_of(ledger), lambda connection: queries.report(connection, by, since=start, until=end, where=conditions)
    )


main.add_command(export)
main.add_command(ledger_commands)
main.add_command(outbox)
main.add_command(prices)
main.add_command(reprice)
main.add_command(usage)
