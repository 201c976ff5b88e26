"""Rows from one ledger into another, and from somebody's TokenLedger into ours. A row that is there stays one row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from spanledger.ledger.rows import COLUMNS, Asked
from spanledger.model import PICO_USD, compact_json

if TYPE_CHECKING:
    from spanledger.ledger.postgres import PostgresLedger
    from spanledger.ledger.sqlite import SqliteLedger

_BATCH: Final = 2000
_ADJUSTMENT: Final = (
    "record_id", "number", "adjusted_at", "old_cost_pusd", "old_cost_status", "old_price_basis", "cost_pusd",
    "cost_breakdown", "cost_source", "cost_status", "price_basis", "price_multipliers",
)  # fmt: skip
_ADJUST: Final = (
    f"INSERT INTO cost_adjustments ({', '.join(_ADJUSTMENT)}) VALUES ({', '.join('?' * len(_ADJUSTMENT))})"
    " ON CONFLICT (record_id, number) DO NOTHING"
)
TABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


def copy(source: Asked, target: SqliteLedger | PostgresLedger, seen: Callable[[int], None]) -> int:
    """Copy all records and adjustments; how many records. `seen` is told of each batch. Raises `SinkError`."""
    total = 0
    for rows in _batches(source, "usage_records", ("record_id",)):
        target.send([{name: row[name] for name in (*COLUMNS, "recorded_at")} for row in rows])
        total += len(rows)
        seen(len(rows))
    for rows in _batches(source, "cost_adjustments", ("record_id", "number")):
        values = [tuple(row[name] for name in _ADJUSTMENT) for row in rows]
        target.write(lambda asked, values=values: [asked.execute(_ADJUST, each) for each in values])  # type: ignore[misc]
    return total


def _batches(source: Asked, table: str, key: tuple[str, ...]) -> Iterator[list[Any]]:
    """The rows of a table in batches, in the order of its key, so that no statement holds all of them."""
    names, last = ", ".join(key), None
    while True:
        where = "" if last is None else f" WHERE ({names}) > ({', '.join('?' * len(key))})"
        statement = f"SELECT * FROM {table}{where} ORDER BY {names} LIMIT ?"
        rows = source.execute(statement, (*(last or ()), _BATCH)).fetchall()
        if not rows:
            return
        yield rows
        last = tuple(rows[-1][name] for name in key)


# TokenLedger: its column → ours. Previews of prompts and answers, and messages of errors, are left where they are.

_THEIRS: Final = {
    "event_id": "record_id", "provider": "provider", "input_tokens": "input_tokens", "output_tokens": "output_tokens",
    "cached_tokens": "cache_read_tokens", "user_id": "user_id", "session_id": "session_id",
    "organization_id": "organization_id", "feature": "feature", "team": "team", "project": "project",
    "cost_center": "cost_center", "app_name": "service_name", "environment": "environment", "error_type": "error_type",
    "model": "response_model",
}  # fmt: skip
_OPERATIONS: Final = {"chat_stream": "chat", "embedding": "embeddings"}
_STATUSES: Final = ("success", "error", "cancelled", "incomplete")


def import_token_ledger(
    source: Asked, table: str, target: SqliteLedger | PostgresLedger, seen: Callable[[int], None]
) -> int:
    """Copy the events of a TokenLedger table; how many. Their costs keep their source, `manual`. Raises `SinkError`."""
    total, offset = 0, 0
    while True:
        statement = f"SELECT * FROM {table} ORDER BY event_id LIMIT ? OFFSET ?"
        rows = source.execute(statement, (_BATCH, offset)).fetchall()
        if not rows:
            return total
        target.send([_record(dict(zip(row.keys(), row, strict=True))) for row in rows])
        total += len(rows)
        offset += len(rows)
        seen(len(rows))


def _record(event: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update({ours: event.get(theirs) for theirs, ours in _THEIRS.items()})
    row["record_id"] = str(row["record_id"])
    kind = str(event.get("request_type") or "chat").strip("'")  # its migrations quote the default twice
    row["operation"] = _OPERATIONS.get(kind, kind)
    row["stream"] = int(kind == "chat_stream")
    row["started_at"] = event["timestamp"]
    row["duration_ms"] = None if event.get("duration_ms") is None else round(event["duration_ms"])
    for name in ("trace_id", "span_id", "parent_span_id"):
        row[name] = str(event[name]).replace("-", "") if event.get(name) else None
    status = str(event.get("status") or "success").strip("'")  # as above
    row["status"] = status if status in _STATUSES else "error"
    cost = event.get("cost_usd")
    row["cost_pusd"] = None if cost is None else int(Decimal(str(cost)) * PICO_USD)
    row["currency"] = None if cost is None else "USD"
    row["cost_source"] = "none" if cost is None else "manual"
    row["cost_status"] = "unpriced" if cost is None else "priced"
    row.update(source="tokenledger", usage_status="reported", weight=1)
    metadata = {**_document(event.get("metadata")), **_document(event.get("metadata_extra"))}
    metadata.update({name: event[name] for name in ("page", "component", "endpoint") if event.get(name)})
    row["metadata"] = compact_json(metadata) if metadata else None
    return row


def _document(value: Any) -> dict[str, Any]:
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, dict) else {}
