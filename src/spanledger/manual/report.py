"""A record of what an application says of a call: `track(...)`, and each report of `track_usage`."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final, get_args

from opentelemetry import trace

from spanledger import conventions
from spanledger.context.scope import current, merge
from spanledger.context.values import identifier
from spanledger.model import (
    ATTRIBUTION_KEYS,
    PICO_USD,
    Cost,
    Status,
    Usage,
    UsageRecord,
    at,
    now_ns,
    record_id_at,
)
from spanledger.pricing.hosts import spelled
from spanledger.usage.paths import plain
from spanledger.usage.shape import Reader
from spanledger.usage.shapes.others import MANUAL
from spanledger.usage.stated import amount

SOURCE: Final = "spanledger.manual"
"""Who tells of a call that the application reports."""
UNKNOWN: Final = "unknown"
_COUNTS: Final = tuple(each.name for each in fields(Usage) if each.name != "usage_status")
_WHOSE: Final = (*ATTRIBUTION_KEYS, "metadata", "label")
_TEXTS: Final = (
    "request_model", "response_model", "service_tier", "conversation_id", "response_id", "server_address",
)  # fmt: skip
_OTHERS: Final = (
    "provider", "model", "operation", "cost_usd", "started_at", "duration_ms", "time_to_first_chunk_ms", "status",
    "error_type", "finish_reasons", "stream",
)  # fmt: skip
COLUMNS: Final = frozenset((*_COUNTS, *_WHOSE, *_TEXTS, *_OTHERS))
"""What a report may say."""
SAYS: Final = frozenset((*_COUNTS, "cost_usd"))
"""What makes a report one of usage."""
_WRITES: Final = (conventions.CHAT, conventions.TEXT_COMPLETION, "generate_content")
"""Operations whose usage lacks something without both counts."""
_NS: Final = 1_000_000
_LONGEST_NS: Final = 366 * 86_400 * 10**9
"""Nothing takes longer; a larger number is a mistake."""
_FIRST_YEAR, _LAST_YEAR = 1971, 9000
_NAME: Final = re.compile(r"\w{1,64}")
_READER: Final = Reader(MANUAL)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a reported call began, Unix time in ns, and how long it took."""

    started_ns: int
    duration_ns: int | None


def checked(said: Mapping[str, Any]) -> None:
    """Raise `TypeError` for a name that a report can't have, `ValueError` for what is never right."""
    unknown = sorted(said.keys() - COLUMNS)
    if unknown:
        raise TypeError(f"a call has no {', '.join(unknown)}; it may have {', '.join(sorted(COLUMNS))}")
    if said.get("status", "success") not in get_args(Status):
        raise ValueError(f"status is one of {', '.join(get_args(Status))}, not {said['status']!r}")
    started_at = said.get("started_at")
    if started_at is not None and not _is_moment(started_at):
        raise ValueError("started_at is an aware datetime: datetime.now(UTC), not datetime.utcnow()")


def _is_moment(found: Any) -> bool:
    return isinstance(found, datetime) and found.tzinfo is not None and _FIRST_YEAR <= found.year < _LAST_YEAR


def moment_of(said: Mapping[str, Any]) -> Moment:
    """When the call began that is reported now: when it says, else as long ago as it took."""
    duration = _nanoseconds(said.get("duration_ms"))
    started_at = said.get("started_at")
    if started_at is None:
        return Moment(now_ns() - (duration or 0), duration)
    return Moment(int(started_at.timestamp() * 1_000_000) * 1000, duration)


def record_of(said: Mapping[str, Any], moment: Moment, record_id: str | None = None) -> UsageRecord:
    """The record of a report whose names are `checked`. A count that is none makes the usage `invalid`."""
    operation = identifier(said.get("operation") or conventions.CHAT) or conventions.CHAT
    usage = usage_of(said, operation)
    raw = {name: said[name] for name in _COUNTS if said.get(name) is not None}
    status = said.get("status", "success")
    texts: dict[str, Any] = {name: identifier(said[name]) for name in _TEXTS if said.get(name) is not None}
    if said.get("model") is not None:
        texts.setdefault("request_model", identifier(said["model"]))
    reasons = said.get("finish_reasons")
    around = trace.get_current_span().get_span_context()
    return UsageRecord(
        **texts,
        operation=operation,
        error_type=identifier(said.get("error_type") or "error") if status == "error" else None,
        record_id=record_id or record_id_at(moment.started_ns),
        started_at=at(moment.started_ns),
        provider=spelled(identifier(said.get("provider") or UNKNOWN) or UNKNOWN),
        source=SOURCE,
        trace_id=f"{around.trace_id:032x}" if around.is_valid else None,
        parent_span_id=f"{around.span_id:016x}" if around.is_valid else None,
        duration_ns=moment.duration_ns,
        time_to_first_chunk_ns=_nanoseconds(said.get("time_to_first_chunk_ms")),
        stream=bool(said.get("stream")),
        finish_reasons=_reasons(reasons),
        status=status,
        raw_usage=plain(raw) if raw else None,
        usage_shape=MANUAL.name if raw else None,
        usage=usage,
        cost=cost_of(said.get("cost_usd")),
        attribution=merge(current(), whose(said)),
    )


def whose(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of attribution; its label is one of the metadata."""
    found = {name: said[name] for name in (*ATTRIBUTION_KEYS, "metadata") if said.get(name) is not None}
    if said.get("label") is not None:
        held = found.get("metadata")
        found["metadata"] = {**(held if isinstance(held, Mapping) else {}), "label": said["label"]}
    return found


def usage_of(said: Mapping[str, Any], operation: str = conventions.CHAT) -> Usage:
    """The usage that a report states."""
    counts = {name: _whole(said[name]) for name in _COUNTS if name != "other_usage" and said.get(name) is not None}
    given = said.get("other_usage") or {}
    items = {str(name): _whole(count) for name, count in given.items()} if isinstance(given, Mapping) else {"?": None}
    known = {
        name: count for name, count in items.items() if type(count) is int and count >= 0 and _NAME.fullmatch(name)
    }
    usage = _READER.usage(counts or None, known)
    if len(known) < len(items):
        return replace(usage, usage_status="invalid")
    lacks = (usage.input_tokens is None) != (usage.output_tokens is None)
    if lacks and operation in _WRITES and usage.usage_status == "reported":
        return replace(usage, usage_status="partial")
    return usage


def cost_of(cost_usd: Any) -> Cost | None:
    """A stated cost; `None` where none is stated, and for what is no amount."""
    pusd = None if cost_usd is None else amount(cost_usd, PICO_USD)
    if pusd is None:
        return None
    status = "priced" if pusd else "free"
    return Cost(pusd, {"stated": pusd} if pusd else {}, "USD", "manual", status)


def _whole(count: Any) -> Any:
    """A count of any integer type as an `int`; anything else as it is, which is no count."""
    if isinstance(count, bool):
        return str(count)
    try:
        return operator.index(count)
    except TypeError:
        return count


def _nanoseconds(milliseconds: Any) -> int | None:
    try:
        found = None if milliseconds is None else max(0, round(milliseconds * _NS))
    except (TypeError, ValueError, OverflowError):  # no number, or none that is one
        return None
    return None if found is None or found > _LONGEST_NS else found


def _reasons(reasons: Any) -> tuple[str, ...] | None:
    if not reasons:
        return None
    return tuple(str(each) for each in reasons) if isinstance(reasons, (list, tuple)) else (str(reasons),)
