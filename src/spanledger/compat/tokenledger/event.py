"""TokenLedger's event: a call that its program reports itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Self

from spanledger import conventions
from spanledger.model import now_ns, record_id_at
from spanledger.pricing.hosts import provider_named

_STATUSES: Final = {"success": "success", "error": "error", "timeout": "error", "cancelled": "cancelled"}
"""Their status → ours."""
_COUNTS: Final = ("input_tokens", "output_tokens", "cached_tokens")
_OPERATIONS: Final = {
    "chat": conventions.CHAT,
    "chat_stream": conventions.CHAT,
    "completion": conventions.TEXT_COMPLETION,
    "embedding": conventions.EMBEDDINGS,
}
"""Their `request_type` → our operation; another one is kept as it is."""
_WHOSE: Final = ("user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center")


@dataclass(kw_only=True)
class LLMEvent:
    """A model call. Raises `ValueError` for counts, durations and statuses that are none.

    Prompt and answer are no part of it: what is given as `request_preview` or `response_preview` is not kept, and of an
    error only its type.
    """

    provider: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    total_tokens: int = 0
    """Always input and output together."""
    cost_usd: Any = None
    """A stated cost in USD; without one the price list tells it."""
    duration_ms: float | None = None
    status: str = "success"
    error_type: str | None = None
    error_message: str | None = None
    request_type: str = "chat"
    endpoint: str | None = None
    timestamp: datetime | None = None
    event_id: str = field(default_factory=lambda: record_id_at(now_ns()))
    """An event that is tracked twice is kept once."""
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    organization_id: str | None = None
    app_name: str | None = None
    environment: str | None = None
    feature: str | None = None
    page: str | None = None
    component: str | None = None
    team: str | None = None
    project: str | None = None
    cost_center: str | None = None
    metadata: Mapping[str, Any] | None = None
    metadata_extra: Mapping[str, Any] | None = None
    request_preview: str | None = None
    response_preview: str | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} is a whole number of tokens, not {count!r}")
        if self.duration_ms is not None and not 0 <= self.duration_ms < math.inf:
            raise ValueError(f"duration_ms is a number of milliseconds, not {self.duration_ms!r}")
        if self.status not in _STATUSES:
            raise ValueError(f"status is one of {', '.join(_STATUSES)}, not {self.status!r}")
        if isinstance(self.timestamp, str):
            self.timestamp = datetime.fromisoformat(self.timestamp)
        for name in ("metadata", "metadata_extra"):
            if not isinstance(getattr(self, name), (Mapping, type(None))):
                raise ValueError(f"{name} is a mapping, not {getattr(self, name)!r}")  # noqa: TRY004  # as for the others
        self.total_tokens = self.input_tokens + self.output_tokens

    @classmethod
    def fast_construct(cls, **values: Any) -> Self:
        """The same without checks. What is no count makes the usage of its row `invalid`.

        Raises `TypeError` for a field there is none of.
        """
        event = object.__new__(cls)
        own = event.__dict__
        own.update(_DEFAULTS)
        own.update(values)
        if len(own) > len(_DEFAULTS):
            raise TypeError(f"an event has no {', '.join(sorted(own.keys() - _DEFAULTS.keys()))}")
        if "event_id" not in values:
            own["event_id"] = record_id_at(now_ns())
        counts = own["input_tokens"], own["output_tokens"]
        own["total_tokens"] = sum(each for each in counts if isinstance(each, int))
        return event

    def said(self) -> dict[str, Any]:
        """The event as `track` takes it."""
        said: dict[str, Any] = {name: value for name in _WHOSE if (value := getattr(self, name)) is not None}
        extra = {**_mapping(self.metadata), **_mapping(self.metadata_extra)}
        kind = str(self.request_type or "chat")
        extra |= {name: value for name in ("page", "component") if (value := getattr(self, name)) is not None}
        said |= {
            "provider": provider_named(str(self.provider), None),
            "model": self.model,
            "operation": _OPERATIONS.get(kind, kind),
            "stream": kind.endswith("_stream"),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.cost_usd,
            "duration_ms": self.duration_ms,
            "started_at": _aware(self.timestamp) if isinstance(self.timestamp, datetime) else None,
            "status": _STATUSES.get(self.status, "incomplete"),
            "error_type": self.error_type or ("timeout" if self.status == "timeout" else None),
            "server_address": self.endpoint,
            "metadata": extra or None,
        }
        if self.cached_tokens:
            said["cache_read_tokens"] = self.cached_tokens
        return said


_DEFAULTS: Final = {each.name: None if each.name == "event_id" else each.default for each in fields(LLMEvent)}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
