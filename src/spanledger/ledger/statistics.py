"""`get_usage`: the totals of a ledger, of the current period, by provider, by model and by other keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from spanledger.ledger.queries import KEYS, conditions_of, moment, sql_of
from spanledger.ledger.rows import Asked
from spanledger.model import ATTRIBUTION_KEYS

Where: TypeAlias = Mapping[str, str | None]
PERIODS: Final = ("day", "week", "month", "year")
_UNITS: Final = "mhdw"
_MODEL: Final = ("provider", "response_model", "request_model")
_INDEXED: Final = frozenset({"provider", "model", *ATTRIBUTION_KEYS}) - {"message_id"}
"""Keys that the index of totals holds."""
_SUMS: Final = "count(*), sum(input_tokens), sum(output_tokens), sum(cost_pusd)"
_SPLIT_SUMS: Final = (
    "count(*), sum(input_tokens), sum(output_tokens), sum(cost_pusd / 1000000), sum(cost_pusd % 1000000)"
)
"""The same beyond 9.2 million USD, where a sum of SQLite's overflows."""


@dataclass(slots=True)
class Total:
    """What some calls come to. A kept call stands for as many as its weight."""

    requests: int = 0
    tokens: int = 0
    pusd: int = 0
    unpriced: int = 0
    """Requests among them without a price: the cost lacks theirs."""

    def add(self, other: Total) -> None:
        """Take in what others come to."""
        self.requests += other.requests
        self.tokens += other.tokens
        self.pusd += other.pusd
        self.unpriced += other.unpriced

    def told(self) -> dict[str, Any]:
        """As `get_usage` tells it: the cost a float in USD, the nearest there is to the exact figure."""
        return {"requests": self.requests, "tokens": self.tokens, "cost": self.pusd / 10**12}


def statistics(
    connection: Asked,
    now: datetime,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    by: Sequence[str] = (),
    period: str = "month",
    timezone: str = "UTC",
    where: Mapping[str, str | None] = {},  # never written
) -> dict[str, Any]:
    """Totals from `start` (included) to `end` (not), JSON-serialisable.

    `total_requests`, `total_tokens`, `total_cost` (USD), `current_period`, `by_provider`, `by_model`, `by_<key>` for
    each key of `by`; `unpriced_requests` where there are any. The current period is a calendar `day`, `week`, `month`
    or `year` in `timezone`, or the last `30d`, `24h`. Raises `ValueError` for a key, period or time zone there is none
    of.
    """
    begins, ends = current_period(period, now, timezone)
    told: dict[str, Any] = {"total_requests": 0, "total_tokens": 0, "total_cost": 0.0}
    rows = _totals(connection, _MODEL, start, end, where)
    whole = _sum(rows, lambda _: "")[0].get("", Total())
    told.update(total_requests=whole.requests, total_tokens=whole.tokens, total_cost=whole.told()["cost"])
    current = _sum(_totals(connection, _MODEL, begins, ends, where), lambda _: "")[0].get("", Total())
    told["current_period"] = {
        **current.told(),
        "period_start": _utc(begins),
        "period_end": _utc(ends - timedelta(seconds=1) if period in PERIODS else ends),
    }
    told["by_provider"] = _by(rows, lambda key: key[0])
    told["by_model"] = _by(rows, lambda key: key[1] or key[2])
    for key in by:
        told[f"by_{key}"] = _by(_totals(connection, (key,), start, end, where), lambda key: key[0])
    if whole.unpriced:
        told["unpriced_requests"] = whole.unpriced
    return told


def current_period(period: str, now: datetime, timezone: str = "UTC") -> tuple[datetime, datetime]:
    """Its start and its end, which is no part of it. Raises `ValueError`."""
    if period[-1:] in _UNITS and period[:-1].isdecimal():
        return moment(period, now), now
    zone = _zone(timezone)
    today = now.astimezone(zone).date()
    starts = {
        "day": today,
        "week": today - timedelta(days=today.weekday()),
        "month": today.replace(day=1),
        "year": today.replace(month=1, day=1),
    }
    if period not in starts:
        raise ValueError(f"there is no period {period!r}; there are {', '.join(PERIODS)}, and 30d, 24h and the like")
    begins = starts[period]
    ends = {
        "day": begins + timedelta(days=1),
        "week": begins + timedelta(days=7),
        "month": (begins + timedelta(days=31)).replace(day=1),
        "year": (begins + timedelta(days=366)).replace(month=1, day=1),
    }[period]
    first, last = (datetime(day.year, day.month, day.day, tzinfo=zone) for day in (begins, ends))
    return first.astimezone(UTC), last.astimezone(UTC)


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name.upper() in ("UTC", "Z") else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}; try Europe/Berlin") from None


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Rows: TypeAlias = list[tuple[tuple[Any, ...], Total]]


def _by(rows: Rows, name: Callable[[tuple[Any, ...]], Any]) -> dict[str, dict[str, Any]]:
    """Totals by name, dearest first; what has none is `unknown`."""
    found, order = _sum(rows, lambda key: "unknown" if (said := name(key)) is None else str(said))
    return {each: found[each].told() for each in order}


def _sum(rows: Rows, name: Callable[[tuple[Any, ...]], str]) -> tuple[dict[str, Total], list[str]]:
    found: dict[str, Total] = {}
    for key, total in rows:
        found.setdefault(name(key), Total()).add(total)
    return found, sorted(found, key=lambda each: (-found[each].pusd, -found[each].requests, each))


def _totals(connection: Asked, keys: Sequence[str], start: datetime | None, end: datetime | None, where: Where) -> Rows:
    """Totals by some columns, as of what the calls are known to have cost by now."""
    columns = [each if each in _MODEL else sql_of(each, connection) for each in keys]
    conditions, values = conditions_of(connection, start, end, where)
    if getattr(connection, "dialect", "sqlite") == "postgresql":
        rows = [*_weighed(connection, columns, conditions, values)]
        return [*rows, *_adjusted(connection, columns, conditions, values)]
    rows = [*_recorded(connection, columns, conditions, values, covered={*keys, *where} - {*_MODEL} <= _INDEXED)]
    return [*rows, *_adjusted(connection, columns, conditions, values)]


def _weighed(
    connection: Asked, columns: Sequence[str], conditions: str, values: Sequence[Any]
) -> Iterable[tuple[tuple[Any, ...], Total]]:
    """In PostgreSQL, whose sums don't overflow, and which sorts where it is to group by more."""
    numbers = ", ".join(str(number + 1) for number in range(len(columns)))
    statement = (
        f"SELECT {', '.join(columns)}, sum(weight),"
        " sum((coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) * weight::bigint),"
        " sum(cost_pusd * weight::numeric), sum(weight) FILTER (WHERE cost_status = 'unpriced')"
        f" FROM usage_records{conditions} GROUP BY {numbers}"
    )
    for row in connection.execute(statement, values).fetchall():
        *key, requests, tokens, pusd, unpriced = tuple(row)
        yield tuple(key), Total(int(requests), int(tokens), int(pusd or 0), int(unpriced or 0))


def _recorded(
    connection: Asked, columns: Sequence[str], conditions: str, values: Sequence[Any], *, covered: bool
) -> Iterable[tuple[tuple[Any, ...], Total]]:
    table = "usage_records INDEXED BY usage_records_totals" if covered else "usage_records"
    grouped = [*columns, "weight", "cost_status"]
    numbers = ", ".join(str(number + 1) for number in range(len(grouped)))

    def ask(sums: str) -> list[Any]:
        statement = f"SELECT {', '.join(grouped)}, {sums} FROM {table}{conditions} GROUP BY {numbers}"
        return list(connection.execute(statement, values).fetchall())

    try:
        rows = ask(_SUMS)
    except sqlite3.OperationalError as error:
        if "overflow" not in str(error):
            raise
        rows = ask(_SPLIT_SUMS)
    for row in rows:
        *key, weight, status, count, read, written, cost = tuple(row)[: len(grouped) + 4]
        pusd = int(cost or 0) if len(row) == len(grouped) + 4 else int(cost or 0) * 10**6 + int(row[-1] or 0)
        unpriced = count * weight if status == "unpriced" else 0
        yield tuple(key), Total(count * weight, int((read or 0) + (written or 0)) * weight, pusd * weight, unpriced)


def _adjusted(
    connection: Asked, columns: Sequence[str], conditions: str, values: Sequence[Any]
) -> Iterable[tuple[tuple[Any, ...], Total]]:
    """What repricing has changed."""
    named = ", ".join(f"{each} AS key_{number}" for number, each in enumerate(columns))
    grouped = ", ".join(f"key_{number}" for number in range(len(columns)))
    statement = (
        f"SELECT {grouped}, weight, old_status, new_status, count(*), sum(new / 1000000) - sum(old / 1000000),"
        f" sum(new % 1000000) - sum(old % 1000000) FROM (SELECT {named}, weight,"
        " usage_records.cost_status AS old_status, a.cost_status AS new_status,"
        " coalesce(usage_records.cost_pusd, 0) AS old, coalesce(a.cost_pusd, 0) AS new"
        " FROM (SELECT record_id AS adjusted, max(number) AS latest FROM cost_adjustments GROUP BY record_id) AS last"
        " JOIN cost_adjustments AS a ON a.record_id = last.adjusted AND a.number = last.latest"
        f" JOIN usage_records ON usage_records.record_id = last.adjusted{conditions}) AS changed"
        f" GROUP BY {grouped}, weight, old_status, new_status"
    )
    for row in connection.execute(statement, values).fetchall():
        *key, weight, old, new, count, micro, rest = tuple(row)
        unpriced = (new == "unpriced") - (old == "unpriced")
        pusd = int(micro or 0) * 10**6 + int(rest or 0)
        yield tuple(key), Total(0, 0, pusd * weight, unpriced * count * weight)


assert set(_MODEL) <= {"response_model", "request_model", *KEYS}  # noqa: S101  # names checked at import
