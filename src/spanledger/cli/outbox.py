"""`spanledger outbox`: what waits to be delivered, what can't be, and another try."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from spanledger.cli.ledgers import NotWell
from spanledger.cli.tables import print_rows
from spanledger.recording import survey
from spanledger.recording.survey import OutboxState
from spanledger.settings import Settings, read_settings


@dataclass(slots=True)
class Line:
    """How a sink stands, over all files."""

    pending: int = 0
    leased: int = 0
    dead: int = 0
    failing: list[str] = field(default_factory=list)
    is_set: bool = False
    """Whether the settings name it."""


@click.group()
def outbox() -> None:
    """What waits to be delivered, what can't be, and another try."""


@outbox.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(form: str) -> None:
    """Records by sink: pending, in flight, dead. Exit 1 if a sink fails or refuses, or a file is damaged."""
    settings = read_settings()
    states, damaged = _look(settings)
    lines = _lines(settings, states)
    if form == "json":
        click.echo(
            json.dumps(
                {
                    "files": len(states),
                    "living": sum(state.owner_alive for state in states),
                    "pending": sum(state.pending for state in states),
                    "sinks": {name: asdict(line) for name, line in lines.items()},
                    "unreadable": [str(state.path) for state in states if state.unreadable],
                    "quarantined": [str(path) for path in damaged],
                },
                indent=2,
            )
        )
    else:
        _print(settings, states, lines, damaged)
    if (
        damaged
        or any(state.unreadable for state in states)
        or any(line.dead or line.failing for line in lines.values())
    ):
        raise SystemExit(1)


@outbox.command()
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds.")
def flush(timeout: float) -> None:
    """Deliver now what processes that ended have left, to the ledger and every sink that is set."""
    from spanledger.assembly import deliver_left  # noqa: PLC0415  # loads what delivers

    settings = read_settings()
    home = deliver_left(settings, timeout)
    states, _ = _look(settings)
    of_living = sum(state.pending for state in states if state.owner_alive)
    left = sum(state.pending for state in states if not state.owner_alive)
    if of_living:
        click.echo(f"{of_living:,} records are with living processes, which deliver them themselves.")
    if left or not home:
        lines = _lines(settings, states)
        reasons = sorted({text for line in lines.values() for text in line.failing if line.is_set})
        reasons += [f"the sink {name} is not set" for name, line in lines.items() if line.pending and not line.is_set]
        raise NotWell(f"{left:,} records could not be delivered: {'; '.join(reasons) or 'there was no time'}")
    click.echo("Everything is delivered.")


@outbox.command()
@click.option("--sink", help="Only those of this sink.")
@click.option("--retry", is_flag=True, help="Let them be tried again, after you have corrected the cause.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def dead(sink: str | None, form: str, *, retry: bool) -> None:
    """Records that a sink refused for good, each with the reason."""
    directory = read_settings().state_dir / "outbox"
    try:
        if retry:
            click.echo(f"{survey.revive(directory, sink):,} records will be tried again.")
            return
        found = list(survey.dead(directory, sink))
    except (OSError, sqlite3.Error) as error:
        raise NotWell(f"the outbox can't be read ({error}); nothing was changed") from None
    if form == "json":
        click.echo(json.dumps([_shown(each) for each in found], indent=2))
    elif found:
        print_rows(
            ("sink", "record", "died", "reason"),
            [(each.sink, _record_id(each), _moment(each.died_at_ns), each.reason) for each in found],
        )
    else:
        click.echo("No record was refused for good.")


def _look(settings: Settings) -> tuple[list[OutboxState], list[Path]]:
    directory = settings.state_dir / "outbox"
    try:
        return survey.survey(directory), survey.quarantined(directory)
    except OSError as error:
        raise NotWell(f"the outbox can't be read ({error}); nothing was changed") from None


def _lines(settings: Settings, states: Iterable[OutboxState]) -> dict[str, Line]:
    from spanledger.assembly import sink_names  # noqa: PLC0415  # as above

    lines: defaultdict[str, Line] = defaultdict(Line, {name: Line(is_set=True) for name in sink_names(settings)})
    for state in states:
        for each in state.waiting:
            line = lines[each.sink]
            line.pending += each.pending
            line.leased += each.leased
            line.dead += each.dead
            if each.reason and each.reason not in line.failing:
                line.failing.append(each.reason)
    return dict(lines)


def _print(settings: Settings, states: list[OutboxState], lines: dict[str, Line], damaged: list[Path]) -> None:
    living = sum(state.owner_alive for state in states)
    click.echo(f"{settings.state_dir / 'outbox'}: {len(states)} files, {living} of living processes")
    rows = [
        (name, str(line.pending), str(line.leased), str(line.dead), "; ".join(line.failing) or "-")
        for name, line in lines.items()
    ]
    print_rows(("sink", "pending", "in flight", "dead", "failing with"), rows)
    for state in states:
        if state.unreadable:
            click.echo(f"{state.path} can't be read ({state.unreadable}).")
    for path in damaged:
        click.echo(
            f"{path} was damaged and put aside; what could be read of it was saved. Delete it if you need no more."
        )


def _shown(each: survey.Dead) -> dict[str, Any]:
    return {
        "sink": each.sink,
        "record_id": _record_id(each),
        "died_at": _moment(each.died_at_ns),
        "reason": each.reason,
        "row": _document(each),
    }


def _record_id(each: survey.Dead) -> str:
    return str(_document(each).get("record_id"))


def _document(each: survey.Dead) -> dict[str, Any]:
    """The row; empty where that is what is damaged."""
    try:
        return dict(json.loads(each.body))
    except ValueError:
        return {}


def _moment(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).isoformat(timespec="seconds")
