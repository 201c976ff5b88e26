"""OpenMeter: CloudEvents 1.0 in batches, `id` = record id, by which it recognises a repetition."""

from __future__ import annotations

import json
from typing import Any, Final

from spanledger.model import ATTRIBUTION_KEYS
from spanledger.recording.sink import Row

PATH: Final = "/api/v1/events"
CONTENT_TYPE: Final = "application/cloudevents-batch+json"
"""Without a charset: OpenMeter compares the whole header."""
TYPE: Final = "spanledger.usage"
FIELDS: Final = (
    "provider", "request_model", "response_model", "operation", "status", "service_name", "environment",
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_long_tokens",
    "reasoning_tokens", "input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens",
    "web_searches", "duration_ms", "cost_status", "cost_source", "weight", *ATTRIBUTION_KEYS,
)  # fmt: skip
"""Columns that become `data` fields under the same name, left out where they are unknown."""


def event(row: Row) -> dict[str, Any]:
    """The CloudEvent of one record. Its subject is the organization, else the user, else the service."""
    data = {name: row[name] for name in FIELDS if row.get(name) is not None}
    data["model"] = row.get("response_model") or row.get("request_model")
    if row.get("cost_pusd") is not None:
        data["cost_usd"] = row["cost_pusd"] / 1e12
    metadata = json.loads(row.get("metadata") or "{}")
    if metadata:
        data["metadata"] = metadata
    return {
        "specversion": "1.0",
        "id": row["record_id"],
        "source": row.get("service_name") or "spanledger",
        "type": TYPE,
        "subject": row.get("organization_id") or row.get("user_id") or row.get("service_name") or "spanledger",
        "time": row["started_at"],
        "datacontenttype": "application/json",
        "data": data,
    }
