"""One OpenTelemetry log record per usage record: event `spanledger.usage`, with the attribute names of our spans."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from spanledger import conventions
from spanledger.recording.sink import Row

EVENT: Final = "spanledger.usage"
RESOURCE: Final = (
    (conventions.SERVICE_NAME, "service_name"),
    (conventions.SERVICE_VERSION, "service_version"),
    (conventions.ENVIRONMENT, "environment"),
)
"""Resource attribute ← our column."""
ATTRIBUTES: Final = (
    (conventions.RECORD_ID, "record_id"),
    (conventions.OPERATION, "operation"),
    (conventions.PROVIDER, "provider"),
    (conventions.REQUEST_MODEL, "request_model"),
    (conventions.RESPONSE_MODEL, "response_model"),
    (conventions.RESPONSE_ID, "response_id"),
    (conventions.CONVERSATION_ID, "conversation_id"),
    (conventions.SERVER_ADDRESS, "server_address"),
    (conventions.ERROR_TYPE, "error_type"),
    (conventions.CALL_STATUS, "status"),
    (conventions.DURATION_MS, "duration_ms"),
    (conventions.FIRST_CHUNK_MS, "time_to_first_chunk_ms"),
    (conventions.WEIGHT, "weight"),
    *((attribute, column) for column, attribute in conventions.USAGE.items()),
    (conventions.USAGE_STATUS, "usage_status"),
    (conventions.COST_STATUS, "cost_status"),
    (conventions.COST_SOURCE, "cost_source"),
    (conventions.COST_BASIS, "price_basis"),
    (conventions.COST_CURRENCY, "currency"),
    (conventions.ATTRIBUTION_SOURCE, "attribution_source"),
    *((attribute, column) for column, attribute in conventions.ATTRIBUTION.items()),
)
"""Log attribute ← our column, left out where it is unknown."""


def resource_of(row: Row) -> dict[str, Any]:
    """The resource attributes of a record."""
    return {theirs: row[ours] for theirs, ours in RESOURCE if row.get(ours) is not None}


def attributes_of(row: Row) -> dict[str, Any]:
    """The log attributes of a record."""
    found = {theirs: row[ours] for theirs, ours in ATTRIBUTES if row.get(ours) is not None}
    found[conventions.REQUEST_STREAM] = bool(row.get("stream"))
    if row.get("finish_reasons"):
        found[conventions.FINISH_REASONS] = json.loads(row["finish_reasons"])
    if row.get("cost_pusd") is not None:
        found[conventions.COST_TOTAL] = row["cost_pusd"] / 1e12
        found[conventions.COST_PUSD] = row["cost_pusd"]
    for bucket, amount in json.loads(row.get("cost_breakdown") or "{}").items():
        part = conventions.COST_PARTS.get(bucket)
        if part is not None:
            found[part] = found.get(part, 0.0) + amount / 1e12
    metadata: Mapping[str, Any] = json.loads(row.get("metadata") or "{}")
    found.update({conventions.METADATA_PREFIX + key: value for key, value in metadata.items()})
    return {name: _plain(value) for name, value in found.items()}


def ended_ns(row: Row) -> int:
    """When the call ended, Unix time in ns."""
    started = datetime.fromisoformat(row["started_at"])
    return int(started.timestamp() * 1_000_000) * 1000 + (row.get("duration_ms") or 0) * 1_000_000


def by_resource(rows: Sequence[Row]) -> dict[tuple[tuple[str, Any], ...], list[Row]]:
    """Rows by the service they are of."""
    found: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(resource_of(row).items()), []).append(row)
    return found


def _plain(value: Any) -> Any:
    """What OTLP has a word for: the exporters drop an attribute that they can't encode."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [_plain(each) for each in value]
    if isinstance(value, (bool, float)) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()
