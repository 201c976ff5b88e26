"""What the command prints for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from spanledger.cli.finding import Finding
from spanledger.ledger.queries import COUNTS, KEYS, TOKENS, usd
from spanledger.model import ATTRIBUTION_KEYS

_NAMES = {
    "input_tokens": "input", "output_tokens": "output", "cache_read_tokens": "cache read",
    "cache_write_tokens": "cache write", "reasoning_tokens": "reasoning", "cost_usd": "cost USD",
    "unpriced_calls": "unpriced", "partial_calls": "partial", "incomplete_calls": "incomplete",
    "failed_calls": "failed", "total_tokens": "tokens", "average_latency_ms": "latency ms",
    "tokens_per_call": "tokens per call", "cost_per_token_usd": "USD per token", "cost_per_call_usd": "USD per call",
    "average_day_usd": "average day USD",
}  # fmt: skip
_WIDE = 140


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def print_report(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> None:
    """A table: keys, calls, tokens, cost. Columns that are zero everywhere are left out; a last line has the totals."""
    table = Table(
        title=f"Usage by {', '.join(keys)}" if keys else "Usage", title_justify="left", show_footer=len(rows) > 1
    )
    numbers = ["calls", *(name for name in (*TOKENS, "cost_usd", *COUNTS) if name in TOKENS[:2] or _any(rows, name))]
    for number, key in enumerate(keys):
        table.add_column(key, footer="total" if number == 0 else "", overflow="fold")
    for name in numbers:
        table.add_column(_NAMES.get(name, name), footer=_total(rows, name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            *(escape(_named(key, row[key])) for key in keys),
            *(_number(row[name]) for name in numbers),
        )
    _console().print(table)


def print_answer(says: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """A table of a named report; `-` where nothing is known. Counts of what went wrong are left out if all are 0."""
    table = Table(title=escape(says[0].upper() + says[1:]), title_justify="left")
    shown = [name for name in columns if name not in COUNTS or any(row[name] for row in rows)]
    for name in shown:
        text = name in KEYS or name == "of"
        table.add_column(_NAMES.get(name, name), justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(name, row[name])) for name in shown))
    _console().print(table)


def _shown(name: str, value: Any) -> str:
    return _named(name, value) if value is None or isinstance(value, str) else _number(value)


def _named(key: str, value: Any) -> str:
    if value is None:
        return "(unattributed)" if key in ATTRIBUTION_KEYS else "-"
    return str(value)


def _any(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return name == "cost_usd" or any(row[name] for row in rows)


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _total(rows: Sequence[dict[str, Any]], name: str) -> str:
    if name == "cost_usd":
        return usd(sum(int(Decimal(row[name]).scaleb(12)) for row in rows))
    return _number(sum(row[name] for row in rows))


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()) -> None:
    """A plain table; columns of numbers stand to the right."""
    table = Table(show_footer=bool(footer))
    for number, name in enumerate(head):
        right = all(row[number][:1] in "-0123456789" and row[number][-1:].isdigit() for row in rows)
        table.add_column(
            name, footer=footer[number] if footer else "", justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(escape, row))
    _console().print(table)


def print_notes(title: str, notes: Mapping[str, str]) -> None:
    """A line, and what is to be known about it."""
    console = _console()
    console.print(escape(title), soft_wrap=True)
    for name, note in notes.items():
        console.print(f"  {escape(name):<10} {escape(note)}", soft_wrap=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; call what you get with how many more are done."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


def print_findings(findings: Sequence[Finding]) -> None:
    """A line for each finding, and what to do where something is wrong."""
    console = _console()
    for finding in findings:
        mark = "[yellow]warn[/]" if finding.warns else "[green]ok  [/]" if finding.well else "[red]FAIL[/]"
        console.print(f"{mark} {escape(finding.subject)}: {escape(finding.says)}", soft_wrap=True)
        if finding.warns or not finding.well:
            console.print(f"     {escape(finding.do)}", soft_wrap=True)
