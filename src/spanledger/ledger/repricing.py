"""Prices calls of the ledger again. What was recorded stays; a cost that is now another becomes an adjustment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from spanledger.ledger.queries import conditions_of
from spanledger.ledger.rows import Asked
from spanledger.model import Cost, cost_columns, iso

if TYPE_CHECKING:
    from spanledger.ledger.postgres import PostgresLedger
    from spanledger.ledger.sqlite import SqliteLedger

BATCH: Final = 1000
_OURS: Final = ("local", "none")
"""Sources of a cost that we can compute again; what a provider or a person stated stands."""

_INSERT: Final = (
    "INSERT INTO cost_adjustments (record_id, number, adjusted_at, old_cost_pusd, old_cost_status, old_price_basis,"
    " cost_pusd, cost_breakdown, cost_source, cost_status, price_basis, price_multipliers)"
    " SELECT :record_id, 1 + coalesce((SELECT max(number) FROM cost_adjustments WHERE record_id = :record_id), 0),"
    " :now,"
    " current_cost_pusd, current_cost_status, current_price_basis, CAST(:cost_pusd AS BIGINT), :cost_breakdown,"
    " :cost_source, :cost_status, :price_basis, :price_multipliers FROM current_costs WHERE record_id = :record_id"
    " AND current_cost_source IN ('local', 'none')"
    " AND (coalesce(current_cost_pusd, -1) <> coalesce(CAST(:cost_pusd AS BIGINT), -1)"
    " OR current_cost_status <> :cost_status)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """A call whose cost is now another: pico-USD, `None` where unpriced."""

    record_id: str
    provider: str
    model: str | None
    weight: int
    old_pusd: int | None
    old_status: str
    cost: Cost


def adjustments(
    connection: Asked,
    price: Callable[[Mapping[str, Any]], Cost],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    where: Mapping[str, str | None] = {},  # never written
    seen: Callable[[int], None] = lambda _: None,
) -> Iterator[Adjustment]:
    """The calls of a period whose cost differs from what `price` makes of their row. `seen` is told of rows looked at.

    Reads in batches, so that no transaction stays open. Raises `ValueError` for an unknown key in `where`.
    """
    conditions, values = conditions_of(connection, since, until, where)
    last = ""
    while True:
        rows = connection.execute(
            f"SELECT * FROM current_costs{conditions}{' AND' if conditions else ' WHERE'} record_id > ?"
            " ORDER BY record_id LIMIT ?",
            (*values, last, BATCH),
        ).fetchall()
        for row in rows:
            if row["current_cost_source"] not in _OURS:
                continue
            cost = price(row)
            if (cost.cost_pusd, cost.cost_status) != (row["current_cost_pusd"], row["current_cost_status"]):
                yield Adjustment(
                    record_id=row["record_id"],
                    provider=row["provider"],
                    model=row["response_model"] or row["request_model"],
                    weight=row["weight"],
                    old_pusd=row["current_cost_pusd"],
                    old_status=row["current_cost_status"],
                    cost=cost,
                )
        if not rows:
            return
        last = rows[-1]["record_id"]
        seen(len(rows))


def apply(ledger: SqliteLedger | PostgresLedger, found: Sequence[Adjustment]) -> int:
    """Write adjustments, in one transaction. Those that are there already write nothing; returns how many were new.

    Raises `SinkError`.
    """
    now = iso(datetime.now(UTC))
    rows = [{"record_id": each.record_id, "now": now, **cost_columns(each.cost)} for each in found]

    def write(connection: Asked) -> int:
        return sum(connection.execute(_INSERT, row).rowcount for row in rows)

    return ledger.write(write)
