"""What leaves the ledger: old records, and what tells whose they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from spanledger.guard import log
from spanledger.ledger.queries import day_of, usd
from spanledger.ledger.rows import Asked
from spanledger.model import iso

PERSONAL: Final = (
    "user_id", "session_id", "conversation_id", "message_id", "metadata", "trace_id", "span_id", "parent_span_id",
    "response_id",
)  # fmt: skip
"""Columns that lead to a person: by name, or by an id that another system knows."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """A day that was pruned."""

    day: str
    records: int
    cost_usd: str


def old_days(asked: Asked, before: datetime, recorded: datetime | None = None) -> list[Pruned]:
    """The days before then, of what was recorded before `recorded`: calls, and their cost as decimal text."""
    rows = asked.execute(
        f"SELECT {day_of(asked)} AS day, sum(weight) AS records,"
        " sum(current_cost_pusd / 1000000 * weight) AS micro, sum(current_cost_pusd % 1000000 * weight) AS rest"
        f" FROM current_costs WHERE {_OLD} GROUP BY 1 ORDER BY 1",
        _bounds(before, recorded),
    ).fetchall()
    return [Pruned(row["day"], row["records"], usd((row["micro"] or 0) * 10**6 + (row["rest"] or 0))) for row in rows]


def prune(asked: Asked, before: datetime, reason: str, recorded: datetime | None = None) -> list[Pruned]:
    """Delete what is older, and write down what it was: days, calls, cost.

    With `recorded` only what was recorded before then: a call whose clock was wrong, or that was imported, is not old.
    """
    if getattr(asked, "dialect", "sqlite") == "postgresql":  # what is summed up is what is deleted
        asked.execute("LOCK TABLE usage_records IN SHARE ROW EXCLUSIVE MODE")
    days = old_days(asked, before, recorded)
    now = iso(datetime.now(UTC))
    for each in days:
        asked.execute(
            "INSERT INTO pruned_days (day, reason, records, cost_usd, pruned_at) VALUES (?, ?, ?, ?, ?)",
            (each.day, reason, each.records, each.cost_usd, now),
        )
    if days:
        bounds = _bounds(before, recorded)
        asked.execute(
            f"DELETE FROM cost_adjustments WHERE record_id IN (SELECT record_id FROM usage_records WHERE {_OLD})",
            bounds,
        )
        asked.execute(f"DELETE FROM usage_records WHERE {_OLD}", bounds)
    return days


_OLD: Final = "started_at < ? AND recorded_at < ?"
_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)


def _bounds(before: datetime, recorded: datetime | None) -> tuple[str, str]:
    return iso(before), iso(recorded or _NEVER)


def forget(asked: Asked, user_ids: Sequence[str]) -> int:
    """Take from the records of these users whatever leads to them; tokens and cost stay. How many records it was."""
    empty = ", ".join(f"{name} = NULL" for name in PERSONAL)
    return sum(
        asked.execute(f"UPDATE usage_records SET {empty} WHERE user_id = ?", (user_id,)).rowcount
        for user_id in user_ids
    )


def said(days: Sequence[Pruned], reason: str) -> None:
    """Log what was pruned."""
    if days:
        log.warning(
            "%d calls of %s were pruned from the ledger (%s); what they were stands in its table pruned_days.",
            sum(each.records for each in days),
            days[0].day if len(days) == 1 else f"{days[0].day} to {days[-1].day}",
            reason,
        )
