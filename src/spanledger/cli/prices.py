"""`spanledger prices`: what a model costs and why, and whether a price file is in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spanledger.cli.ledgers import NotWell, WrongUse
from spanledger.cli.tables import print_notes, print_rows
from spanledger.ledger.queries import moment
from spanledger.settings import read_settings

if TYPE_CHECKING:
    from spanledger.pricing.book import PriceBook
    from spanledger.pricing.layers import Resolved
    from spanledger.pricing.offer import Context
    from spanledger.pricing.overrides import Overrides

_files = click.option(
    "--prices", "files", multiple=True, type=click.Path(path_type=Path), help="Price files instead of those configured."
)


@click.group()
def prices() -> None:
    """What models cost, and why."""


@prices.command()
@click.argument("model")
@click.option("--provider", help="As openai, aws.bedrock or gcp.gemini. Default: every provider that has the model.")
@click.option("--at", "when", metavar="T", help="At that moment: 2026-11-01, 2026-11-01T12:00Z or 7d.")
@click.option("--context", multiple=True, metavar="KEY=VALUE", help="As service_tier=flex, speed=fast, region=eu.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@_files
def show(
    model: str, provider: str | None, when: str | None, context: Sequence[str], form: str, files: Sequence[Path]
) -> None:
    """What MODEL costs: which list says so, at which rates, until when."""
    now = datetime.now(UTC)
    try:
        at = moment(when, now) if when else now
    except ValueError as error:
        raise WrongUse(str(error)) from None
    if any("=" not in each for each in context):
        raise WrongUse("--context takes KEY=VALUE, such as service_tier=flex")
    told = tuple(sorted((key, value) for key, _, value in (each.partition("=") for each in context)))
    book = _book(files)
    found = list(_offers(book, model, provider, at, told))
    if not found:
        raise NotWell(f"no list has a price for {model!r}{f' of {provider}' if provider else ''}{_similar(model)}")
    if form == "json":
        click.echo(json.dumps([_as_json(name, model, at, each) for name, each in found], indent=2))
    else:
        for name, each in found:
            _print(name, model, at, each)


@prices.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def check(files: Sequence[Path]) -> None:
    """Read price FILES and say what their entries come to. Exit 1 if one can't be used."""
    read = _read(files)
    book = _book(files)
    for file in read:
        _print_file(file, book)


@prices.command()
def schema() -> None:
    """The JSON schema of price files, for editors."""
    from spanledger.pricing.price_file import json_schema  # noqa: PLC0415  # loads the price list

    click.echo(json.dumps(json_schema(), indent=2))


def _read(files: Sequence[Path]) -> list[Overrides]:
    from spanledger.pricing.document import PriceFileError  # noqa: PLC0415  # loads the price list
    from spanledger.pricing.overrides import read_overrides  # noqa: PLC0415  # as above

    try:
        return [read_overrides(path) for path in files]
    except PriceFileError as error:
        raise NotWell(str(error)) from None


def _book(files: Sequence[Path]) -> PriceBook:
    from spanledger.pricing.book import PriceBook  # noqa: PLC0415  # loads the price list

    settings = read_settings()
    return PriceBook(fixups=settings.price_fixups == "on", overrides=_read(files or settings.prices))


def book_of_settings() -> PriceBook:
    """The prices the settings name. A price file that can't be used is an error here, not a warning."""
    return _book(())


def _offers(
    book: PriceBook, model: str, provider: str | None, at: datetime, context: Context
) -> Iterator[tuple[str, Resolved]]:
    """Everybody's prices of a model: (provider, resolved)."""
    for name in [provider] if provider else book.providers:
        found = book.resolve(name, (model,), at, context)
        everything = not provider and book.resolve(name, ("\0",), at, context).free  # whatever its models are called
        if found.known and not everything:
            yield name, found


def _similar(model: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # only where there is nothing to show

    from spanledger.pricing.units import DATA  # noqa: PLC0415  # loads the price list

    near = get_close_matches(model, {each.id for provider in DATA for each in provider.models}, n=4, cutoff=0.7)
    return f"; close to it are {', '.join(near)}" if near else ""


def _rates(found: Resolved) -> Iterator[dict[str, Any]]:
    from spanledger.pricing.units import UNIT_OF_PRICE, usd_per  # noqa: PLC0415  # loads the price list

    for price, unit in UNIT_OF_PRICE.items():
        rate = found.terms.rates.get(unit.key)
        if rate is not None:
            yield {
                "price": price,
                "usd": usd_per(rate.base, unit),
                "per": f"{unit.per:,} {unit.key.replace('_', ' ')}",
                "above": {start: usd_per(above, unit) for start, above in rate.tiers},
            }


def _as_json(provider: str, model: str, at: datetime, found: Resolved) -> dict[str, Any]:
    return {
        "provider": provider,
        "model": model,
        "at": at.isoformat(),
        "from": found.terms.source,
        "because": list(found.notes),
        "free": found.free,
        "exact": found.exact,
        "multipliers": dict(found.multipliers or {}),
        "until": found.terms.until.isoformat() if found.ends else None,
        "rates": [
            {**each, "above": {str(start): usd for start, usd in each["above"].items()}} for each in _rates(found)
        ],
    }


def _print(provider: str, model: str, at: datetime, found: Resolved) -> None:
    notes = {"from": found.terms.source}
    for number, note in enumerate(found.notes):
        notes["alias" if not number else f"alias {number + 1}"] = note
    for label, factor in (found.multipliers or {}).items():
        notes[f"times {factor}"] = label
    if found.ends:
        notes["until"] = f"{found.terms.until:%Y-%m-%d %H:%M} UTC"
    if found.free:
        notes["price"] = "free"
    if not found.exact:
        notes["partial"] = "no list has a price for this context; these are the standard rates"
    print_notes(f"{provider} {model} at {at:%Y-%m-%d %H:%M} UTC", notes)
    tiers = sorted({start for each in _rates(found) for start in each["above"]})
    if not found.free:
        print_rows(
            ("price", "USD", *(f"above {start:,} input tokens" for start in tiers), "per"),
            [
                (each["price"], each["usd"], *(each["above"].get(start, each["usd"]) for start in tiers), each["per"])
                for each in _rates(found)
            ],
        )


def _print_file(file: Overrides, book: PriceBook) -> None:
    counts = {
        name: len(getattr(file, name))
        for name in ("aliases", "models", "multipliers", "derived", "free")
        if getattr(file, name)
    }
    if file.table is not None:
        counts["models in LiteLLM's format"] = len(file.table)
    told = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing in it"
    print_notes(f"{file.name} is in order: {told}", {})
    now = datetime.now(UTC)
    rows = []
    for rule in file.aliases:
        found = book.resolve(rule.provider or "", (rule.entry.match.replace("*", "x"),), now)
        said = "depends on its name" if "*" in rule.entry.model else _told(found)
        rows.append((rule.source, f"{rule.provider} {rule.entry.match}", rule.entry.model, said))
    for rule, offer in file.models:
        terms = offer.terms(now, ())
        said = f"{len(terms.rates)} rates now" if terms and terms.rates else "no rates at this moment"
        rows.append((rule.source, f"{rule.provider} {_matched(rule.entry.match)}", "", said))
    if rows:
        print_rows(("line", "model", "is", "price"), rows)


def _matched(match: Any) -> str:
    if isinstance(match, str):
        return match
    given = match.model_dump(exclude_none=True)
    return ", ".join(f"{name} {value}" for name, value in given.items())


def _told(found: Resolved) -> str:
    return "free" if found.free else found.terms.source if found.terms.rates else "NO PRICE"
