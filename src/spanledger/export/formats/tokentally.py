"""The TokenTally API (`POST {base}/api/usage`): one object per record, numbers as numbers.

Wire format: the `tokentally` package 0.4.0. Its counts are Anthropic's: `tokens_in` without what was read from or
written to a cache, which have fields of their own.
"""

from __future__ import annotations

import json
from typing import Any, Final

from spanledger.model import ATTRIBUTION_KEYS
from spanledger.recording.sink import Row

PATH: Final = "/api/usage"
DIRECT: Final = (("runtime_ms", "duration_ms"), ("timestamp", "started_at"), ("error_message", "error_type"))
"""Their field ← our column, left out where it is unknown. The message of an error is never kept, its type is."""
CACHE: Final = (
    ("cache_read_input_tokens", "cache_read_tokens"),
    ("cache_creation_input_tokens", "cache_write_tokens"),
)
"""The same, sent only above zero."""
METADATA: Final = (("application", "service_name"), ("environment", "environment"))


def body(row: Row) -> dict[str, Any]:
    """The request for one record."""
    cached = sum(row.get(column) or 0 for _, column in CACHE)
    finish = json.loads(row.get("finish_reasons") or "[]")
    sent: dict[str, Any] = {
        "tokens_in": max(0, (row.get("input_tokens") or 0) - cached),
        "tokens_out": row.get("output_tokens") or 0,
        "model": row.get("response_model") or row.get("request_model") or "",
        "provider": row["provider"],
        "metadata": _metadata(row),
    }
    if row.get("cost_pusd") is not None:
        sent["cost_usd"] = row["cost_pusd"] / 1e12
    sent.update({theirs: row[ours] for theirs, ours in CACHE if row.get(ours)})
    sent.update({theirs: row[ours] for theirs, ours in DIRECT if row.get(ours) is not None})
    if finish:
        sent["stop_reason"] = finish[0]
    return sent


def _metadata(row: Row) -> dict[str, Any]:
    own = json.loads(row.get("metadata") or "{}")
    whose = {key: row[key] for key in ATTRIBUTION_KEYS if row.get(key) is not None}
    where = {theirs: row[ours] for theirs, ours in METADATA if row.get(ours) is not None}
    return {**where, **own, **whose}
