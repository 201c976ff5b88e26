"""The nouns: `Usage`, `Cost`, `Attribution`, `UsageRecord`.

They are frozen. Unknown is `None`; 0 means "reported as none". Tokens are `int`, money is `int` pico-USD (10⁻¹² USD),
time is aware UTC.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from decimal import Decimal

Status = Literal["success", "error", "cancelled", "incomplete"]
PICO_USD: Final = 10**12
MOST_OF_A_COUNT: Final = 10**9
"""No call uses more of anything; a larger count is a broken answer, not a bill."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one call used, as the provider reported it, in OpenTelemetry's meaning.

    Input includes cache reads and writes, output includes reasoning. `other` holds counts without a field of their own
    under genai-prices' usage keys (`storage_searches`, `audio_seconds`, …).
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_long_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    output_image_tokens: int | None = None
    web_searches: int | None = None
    other_usage: Mapping[str, int] | None = None
    usage_status: str = "missing"
    """`reported`, `partial`, `missing`, `estimated` or `invalid`."""


class Cost(NamedTuple):
    """What one call cost: int pico-USD; `cost_breakdown` by bucket, its parts always sum to `cost_pusd`.

    Made on the caller's thread; a frozen dataclass takes three times as long to make as a tuple.
    """

    cost_pusd: int | None = None
    cost_breakdown: Mapping[str, int] | None = None
    currency: str | None = None
    cost_source: str = "none"
    """`provider`, `local`, `manual` or `none`."""
    cost_status: str = "unpriced"
    """`priced`, `partial` (not the whole figure), `unpriced` or `free`."""
    price_basis: str | None = None
    """The price lists it was computed with, each with its version or digest."""
    price_multipliers: Mapping[str, str] | None = None
    """Multipliers in it, by label: contract discounts, regional uplifts."""
    local_cost_pusd: int | None = None
    """Our own figure where the cost is the provider's: the difference tells of stale prices."""

    def stated(self, pusd: int) -> Cost:
        """The cost that the provider states, with this one beside it."""
        return Cost(
            cost_pusd=pusd,
            cost_breakdown={"stated": pusd} if pusd else {},
            currency="USD",
            cost_source="provider",
            cost_status="priced" if pusd else "free",
            price_basis=self.price_basis,
            local_cost_pusd=self.cost_pusd,
        )


UNPRICED: Final = Cost()


class Attribution(NamedTuple):
    """Whose a call is. `metadata` holds every other key the application gave.

    Made by every scope; a frozen dataclass takes four times as long to make as a tuple.
    """

    user_id: str | None = None
    session_id: str | None = None
    organization_id: str | None = None
    feature: str | None = None
    team: str | None = None
    project: str | None = None
    cost_center: str | None = None
    message_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    attribution_source: str | None = "scope"
    """How it is known, one of `ATTRIBUTION_SOURCES`; `None` where nobody is known."""


NOBODY: Final = Attribution(attribution_source=None)
ATTRIBUTION_KEYS: Final = Attribution._fields[:-2]
ATTRIBUTION_SOURCES: Final = {
    "scope": "the application opened a scope",
    "headers": "a trusted proxy's headers, which the application asked for",
    "unverified_headers": "headers that anybody can send, which the application asked for",
    "baggage": "baggage of a trusted peer, which the application asked for",
    "span": "attributes of the span that told of the call",
    "request": "the user in the request to the provider, which a setting asked for",
    "late": "a scope that had ended when the job it was captured for made the call",
    "outlived": "nobody, for the task had outlived the scope it was started in; what outer scopes say holds",
}
"""How an attribution is known → what that means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One model call: the row of the ledger, before it is one."""

    record_id: str
    started_at: datetime
    operation: str
    provider: str
    source: str
    """The instrumentation scope that told of the call."""
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    response_id: str | None = None
    duration_ns: int | None = None
    time_to_first_chunk_ns: int | None = None
    request_model: str | None = None
    response_model: str | None = None
    server_address: str | None = None
    stream: bool = False
    attempts: int | None = None
    """HTTP requests the SDK made for the call, 1 without a retry; `None` where it does not tell."""
    finish_reasons: tuple[str, ...] | None = None
    service_tier: str | None = None
    conversation_id: str | None = None
    price_context: Mapping[str, str] | None = None
    """What the price depends on besides model and moment, as the provider said it: `service_tier`, `speed`, …"""
    status: Status = "success"
    error_type: str | None = None
    service_name: str | None = None
    service_version: str | None = None
    environment: str | None = None
    weight: int = 1
    told_by: tuple[str, ...] | None = None
    """Where several told of the call: the scope of each, in order."""
    merged_by: str | None = None
    """By what it was known that they told of one call: `span`, `response_id`, `nesting`, `counts` or `time`. The last
    two are likely, not certain."""
    claimed_cost_pusd: int | None = None
    """What another teller's span says the call cost."""
    raw_usage: Mapping[str, Any] | None = None
    """The provider's usage object: names and numbers, so that it can be read again."""
    usage_shape: str | None = None
    """The table it was read by, one of `spanledger.usage.shapes`."""
    clock_suspect: bool | None = None
    """Whether its time can't be right: more than 5 minutes ahead or 35 days behind when it was delivered. It is set by
    the delivery; the time itself is never changed."""
    usage: Usage = field(default_factory=Usage)
    cost: Cost | None = None
    """`None` until the call has been priced."""
    attribution: Attribution = NOBODY

    @property
    def model(self) -> str | None:
        """The model that answered, else the one that was asked for."""
        return self.response_model or self.request_model

    @property
    def cost_usd(self) -> Decimal | None:
        """The cost in USD with 12 decimals, `None` if unpriced."""
        from decimal import Decimal  # noqa: PLC0415  # 10 ms that a process without calls should not pay

        if self.cost is None or self.cost.cost_pusd is None:
            return None
        return Decimal(self.cost.cost_pusd).scaleb(-12)


_NESTED: Final = ("usage", "cost", "attribution")
AS_JSON: Final = (
    "cost_breakdown", "price_multipliers", "price_context", "other_usage", "metadata", "raw_usage", "finish_reasons",
    "told_by",
)  # fmt: skip
"""Columns that hold JSON, as text."""


def row_of(record: UsageRecord) -> dict[str, Any]:
    """The record as one flat row under the ledger's column names, JSON-serialisable.

    Times are ISO-8601 UTC text with microseconds, durations whole milliseconds, JSON columns text.
    """
    row = dict.fromkeys(COLUMNS)
    for holder, names, values in _PARTS:
        part = record if holder is None else getattr(record, holder)
        if part is not None:
            row.update(zip(names, values(part), strict=True))
    row["duration_ms"] = _milliseconds(record.duration_ns)
    row["time_to_first_chunk_ms"] = _milliseconds(record.time_to_first_chunk_ns)
    row["started_at"] = iso(record.started_at)
    row["stream"] = int(record.stream)
    for name in AS_JSON:
        if row[name] is not None:
            row[name] = compact_json(row[name])
    return row


def usage_of_row(row: Mapping[str, Any]) -> Usage:
    """The usage of a row that `row_of` has made."""
    counts = {each.name: row[each.name] for each in fields(Usage)}
    counts["other_usage"] = None if row["other_usage"] is None else json.loads(row["other_usage"])
    return Usage(**counts)


def cost_columns(cost: Cost) -> dict[str, Any]:
    """A cost under the ledger's column names, as `row_of` spells it."""
    columns = cost._asdict()
    for name in ("cost_breakdown", "price_multipliers"):
        if columns[name] is not None:
            columns[name] = compact_json(columns[name])
    return columns


def _milliseconds(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else (nanoseconds + 500_000) // 1_000_000


_OWN = tuple(each.name for each in fields(UsageRecord) if each.name not in _NESTED and not each.name.endswith("_ns"))
_PARTS: Final[tuple[tuple[str | None, tuple[str, ...], Callable[[Any], Any]], ...]] = tuple(
    (holder, names, attrgetter(*names))
    for holder, names in (
        (None, _OWN),
        ("usage", tuple(each.name for each in fields(Usage))),
        ("cost", Cost._fields),
        ("attribution", Attribution._fields),
    )
)
COLUMNS: Final = (*(name for _, names, _ in _PARTS for name in names), "duration_ms", "time_to_first_chunk_ms")
"""The ledger's columns, `recorded_at` apart, which the ledger itself fills."""


def compact_json(value: Any) -> str:
    """JSON text without spaces, plain mappings only, NaN refused."""
    return _encode(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


_encode: Final = json.JSONEncoder(separators=(",", ":"), default=_plain, allow_nan=False).encode


def iso(moment: datetime) -> str:
    """ISO-8601 UTC text with microseconds, which sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def iso_at(unix_seconds: float) -> str:
    """The same for a Unix time in seconds."""
    return iso(_EPOCH + timedelta(seconds=unix_seconds))


def at(unix_ns: int) -> datetime:
    """Aware UTC time of a Unix time in ns, exact to the microsecond."""
    return _EPOCH + timedelta(microseconds=unix_ns // 1000)


def record_id_at(unix_ns: int) -> str:
    """A new UUIDv7 (RFC 9562) for a call that starts at that Unix time in ns."""
    return _uuid7(unix_ns // 1_000_000, int.from_bytes(os.urandom(10), "big"))


def record_id_for(created_at: float, *parts: str) -> str:
    """The UUIDv7 that everybody derives who sees the same thing: its creation time (Unix seconds) and what names it."""
    from hashlib import sha256  # noqa: PLC0415  # loads OpenSSL

    digest = sha256("\0".join(parts).encode("utf-8", "backslashreplace")).digest()
    return _uuid7(int(created_at * 1000), int.from_bytes(digest[:10], "big"))


def _uuid7(unix_ms: int, entropy: int) -> str:
    number = (
        (unix_ms & 0xFFFF_FFFF_FFFF) << 80
        | 0x7000 << 64
        | (entropy >> 62 & 0x0FFF) << 64
        | 0x8 << 60
        | entropy & 0x0FFF_FFFF_FFFF_FFFF
    )
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def now_ns() -> int:
    """Unix time in ns."""
    return time.time_ns()
