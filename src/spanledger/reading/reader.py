"""From a finished span to a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spanledger import conventions
from spanledger.context.scope import merge
from spanledger.model import MOST_OF_A_COUNT, NOBODY, Usage, UsageRecord, at, record_id_at
from spanledger.reading.dialects import semconv

OURS = "spanledger"


def read(span: Any) -> UsageRecord | None:
    """The record of a finished span (`ReadableSpan`), `None` if it tells of no billed call or is one of our own.

    The price is left open.
    """
    attributes: Mapping[str, Any] = span.attributes or {}
    scope = getattr(span.instrumentation_scope, "name", None) or "unknown"
    fields = {name: _first(attributes, names) for name, names in semconv.FIELDS.items()}
    if scope == OURS or fields["operation"] not in semconv.OPERATIONS or not fields["provider"]:
        return None
    span_context, parent = span.context, span.parent
    reasons = attributes.get(conventions.FINISH_REASONS)
    first_chunk = attributes.get(conventions.TIME_TO_FIRST_CHUNK)
    return UsageRecord(
        record_id=record_id_at(span.start_time),
        started_at=at(span.start_time),
        source=scope,
        trace_id=f"{span_context.trace_id:032x}",
        span_id=f"{span_context.span_id:016x}",
        parent_span_id=None if parent is None else f"{parent.span_id:016x}",
        duration_ns=span.end_time - span.start_time,
        time_to_first_chunk_ns=round(first_chunk * 1e9) if isinstance(first_chunk, float) else None,
        stream=attributes.get(conventions.REQUEST_STREAM) is True,
        finish_reasons=tuple(str(each) for each in reasons) if isinstance(reasons, (tuple, list)) and reasons else None,
        status="error" if fields["error_type"] else "success",
        usage=_usage(attributes, fields["operation"]),
        attribution=merge(
            NOBODY,
            {
                key: value
                for key, name in conventions.ATTRIBUTION.items()
                if (value := attributes.get(name)) is not None
            },
        ),
        **fields,
    )


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    found = next((attributes[name] for name in names if attributes.get(name) is not None), None)
    return found if isinstance(found, str) else None


def _usage(attributes: Mapping[str, Any], operation: Any) -> Usage:
    counts: dict[str, Any] = {}
    broken = False
    for field, names in semconv.USAGE.items():
        value = next((attributes[name] for name in names if attributes.get(name) is not None), None)
        if value is None:
            continue
        if type(value) is int and 0 <= value <= MOST_OF_A_COUNT:
            counts[field] = value
        else:
            broken = True
    needed = ("input_tokens",) if operation == conventions.EMBEDDINGS else ("input_tokens", "output_tokens")
    known = all(name in counts for name in needed)
    status = "invalid" if broken else "reported" if known else "partial" if counts else "missing"
    return Usage(usage_status=status, **counts)
