"""Questions to the ledger. Column names come from the tables here, values are always bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from spanledger.ledger.rows import Asked
from spanledger.model import iso

KEYS: Final = {
    "provider": "provider",
    "model": "coalesce(response_model, request_model)",
    "operation": "operation",
    "user_id": "user_id",
    "session_id": "session_id",
    "organization_id": "organization_id",
    "feature": "feature",
    "team": "team",
    "project": "project",
    "cost_center": "cost_center",
    "service": "service_name",
    "environment": "environment",
    "status": "status",
    "source": "source",
    "attribution_source": "attribution_source",
    "day": "substr(started_at, 1, 10)",
    "hour": "substr(started_at, 1, 13) || ':00'",
}
"""Key of a report → SQL."""
_POSTGRES: Final = {
    "day": "to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "hour": """to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24":00"')""",
}
"""Where PostgreSQL says it in another way."""

TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")

# SQLite's sum of integers overflows beyond 9.2 million USD: whole micro-USD and the rest are summed apart.
_MEASURES: Final = (
    "sum(weight) AS calls",
    *(f"coalesce(sum({name} * weight), 0) AS {name}" for name in TOKENS),
    "sum(current_cost_pusd / 1000000 * weight) AS cost_micro",
    "sum(current_cost_pusd % 1000000 * weight) AS cost_rest",
    "sum(CASE WHEN current_cost_status = 'unpriced' THEN weight ELSE 0 END) AS unpriced_calls",
    "sum(CASE WHEN current_cost_status = 'partial' THEN weight ELSE 0 END) AS partial_calls",
    "sum(CASE WHEN status = 'incomplete' THEN weight ELSE 0 END) AS incomplete_calls",
    "sum(CASE WHEN status = 'error' THEN weight ELSE 0 END) AS failed_calls",
)
COUNTS: Final = ("unpriced_calls", "partial_calls", "incomplete_calls", "failed_calls")


def report(
    connection: Asked,
    by: Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    where: Mapping[str, str | None] = {},  # never written
) -> list[dict[str, Any]]:
    """Totals by the given keys, dearest first: the keys, calls, tokens, `cost_usd` as decimal text, counts.

    `since` is included, `until` is not. A key that a row lacks is `None`. Raises `ValueError` for an unknown key.
    """
    keys = [sql_of(key, connection) for key in by]
    conditions, values = conditions_of(connection, since, until, where)
    columns = [f"{sql} AS key_{number}" for number, sql in enumerate(keys)]
    statement = f"SELECT {', '.join([*columns, *_MEASURES])} FROM current_costs{conditions}"
    if keys:
        statement += f" GROUP BY {', '.join(str(number + 1) for number in range(len(keys)))}"
    statement += " ORDER BY sum(coalesce(current_cost_pusd, 0) / 1000000) DESC, calls DESC"
    rows = connection.execute(statement, values).fetchall()
    found = [_answer(by, row) for row in rows if row["calls"]]
    return sorted(found, key=lambda each: (-Decimal(each["cost_usd"]), -each["calls"]))


def count(
    connection: Asked,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    where: Mapping[str, str | None] = {},  # never written
) -> int:
    """Rows of a period. Raises `ValueError` for an unknown key."""
    conditions, values = conditions_of(connection, since, until, where)
    (found,) = connection.execute(f"SELECT count(*) FROM usage_records{conditions}", values).fetchone()
    return int(found)


def _answer(by: Sequence[str], row: Any) -> dict[str, Any]:
    pico = (row["cost_micro"] or 0) * 1_000_000 + (row["cost_rest"] or 0)
    return {
        **{key: row[f"key_{number}"] for number, key in enumerate(by)},
        "calls": row["calls"],
        **{name: row[name] for name in TOKENS},
        "cost_usd": usd(pico),
        **{name: row[name] for name in COUNTS},
    }


def usd(pico: int) -> str:
    """Pico-USD as decimal USD text with 12 places."""
    sign, pico = ("-", -pico) if pico < 0 else ("", pico)
    return f"{sign}{pico // 10**12}.{pico % 10**12:012d}"


def day_of(connection: Asked) -> str:
    """The SQL for the UTC day of a record."""
    return sql_of("day", connection)


def sql_of(key: str, connection: Asked) -> str:
    """The SQL for a key of a report. Raises `ValueError` for one there is none of."""
    if key not in KEYS:
        raise ValueError(f"there is no key {key!r}; there are {', '.join(KEYS)}")
    if getattr(connection, "dialect", "sqlite") == "postgresql":
        return _POSTGRES.get(key, KEYS[key])
    return KEYS[key]


def conditions_of(
    connection: Asked, since: datetime | None, until: datetime | None, where: Mapping[str, str | None]
) -> tuple[str, list[str]]:
    """The SQL for a period and `where`, and its values. Raises `ValueError` for an unknown key."""
    conditions, values = [], []
    for bound, sign in ((since, ">="), (until, "<")):
        if bound is not None:
            conditions.append(f"started_at {sign} ?")
            values.append(iso(bound))
    for key, value in where.items():
        if value is None:
            conditions.append(f"{sql_of(key, connection)} IS NULL")
        else:
            conditions.append(f"{sql_of(key, connection)} = ?")
            values.append(value)
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values


_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """A point in time: `2026-11-01`, ISO-8601 (UTC where it names no zone), or `90m`, `24h`, `7d`, `2w` ago.

    Raises `ValueError`.
    """
    if text[-1:] in _UNITS and text[:-1].isdecimal():
        try:
            return now - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        except (OverflowError, ValueError):
            raise ValueError(f"{text!r} is longer ago than there are dates") from None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no point in time; try 2026-11-01, 2026-11-01T12:00Z or 7d") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
