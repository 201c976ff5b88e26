"""`spanledger reprice`: what calls would cost by today's prices, and adjustments where that is another amount."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from spanledger.cli.ledgers import NotWell, ask, ledger_option, period_of, period_options, settings_of
from spanledger.cli.prices import book_of_settings
from spanledger.cli.tables import print_notes, print_rows, progress
from spanledger.ledger.books import ledger_of
from spanledger.ledger.queries import count, usd
from spanledger.ledger.repricing import BATCH, Adjustment, adjustments, apply
from spanledger.ledger.rows import Asked
from spanledger.model import usage_of_row
from spanledger.pricing.completion import price_of_row
from spanledger.recording.sink import SinkError
from spanledger.usage.shapes import read_again

if TYPE_CHECKING:
    from spanledger.model import Cost
    from spanledger.pricing.book import PriceBook


@dataclass(slots=True)
class Line:
    """What became of the calls of one model: sums in pico-USD."""

    calls: int = 0
    old: int = 0
    new: int = 0

    def add(self, each: Adjustment) -> None:
        """One more call."""
        self.calls += each.weight
        self.old += (each.old_pusd or 0) * each.weight
        self.new += (each.cost.cost_pusd or 0) * each.weight


@dataclass(slots=True)
class Outcome:
    """What a repricing has found so far, by provider, model, old and new status."""

    lines: defaultdict[tuple[str, str | None, str, str], Line] = field(default_factory=lambda: defaultdict(Line))
    looked_at: int = 0
    written: int = 0

    def saw(self, advance: Callable[[int], None]) -> Callable[[int], None]:
        """Count the rows looked at, and pass them on."""

        def seen(rows: int) -> None:
            self.looked_at += rows
            advance(rows)

        return seen

    def add(self, batch: Sequence[Adjustment], written: int) -> None:
        """More adjustments, of which so many were written."""
        self.written += written
        for each in batch:
            self.lines[each.provider, each.model, each.old_status, each.cost.cost_status].add(each)


@click.command()
@period_options
@click.option("--apply", "applied", is_flag=True, help="Write the adjustments. Without it nothing is changed.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@ledger_option
def reprice(
    since: str | None, until: str | None, where: Sequence[str], applied: bool, form: str, ledger: str | None
) -> None:
    """Price calls again, from their usage as the provider told it, by today's prices.

    Rows keep the cost they were recorded with. With --apply a cost that is now another is written beside it as an
    adjustment, which reports count from then on; doing so twice writes nothing the second time. Costs that a provider
    or you have stated stand.
    """
    start, end, conditions = period_of(since, until, where)
    settings = settings_of(ledger)
    price = _pricer(book_of_settings())
    sink = ledger_of(settings) if applied else None
    outcome = Outcome()

    def go(connection: Asked) -> None:
        total = count(connection, since=start, until=end, where=conditions)
        with progress("pricing", total) as advance:
            found = adjustments(connection, price, since=start, until=end, where=conditions, seen=outcome.saw(advance))
            while batch := list(islice(found, BATCH)):
                outcome.add(batch, apply(sink, batch) if sink else 0)

    try:
        ask(settings, go)
    except SinkError as error:
        there = f"{outcome.written} adjustments are in it, the rest is not"
        raise NotWell(f"the ledger can't be written ({error}); {there}") from None
    finally:
        if sink:
            sink.close()
    _tell(outcome, outcome.written if applied else None, form)


def _pricer(book: PriceBook) -> Callable[[Mapping[str, Any]], Cost]:
    def price(row: Mapping[str, Any]) -> Cost:
        raw = None if row["raw_usage"] is None else json.loads(row["raw_usage"])
        return price_of_row(book, row, read_again(row["usage_shape"], raw, usage_of_row(row)))

    return price


def _tell(outcome: Outcome, written: int | None, form: str) -> None:
    looked_at = outcome.looked_at
    ordered = sorted(outcome.lines.items(), key=lambda each: -abs(each[1].new - each[1].old))
    total = Line()
    for _, line in ordered:
        total.calls, total.old, total.new = total.calls + line.calls, total.old + line.old, total.new + line.new
    if form == "json":
        names = ("provider", "model", "old_status", "new_status")
        click.echo(
            json.dumps(
                {
                    "looked_at": looked_at,
                    "adjustments_written": written,
                    **_amounts(total),
                    "by_model": [{**dict(zip(names, key, strict=True)), **_amounts(line)} for key, line in ordered],
                },
                indent=2,
            )
        )
        return
    if not ordered:
        print_notes(f"{looked_at:,} calls looked at: all cost what the ledger says", {})
        return
    print_rows(
        ("provider", "model", "status", "calls", "old USD", "new USD", "difference"),
        [
            (provider, model or "-", old if old == new else f"{old} → {new}", *_shown(line, old, new))
            for (provider, model, old, new), line in ordered
        ],
        footer=("total", "", "", *_shown(total)),
    )
    if written is None:
        print_notes(f"{looked_at:,} calls looked at. Nothing was changed; --apply writes the adjustments.", {})
    else:
        print_notes(f"{looked_at:,} calls looked at, {written:,} adjustments written.", {})


def _amounts(line: Line) -> dict[str, Any]:
    return {
        "calls": line.calls,
        "old_cost_usd": usd(line.old),
        "new_cost_usd": usd(line.new),
        "difference_usd": usd(line.new - line.old),
    }


def _shown(line: Line, old: str = "", new: str = "") -> tuple[str, ...]:
    return (
        f"{line.calls:,}",
        "-" if old == "unpriced" else usd(line.old),
        "-" if new == "unpriced" else usd(line.new),
        usd(line.new - line.old),
    )
