"""Where reports by hand are taken: priced, shown as a span where nothing else shows the call, and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from spanledger import conventions
from spanledger.attributes import Written, attribution_attributes, cost_attributes, usage_attributes
from spanledger.context.scope import bracket_here
from spanledger.guard import failed
from spanledger.manual.block import heard_cost
from spanledger.manual.report import checked, moment_of, record_of
from spanledger.model import UsageRecord
from spanledger.pricing.loader import Prices
from spanledger.recording.bracket import Bracket, forget, recent
from spanledger.recording.telling import Rank, Telling, facts_heard, facts_of, reports


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What a report needs."""

    tracer: Tracer
    prices: Prices
    price: Callable[[UsageRecord], UsageRecord]
    """The record with its price; waits for the price list, some 0.5 s the first time."""
    record: Callable[[Callable[[], Any]], None]
    span_keys: tuple[Written, ...]
    engine: object
    """Whose calls may be described after they have ended."""

    def track(self, said: dict[str, Any], record_id: str | None = None) -> UsageRecord:
        """Record a call that nobody else sees; the record with its price.

        Raises `TypeError` for a name there is none of, `ValueError` for a moment or status that is none.
        """
        checked(said)
        record = record_of(said, moment_of(said), record_id)
        try:
            record = self._shown(self.price(record))
        except Exception as error:  # noqa: BLE001  # a door
            failed("the price of a report", error)
        self.take(record, None)
        return record

    def describe(self, said: dict[str, Any]) -> UsageRecord | None:
        """Report a call that has ended here and was seen; the record with its cost. `None` where none was.

        Raises as `track` does.
        """
        checked(said)
        record = record_of(said, moment_of(said))
        here = bracket_here()
        if here is not None:
            return self.report(record, here, ended=True)
        report = facts_of(Telling(record, Rank.MANUAL))
        for bracket in reversed(recent.get()):
            if bracket.implicit is self.engine and any(
                reports(report, facts_heard(heard, report)) for heard in bracket.heard
            ):
                forget(bracket)
                found = self.report(record, bracket, ended=True)
                self.ended(bracket)
                return found
        return None

    def report(self, record: UsageRecord, bracket: Bracket, *, ended: bool, says: bool = True) -> UsageRecord:
        """Take in what is said of the calls in a bracket so far; the record with what they cost, once it has ended."""
        if ended and not (bracket.heard or bracket.begun):
            record = self._shown(record if record.cost is not None else self.price(record))
        if says or not ended or not bracket.begun:  # what was seen tells of itself
            self.take(_unpriced(record), bracket)
        if ended and record.cost is None:
            cost = heard_cost(bracket, record, self.price)
            return self.price(record) if cost is None else replace(record, cost=cost)
        return record

    def take(self, record: UsageRecord, bracket: Bracket | None) -> None:
        """Record what is said of a call in a bracket, or of one on its own. Never raises."""
        self.record(partial(_as_it_is, Telling(record, Rank.MANUAL, bracket=bracket)))

    def ended(self, bracket: Bracket) -> None:
        """No more will be said of a bracket. Never raises."""
        self.record(partial(_as_it_is, bracket))

    def _shown(self, record: UsageRecord) -> UsageRecord:
        """The record of a call that has no span yet, with one of its own."""
        started_ns = int(record.started_at.timestamp() * 1_000_000) * 1000
        model = record.request_model or record.response_model
        span = self.tracer.start_span(
            f"{record.operation} {model}" if model else record.operation,
            kind=SpanKind.CLIENT,
            start_time=started_ns,
            attributes=_attributes(record, self.span_keys),
        )
        if record.error_type is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(started_ns + (record.duration_ns or 0))
        own = span.get_span_context()
        if not span.is_recording() and f"{own.span_id:016x}" == record.parent_span_id:
            return record  # there is no SDK: it is the one around it
        if not own.is_valid:
            return record
        return replace(record, trace_id=f"{own.trace_id:032x}", span_id=f"{own.span_id:016x}")


def _as_it_is(told: Any) -> Any:
    return told


def _unpriced(record: UsageRecord) -> UsageRecord:
    """Without a price of ours: whoever has seen the call knows it better."""
    return record if record.cost is None or record.cost.cost_source == "manual" else replace(record, cost=None)


_ATTRIBUTES = (
    (conventions.OPERATION, "operation"),
    (conventions.PROVIDER, "provider"),
    (conventions.REQUEST_MODEL, "request_model"),
    (conventions.RESPONSE_MODEL, "response_model"),
    (conventions.RESPONSE_ID, "response_id"),
    (conventions.CONVERSATION_ID, "conversation_id"),
    (conventions.SERVER_ADDRESS, "server_address"),
    (conventions.FINISH_REASONS, "finish_reasons"),
    (conventions.ERROR_TYPE, "error_type"),
)
"""Span attribute ← our field."""


def _attributes(record: UsageRecord, keys: Iterable[Written]) -> dict[str, Any]:
    attributes = {theirs: value for theirs, ours in _ATTRIBUTES if (value := getattr(record, ours)) is not None}
    usage_attributes(record.usage, attributes)
    if record.cost is not None:
        cost_attributes(record.cost, attributes)
    attribution_attributes(record.attribution, keys, attributes)
    return attributes
