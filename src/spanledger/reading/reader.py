"""From a finished span to what it tells of a model call. Runs on the writer's thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

from spanledger import conventions
from spanledger.context.scope import merge
from spanledger.model import (
    ATTRIBUTION_KEYS,
    MOST_OF_A_COUNT,
    NOBODY,
    PICO_USD,
    Attribution,
    Usage,
    UsageRecord,
    at,
    record_id_at,
)  # fmt: skip
from spanledger.pricing.hosts import provider_named
from spanledger.reading.dialect import Dialect
from spanledger.reading.values import Values
from spanledger.recording.telling import Telling

_MOST_OF_AN_ID: Final = 2**63
_NOTHING: Final[Mapping[str, Any]] = {}
_EXCEPTION_TYPE: Final = "exception.type"
_LAST_NS: Final = 253_402_300_799 * 10**9
"""The last second of the year 9999."""
_LONGEST_WAIT: Final = 86_400.0
_MOST_COST: Final = 10**6
"""USD; no call costs more, a larger figure is a mistake."""


def read(
    span: Any,
    dialect: Dialect,
    *,
    attributes: Mapping[str, Any] | None = None,
    attribution: Attribution = NOBODY,
    within: str | None = None,
) -> Telling | None:
    """What a finished span (`ReadableSpan`) of a billed call tells, `None` if another one tells it. The price is open.

    `attributes` are those to believe, where that is not just what the span has at its end. `attribution` is what was in
    force when it began; it wins over what the span says itself.
    """
    values = Values(attributes if attributes is not None else span.attributes or _NOTHING)
    scope = scope_of(span)
    word = dialect.word(span.name, values.attributes) or ""
    fields: dict[str, Any] = {name: values.text(names) for name, names in dialect.fields.items()}
    if fields["response_id"] is not None and fields["response_id"] == values.text(dialect.own_ids):
        fields["response_id"] = None
    fields["operation"] = dialect.operations[word]
    fields["server_address"] = _host(fields.get("server_address"))
    fields["provider"] = provider_named(
        fields.get("provider") or dialect.provider(scope, span.name), fields["server_address"]
    )
    status, error_type = _outcome(span, fields.get("error_type"))
    reasons = values.first((conventions.FINISH_REASONS,))
    context, parent = span.context, span.parent
    begun, ended = _times(span)
    usage = _usage(values, dialect, fields["operation"], fields["provider"])
    told_elsewhere = _any(values, dialect.in_pairs) and status == "success" and not fields["response_id"]
    if told_elsewhere and usage.usage_status == "missing":
        return None
    record = UsageRecord(
        **{
            **fields,
            "record_id": record_id_at(begun),
            "started_at": at(begun),
            "source": scope,
            "trace_id": f"{context.trace_id:032x}",
            "span_id": f"{context.span_id:016x}",
            "parent_span_id": None if parent is None else f"{parent.span_id:016x}",
            "duration_ns": ended - begun,
            "time_to_first_chunk_ns": _nanoseconds(values.first((conventions.TIME_TO_FIRST_CHUNK,))),
            "stream": values.first(dialect.stream) in (True, "true", "True"),
            "finish_reasons": tuple(map(str, reasons)) if isinstance(reasons, (tuple, list)) and reasons else None,
            "status": status,
            "error_type": error_type,
            "usage": usage,
            "claimed_cost_pusd": _claimed(values, dialect),
            "attribution": _attribution(values, dialect, attribution),
        }
    )
    return Telling(record, dialect.rank(scope), within)


def _times(span: Any) -> tuple[int, int]:
    """Begin and end in ns, within what a calendar holds; an end before the begin is the begin."""
    begun = min(max(span.start_time or 0, 0), _LAST_NS)
    return begun, max(begun, min(span.end_time or 0, _LAST_NS))


def _nanoseconds(seconds: Any) -> int | None:
    return round(seconds * 1e9) if isinstance(seconds, float) and 0 <= seconds < _LONGEST_WAIT else None


def scope_of(span: Any) -> str:
    """The name of the scope that made a span."""
    scope = getattr(span, "instrumentation_scope", None)
    return getattr(scope, "name", None) or "unknown"


def _host(address: str | None) -> str | None:
    """A host, also where they write a whole URL."""
    if address is None or "/" not in address:
        return address
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname
    except ValueError:
        return None


def _outcome(span: Any, error_type: str | None) -> tuple[str, str | None]:
    failed = error_type is not None or span.status.status_code.name == "ERROR"
    if not failed:
        return "success", None
    thrown = [event.attributes.get(_EXCEPTION_TYPE) for event in span.events or () if event.attributes]
    kind = error_type or next((each for each in reversed(thrown) if isinstance(each, str)), None)
    if kind is not None and kind.endswith(("CancelledError", "GeneratorExit", "KeyboardInterrupt")):
        return "cancelled", None
    return "error", kind or "_OTHER"


# Usage.


def _usage(values: Values, dialect: Dialect, operation: str, provider: str) -> Usage:
    counts: dict[str, Any] = {}
    broken = False
    for name, names in dialect.usage.items():
        value = values.first(names)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and 0 <= value <= MOST_OF_A_COUNT:
            counts[name] = value
        elif value is not None:
            broken = True
    if "input_tokens" not in counts and "uncached" in counts:
        cached = counts.get("cache_read_tokens", 0) + counts.get("cache_write_tokens", 0)
        counts["input_tokens"] = counts["uncached"] + cached
    total = counts.pop("total", None)
    counts.pop("uncached", None)
    guessed = _make_whole(counts, total, dialect, provider)
    for name, names in dialect.adds.items():
        more = values.first(names)
        if type(more) is int and more > 0:
            counts[name] = counts.get(name, 0) + more
    if any(count > MOST_OF_A_COUNT for count in counts.values()):
        return Usage(usage_status="invalid")
    needed = ("input_tokens",) if operation == conventions.EMBEDDINGS else ("input_tokens", "output_tokens")
    known = all(name in counts for name in needed)
    status = "invalid" if broken else "reported" if known else "partial" if counts else "missing"
    if operation != conventions.EMBEDDINGS and not any(counts.values()):
        return Usage(usage_status="invalid" if broken else "missing")  # all zero: nobody looked
    if status == "reported" and (guessed or _any(values, dialect.estimates)):
        status = "estimated"
    cached = counts.get("cache_read_tokens") or counts.get("cache_write_tokens")
    if status == "reported" and not cached and _any(values, dialect.leaves_out):
        status = "partial"
    return Usage(usage_status=status, **counts)


def _any(values: Values, those: Mapping[str, frozenset[object]]) -> bool:
    return any(_hashable(values.attributes.get(name)) in wanted for name, wanted in those.items())


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, bool, int)) else None


def _make_whole(counts: dict[str, int], total: int | None, dialect: Dialect, provider: str) -> bool:
    """Make input include cache, and output reasoning. True where the latter can only be concluded from the total."""
    given, answered = counts.get("input_tokens"), counts.get("output_tokens")
    cached = counts.get("cache_read_tokens", 0) + counts.get("cache_write_tokens", 0)
    if given is not None and cached and (_among(provider, dialect.exclusive) or cached > given):
        counts["input_tokens"] = given + cached
    thoughts = counts.get("reasoning_tokens", 0)
    if answered is not None and thoughts and (_among(provider, dialect.thoughts_apart) or thoughts > answered):
        counts["output_tokens"] = answered + thoughts
    elif answered is not None and given is not None and _among(provider, dialect.thoughts_apart):
        concluded = (total or 0) - counts["input_tokens"]
        counts["output_tokens"] = max(answered, concluded)
        return concluded > answered
    return False


def _among(provider: str, providers: frozenset[str]) -> bool:
    return bool(providers) and (provider in providers or "*" in providers)


def _claimed(values: Values, dialect: Dialect) -> int | None:
    """Their cost in pico-USD. Zero says nothing: they write it for what they have no price for."""
    value = values.first(dialect.costs)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        amount = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        return None
    return (round(amount * PICO_USD) or None) if amount.is_finite() and 0 < amount < _MOST_COST else None


# Whose.


def _attribution(values: Values, dialect: Dialect, in_force: Attribution) -> Attribution:
    said: dict[str, Any] = {}
    for key, names in dialect.attribution.items():
        value = values.first(names)
        if key == "metadata":
            said.update(_members(value))
        elif isinstance(value, str) or (type(value) is int and abs(value) < _MOST_OF_AN_ID):
            said[key] = value
    for start in dialect.properties:
        for name, value in values.attributes.items():
            if name.startswith(start) and _is_said(name[len(start) :], value):
                said.setdefault(name[len(start) :], _unquoted(value))
    if not said:
        return in_force
    own = {key: value for key in ATTRIBUTION_KEYS if (value := getattr(in_force, key)) is not None}
    whole = merge(NOBODY, {**said, **own})
    if in_force.metadata:
        whole = whole._replace(metadata={**(whole.metadata or {}), **in_force.metadata})
    return whole._replace(attribution_source=in_force.attribution_source if own else "span")


def _members(value: Any) -> Mapping[str, Any]:
    """Metadata written as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(value, Mapping):
        return {}
    return {str(name): each for name, each in value.items() if _is_said(str(name), each)}


def _is_said(name: str, value: Any) -> bool:
    """Whether it is something the application says; `ls_` and `lc_` is what LangChain says of itself."""
    if name.startswith(("ls_", "lc_")):
        return False
    return value not in (None, "", "null") and (type(value) is not int or abs(value) < _MOST_OF_AN_ID)


def _unquoted(value: Any) -> Any:
    """Langfuse writes each value as JSON."""
    if isinstance(value, str) and value[:1] == value[-1:] == '"' and len(value) > 1:
        return value[1:-1]
    return value
