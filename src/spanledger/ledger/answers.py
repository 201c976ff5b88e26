"""Questions that come up again and again, by name: what a day costs, whose the money is, what is out of the ordinary.

Sums are exact integers in the database and in here. Every report of the last N days means whole UTC days, today
included. An amount is decimal USD text with 12 places, any other quotient decimal text with 3; half of the last place
goes to the even neighbour. What nobody knows is `None`: a cost without a price, a quotient of nothing, whose it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from spanledger.ledger.queries import KEYS, conditions_of, day_of, usd
from spanledger.ledger.rows import Asked

ANOMALY_DAYS: Final = 30
"""A user's average day is of so many days; those without a priced call don't count."""
_COUNTED: Final = "coalesce(input_tokens, output_tokens) IS NOT NULL"
_TOKENS: Final = f"CASE WHEN {_COUNTED} THEN (coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) * weight END"
_PRICED: Final = "current_cost_pusd IS NOT NULL"
# Whole micro-USD and the rest are summed apart, or SQLite's sum overflows beyond 9.2 million USD.
_COST: Final = {
    "cost_micro": "sum(current_cost_pusd / 1000000 * weight)",
    "cost_rest": "sum(current_cost_pusd % 1000000 * weight)",
}
_SUMS: Final = {
    **_COST,
    "calls": "sum(weight)",
    "input_tokens": "sum(input_tokens * weight)",
    "output_tokens": "sum(output_tokens * weight)",
    "total_tokens": f"sum({_TOKENS})",
    "counted_calls": f"sum(CASE WHEN {_COUNTED} THEN weight ELSE 0 END)",
    "priced_calls": f"sum(CASE WHEN {_PRICED} THEN weight ELSE 0 END)",
    "priced_tokens": f"sum(CASE WHEN {_PRICED} THEN {_TOKENS} END)",
    "unpriced_calls": f"sum(CASE WHEN {_PRICED} THEN 0 ELSE weight END)",
    "timed_calls": "sum(CASE WHEN duration_ms IS NULL THEN 0 ELSE weight END)",
    "duration_ms": "sum(duration_ms * weight)",
}
"""Sum → SQL."""
_WHOLE_MICRO: Final = {
    "sqlite": f"{_COST['cost_micro']} + {_COST['cost_rest']} / 1000000",
    "postgresql": f"{_COST['cost_micro']} + div({_COST['cost_rest']}, 1000000)",
}
"""Micro-USD with what the rests carry over, by dialect: what a sum divides by is not the same number in both."""
_DEAREST: Final = "{whole} DESC NULLS LAST, {rest} % 1000000 DESC, sum(weight) DESC"
Sums = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A named report: what it says, its columns, how many UTC days it is of (`None`: all), how many rows it has."""

    says: str
    columns: tuple[str, ...]
    days: int | None
    limit: int | None = None
    most_days: int | None = None
    ask: Callable[[Asked, Answer, datetime | None, datetime | None, int | None], list[dict[str, Any]]]


def answer(
    asked: Asked, name: str, *, now: datetime, days: int | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """The rows of a named report, under its columns. Raises `ValueError` for an unknown name or too many days."""
    if name not in ANSWERS:
        raise ValueError(f"there is no report {name!r}; there are {', '.join(ANSWERS)}")
    report = ANSWERS[name]
    if days is not None and report.most_days is not None and days > report.most_days:
        raise ValueError(f"{name} are of at most {report.most_days} days, not {days}")
    since, until = _days(now, report.days if days is None else days)
    return report.ask(asked, report, since, until, report.limit if limit is None else limit)


def _days(now: datetime, days: int | None) -> tuple[datetime | None, datetime | None]:
    """The last so many UTC days: from a midnight on, until before another one."""
    if days is None:
        return None, None
    end = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return end - timedelta(days=days), end


def _by(*keys: str, order: str = _DEAREST) -> Callable[..., list[dict[str, Any]]]:
    """The answer for each value of these keys."""

    def ask(
        asked: Asked, report: Answer, since: datetime | None, until: datetime | None, limit: int | None
    ) -> list[dict[str, Any]]:
        return [_row(report.columns, sums) for sums in _sums(asked, keys, since, until, order=order, limit=limit)]

    return ask


def _sums(
    asked: Asked,
    keys: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    *,
    order: str = _DEAREST,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    conditions, values = conditions_of(asked, since, until, {})
    named = {key: day_of(asked) if key == "day" else KEYS[key] for key in keys}
    selected = ", ".join(f"{sql} AS {name}" for name, sql in {**named, **_SUMS}.items())
    grouped = ", ".join(str(number + 1) for number in range(len(keys)))
    ordered = order.format(whole=_WHOLE_MICRO[_dialect(asked)], rest=_COST["cost_rest"])
    statement = f"SELECT {selected} FROM current_costs{conditions} GROUP BY {grouped} ORDER BY {ordered}"
    if limit is not None:
        statement += f" LIMIT {limit:d}"
    rows = asked.execute(statement, values).fetchall()
    return [dict(zip((*named, *_SUMS), row, strict=True)) for row in rows]


def _dialect(asked: Asked) -> str:
    return getattr(asked, "dialect", "sqlite")


def _pico(sums: Sums) -> int | None:
    return None if sums["cost_micro"] is None else sums["cost_micro"] * 1_000_000 + sums["cost_rest"]


def _usd(pico: int | None, parts: int | None = 1) -> str | None:
    """A part of an amount in decimal USD."""
    return usd(round(Fraction(pico, parts))) if pico is not None and parts else None


def _quotient(number: int | None, parts: int | None) -> str | None:
    if number is None or not parts:
        return None
    return f"{Decimal(round(Fraction(number * 1000, parts))).scaleb(-3):f}"


_DERIVED: Final[dict[str, Callable[[Sums], str | None]]] = {
    "cost_usd": lambda sums: _usd(_pico(sums)),
    "average_latency_ms": lambda sums: _quotient(sums["duration_ms"], sums["timed_calls"]),
    "cost_per_token_usd": lambda sums: _usd(_pico(sums), sums["priced_tokens"]),
    "cost_per_call_usd": lambda sums: _usd(_pico(sums), sums["priced_calls"]),
    "tokens_per_call": lambda sums: _quotient(sums["total_tokens"], sums["counted_calls"]),
}
"""Column → what it is made of. What was not told is in neither part of a quotient."""


def _row(columns: Sequence[str], sums: Sums) -> dict[str, Any]:
    return {name: _DERIVED[name](sums) if name in _DERIVED else sums[name] for name in columns}


def _efficiency(
    asked: Asked, report: Answer, since: datetime | None, until: datetime | None, limit: int | None
) -> list[dict[str, Any]]:
    """All calls together, then each provider, then each model, each level dearest first."""
    models = [{**sums, "of": "model"} for sums in _sums(asked, ("provider", "model"), since, until)]
    names = dict.fromkeys(sums["provider"] for sums in models)
    providers = [
        _together([each for each in models if each["provider"] == name], of="provider", provider=name) for name in names
    ]
    providers.sort(key=lambda sums: (-(_pico(sums) or 0), -sums["calls"]))
    total = [_together(models, of="all", provider=None)] if models else []
    return [_row(report.columns, sums) for sums in [*total, *providers, *models][:limit]]


def _together(parts: Sequence[Sums], **named: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {**named, "model": None}
    for name in _SUMS:
        told = [each[name] for each in parts if each[name] is not None]
        found[name] = sum(told) if told else None
    return found


def _anomalies(
    asked: Asked, report: Answer, since: datetime | None, until: datetime | None, limit: int | None
) -> list[dict[str, Any]]:
    """Days on which a user cost more than twice their average day, latest first."""
    begin = until - timedelta(days=ANOMALY_DAYS) if until else None
    conditions, values = conditions_of(asked, begin, until, {})
    first = since.strftime("%Y-%m-%d") if since else ""
    statement = (
        "WITH spent AS (SELECT user_id, "
        f"{day_of(asked)} AS day, {', '.join(f'{sql} AS {name}' for name, sql in _COST.items())}"
        f" FROM current_costs{conditions} AND user_id IS NOT NULL AND {_PRICED} GROUP BY 1, 2), compared AS"
        " (SELECT spent.*, count(*) OVER mine AS days, sum(cost_micro) OVER mine AS all_micro,"
        " sum(cost_rest) OVER mine AS all_rest FROM spent WINDOW mine AS (PARTITION BY user_id))"
        " SELECT * FROM compared WHERE day >= ? AND days > 2"  # one of two days is never above twice their average
    )
    found = [each for row in asked.execute(statement, (*values, first)) if (each := _compared(row))]
    found.sort(key=lambda each: (each["day"], Decimal(each["cost_usd"])), reverse=True)
    return [{name: each[name] for name in report.columns} for each in found[:limit]]


def _compared(row: Any) -> dict[str, Any] | None:
    """The day, if it was out of the ordinary."""
    spent = row["cost_micro"] * 1_000_000 + row["cost_rest"]
    total = row["all_micro"] * 1_000_000 + row["all_rest"]
    if spent * row["days"] <= 2 * total:
        return None
    return {
        "user_id": row["user_id"],
        "day": row["day"],
        "cost_usd": usd(spent),
        "average_day_usd": _usd(total, row["days"]),
    }


ANSWERS: Final = {
    "daily": Answer(
        says="what each day cost, the last one first",
        columns=(
            "day", "calls", "input_tokens", "output_tokens", "total_tokens", "cost_usd", "average_latency_ms",
            "unpriced_calls",
        ),
        days=30,
        ask=_by("day", order="1 DESC"),
    ),
    "leaderboard": Answer(
        says="users by cost",
        columns=("user_id", "calls", "total_tokens", "cost_usd", "unpriced_calls"),
        days=None,
        limit=20,
        ask=_by("user_id"),
    ),
    "features": Answer(
        says="features and teams by cost, with their average latency",
        columns=("feature", "team", "calls", "cost_usd", "average_latency_ms", "unpriced_calls"),
        days=7,
        ask=_by("feature", "team"),
    ),
    "anomalies": Answer(
        says=f"days on which a user cost more than twice their average day of the last {ANOMALY_DAYS} days",
        columns=("user_id", "day", "cost_usd", "average_day_usd"),
        days=2,
        most_days=ANOMALY_DAYS,
        ask=_anomalies,
    ),
    "efficiency": Answer(
        says="cost per token, tokens per call and cost per call: of all, by provider, by model",
        columns=(
            "of", "provider", "model", "calls", "total_tokens", "cost_usd", "cost_per_token_usd", "tokens_per_call",
            "cost_per_call_usd", "unpriced_calls",
        ),
        days=30,
        ask=_efficiency,
    ),
}  # fmt: skip
"""Name → report."""
