"""`spanledger usage`: what `get_usage()` tells, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from spanledger.cli.ledgers import NotWell, ask, ledger_option, period_of, period_options, settings_of
from spanledger.ledger.statistics import PERIODS, statistics


@click.command()
@period_options
@click.option("--by", default="", metavar="KEY[,KEY]", help="Totals by these keys, too.")
@click.option(
    "--period", default="month", show_default=True, metavar="P", help=f"Current period: {', '.join(PERIODS)}, 30d, 24h."
)
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Where that begins: Europe/Berlin.")
@click.option("--save", metavar="DIRECTORY", help="Write usage_report_<time>.json there, mode 0600, and say its name.")
@ledger_option
def usage(
    since: str | None,
    until: str | None,
    where: Sequence[str],
    by: str,
    period: str,
    timezone: str,
    save: str | None,
    ledger: str | None,
) -> None:
    """Totals, the current period, by provider and by model as JSON."""
    start, end, conditions = period_of(since, until, where)
    keys = [key.strip() for key in by.split(",") if key.strip()]
    now = datetime.now(UTC)
    told = ask(
        settings_of(ledger),
        lambda connection: statistics(
            connection, now, start=start, end=end, by=keys, period=period, timezone=timezone, where=conditions
        ),
    )
    text = json.dumps(told, indent=2)
    click.echo(text if save is None else _saved(Path(save), now, text))


def _saved(directory: Path, now: datetime, text: str) -> str:
    """The name of a new file with this text."""
    path = directory / f"usage_report_{now:%Y%m%d_%H%M%S}.json"
    try:
        with path.open("x", encoding="utf-8") as file:
            path.chmod(0o600)
            file.write(f"{text}\n")
    except OSError as error:
        raise NotWell(f"{path} can't be written ({error.strerror})") from None
    return str(path)
