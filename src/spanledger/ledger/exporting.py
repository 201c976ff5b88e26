"""All records of a period, one row each, as somebody else's tools read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from spanledger.ledger.queries import conditions_of, usd
from spanledger.ledger.rows import COLUMNS, Asked
from spanledger.model import AS_JSON

PAGE: Final = 2000
EXPORTED: Final = (
    *COLUMNS, "recorded_at", "current_cost_pusd", "current_cost_breakdown", "current_cost_status",
    "current_cost_source", "current_price_basis", "adjusted_at", "cost_usd",
)  # fmt: skip
"""Columns of an export: those of `current_costs`, and the current cost as decimal USD."""
JSON: Final = frozenset({*AS_JSON, "current_cost_breakdown"})
TIMES: Final = frozenset({"started_at", "recorded_at", "adjusted_at"})
INTEGERS: Final = frozenset(
    {
        "duration_ms", "time_to_first_chunk_ms", "stream", "attempts", "weight", "input_tokens", "output_tokens",
        "cache_read_tokens", "cache_write_tokens", "cache_write_long_tokens", "reasoning_tokens", "input_audio_tokens",
        "output_audio_tokens", "input_image_tokens", "output_image_tokens", "web_searches", "cost_pusd",
        "local_cost_pusd", "claimed_cost_pusd", "current_cost_pusd", "clock_suspect",
    }
)  # fmt: skip
"""Columns by type; the others hold text."""

_ORDER: Final = " ORDER BY started_at, record_id"
_CURSOR: Final = "spanledger_export"


def columns_of(text: str | None) -> tuple[str, ...]:
    """The columns that `a,b,c` names, each once, in that order; all of them for `None`. Raises `ValueError`."""
    if text is None:
        return EXPORTED
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in EXPORTED:
            raise ValueError(f"there is no column {name!r}; there are {', '.join(EXPORTED)}")
    return names


def pages(
    asked: Asked,
    columns: Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    where: Mapping[str, str | None] = {},  # never written
) -> Iterator[list[tuple[Any, ...]]]:
    """The records of a period by the time of their start, in pages of at most `PAGE`: their values of these columns.

    Counts are `int`, times ISO-8601 UTC text, JSON text, `cost_usd` decimal text with 12 places; unknown is `None`.
    `since` is included, `until` is not. One page is in memory. Raises `ValueError` for an unknown key in `where`.
    """
    conditions, values = conditions_of(asked, since, until, where)
    names = ["current_cost_pusd" if name == "cost_usd" else name for name in columns]
    place = columns.index("cost_usd") if "cost_usd" in columns else None
    statement = f"SELECT {', '.join(names)}, started_at, record_id FROM current_costs{conditions}"
    read = _by_cursor if getattr(asked, "dialect", "sqlite") == "postgresql" else _by_key
    for rows in read(asked, statement, values):
        yield [_priced(tuple(row)[:-2], place) for row in rows]


def _priced(row: tuple[Any, ...], place: int | None) -> tuple[Any, ...]:
    if place is None or row[place] is None:
        return row
    return (*row[:place], usd(row[place]), *row[place + 1 :])


def _by_key(asked: Asked, statement: str, values: Sequence[str]) -> Iterator[list[Any]]:
    """A statement for each page: one that lasts as long as its reader takes would keep the log from being cut."""
    after: tuple[str, ...] = ()
    sign = " AND" if " WHERE " in statement else " WHERE"
    while True:
        beyond = f"{sign} (started_at, record_id) > (?, ?)" if after else ""
        rows = asked.execute(f"{statement}{beyond}{_ORDER} LIMIT ?", (*values, *after, PAGE)).fetchall()
        if not rows:
            return
        yield rows
        after = (rows[-1]["started_at"], rows[-1]["record_id"])


def _by_cursor(asked: Asked, statement: str, values: Sequence[str]) -> Iterator[list[Any]]:
    """A cursor of the server's: its view sorts all adjustments, which pages should not do again each time."""
    asked.execute(f"DECLARE {_CURSOR} NO SCROLL CURSOR FOR {statement}{_ORDER}", values)
    while rows := asked.execute(f"FETCH FORWARD {PAGE} FROM {_CURSOR}").fetchall():
        yield rows
    asked.execute(f"CLOSE {_CURSOR}")
