"""`spanledger report NAME`: the answers to questions that come up again and again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import click
from click.core import ParameterSource

from spanledger.cli.ledgers import WrongUse, ask
from spanledger.cli.sheets import csv_of
from spanledger.cli.tables import print_answer
from spanledger.ledger.answers import ANSWERS, answer
from spanledger.settings import Settings

NAMES: Final = "\b\nReports by name:\n" + "\n".join(
    f"  {name:<12} {each.says} ({'all time' if each.days is None else f'{each.days} days'})"
    for name, each in ANSWERS.items()
)
"""What `--help` says of them."""
_OF_KEYS: Final = ("by", "since", "until", "where")
_OF_NAMES: Final = ("days", "limit")


def days_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--days` and `--limit`, of reports by name."""
    for option in (
        click.option(
            "--limit", type=click.IntRange(min=1), metavar="N", help="At most so many rows of a report by name."
        ),
        click.option(
            "--days", type=click.IntRange(1, 36500), metavar="N",
            help="The last N UTC days, today included, of a report by name.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def check_apart(name: str | None) -> None:
    """Raises `WrongUse` where options of the one kind of report were given for the other."""
    context = click.get_current_context()
    wrong = _OF_NAMES if name is None else _OF_KEYS
    given = [each for each in wrong if context.get_parameter_source(each) is not ParameterSource.DEFAULT]
    if given and name is None:
        raise WrongUse(f"--{given[0]} goes with a report by its name; there are {', '.join(ANSWERS)}")
    if given:
        raise WrongUse(f"--{given[0]} does not go with the report {name}; it has --days and --limit")


def tell(name: str, days: int | None, limit: int | None, form: str, settings: Settings) -> None:
    """Print a named report. Raises `WrongUse` where there is none of that name."""
    if name not in ANSWERS:
        raise WrongUse(f"there is no report {name!r}; there are {', '.join(ANSWERS)}")
    rows = ask(settings, lambda asked: answer(asked, name, now=datetime.now(UTC), days=days, limit=limit))
    columns = ANSWERS[name].columns
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
    elif form == "csv":
        click.echo(csv_of(rows, columns), nl=False)
    else:
        print_answer(ANSWERS[name].says, columns, rows)
