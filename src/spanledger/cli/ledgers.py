"""What the commands share: their errors, and the way to the ledger."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from spanledger.ledger import books, queries
from spanledger.ledger.addresses import shown
from spanledger.ledger.rows import Asked
from spanledger.settings import Settings, read_settings

Answer = TypeVar("Answer")

ledger_option = click.option(
    "--ledger", metavar="URL", help="The ledger: sqlite:///relative.db, sqlite:////absolute.db, postgresql://…"
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


class NoLedger(NotWell):
    """There is no ledger yet."""


def settings_of(ledger: str | None) -> Settings:
    """The settings, with the ledger that `--ledger` names."""
    settings = read_settings({"ledger_url": ledger} if ledger else {})
    if ledger and settings.ledger_url != (os.environ.get(ledger[4:]) if ledger.startswith("env:") else ledger):
        raise WrongUse(
            f"{shown(ledger)} is no ledger URL; try sqlite:///relative.db, sqlite:////absolute.db or"
            " postgresql://user:password@host/database"
        )
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


def checked_url(url: str) -> Settings:
    """The settings, with the ledger at this URL."""
    return settings_of(url)


@contextmanager
def opened(settings: Settings, *, home: bool = True) -> Iterator[Asked]:
    """A connection for questions to the ledger, after bringing home what dead processes have left."""
    if home:
        _bring_home(settings)
    if settings.ledger_url == "none":
        raise WrongUse("the ledger is switched off (ledger_url is none)")
    try:
        with books.reading(settings.ledger_url) as asked:
            yield asked
    except books.NoLedgerError as error:
        raise NoLedger(f"{error}; run a program under 'spanledger run' first, or name one with --ledger") from None
    except books.LedgerError as error:
        raise NotWell(str(error)) from None


def ask(settings: Settings, question: Callable[[Asked], Answer]) -> Answer:
    """The answer to a question to the ledger."""
    with opened(settings) as asked:
        try:
            return question(asked)
        except ValueError as error:
            raise WrongUse(str(error)) from None


def _bring_home(settings: Settings) -> None:
    """Deliver to the ledger what processes that died have left, so that a report shows everything."""
    from spanledger.assembly import bring_home  # noqa: PLC0415  # only where there is a ledger

    if settings.ledger_url == "none" or not (settings.state_dir / "outbox").is_dir():
        return
    if read_settings().ledger_url != settings.ledger_url:
        return  # somebody else's ledger: the records here are not for it
    bring_home(settings, timeout=10)
