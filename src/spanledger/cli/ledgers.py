"""What the commands share: their errors, and the way to the ledger."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from spanledger.ledger import queries
from spanledger.ledger.sqlite import bring_up_to_date, open_for_reading, path_of
from spanledger.recording.sink import SinkError
from spanledger.settings import Settings, read_settings

Answer = TypeVar("Answer")

ledger_option = click.option(
    "--ledger", metavar="URL", help="The ledger to read, as sqlite:///relative.db or sqlite:////absolute.db."
)


_PERIOD = (
    click.option("--since", metavar="T", help="From then on: 2026-11-01, 2026-11-01T12:00Z or 7d."),
    click.option("--until", metavar="T", help="Before then."),
    click.option(
        "--where", multiple=True, metavar="KEY=VALUE", help="Only rows with this value; KEY= for rows without one."
    ),
)


def period_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--since`, `--until` and `--where`."""
    for option in reversed(_PERIOD):
        command = option(command)
    return command


class WrongUse(click.ClickException):
    """One line on stderr, exit 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """One line, as every error here."""
        click.echo(f"spanledger: {self.format_message()}", file=file or sys.stderr)


class NotWell(WrongUse):
    """One line on stderr, exit 1."""

    exit_code = 1


def settings_of(ledger: str | None) -> Settings:
    """The settings, with the ledger that `--ledger` names."""
    settings = read_settings({"ledger_url": ledger} if ledger else {})
    if ledger and settings.ledger_url != ledger:
        raise WrongUse(f"{ledger} is no ledger URL; try sqlite:///relative.db or sqlite:////absolute.db")
    return settings


def period_of(
    since: str | None, until: str | None, where: Sequence[str]
) -> tuple[datetime | None, datetime | None, dict[str, str | None]]:
    """What `--since`, `--until` and `--where` ask for."""
    now = datetime.now(UTC)
    try:
        conditions = {key: value or None for key, value in (_pair(each) for each in where)}
        return (
            queries.moment(since, now) if since else None,
            queries.moment(until, now) if until else None,
            conditions,
        )
    except ValueError as error:
        raise WrongUse(str(error)) from None


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--where takes KEY=VALUE, not {text!r}")
    return key, value


def ask(settings: Settings, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
    """The answer to a question to the ledger, after bringing home what dead processes have left."""
    _bring_home(settings)
    if settings.ledger_url == "none":
        raise WrongUse("the ledger is switched off (ledger_url is none)")
    path = path_of(settings.ledger_url)
    if not path.exists():
        raise NotWell(
            f"there is no ledger at {path} yet; run a program under 'spanledger run' first, or name one with --ledger"
        )
    try:
        bring_up_to_date(path)
    except (sqlite3.Error, SinkError) as error:
        raise NotWell(f"the ledger {path} can't be read ({error}); nothing was changed") from None
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
