"""One call, from its request to its ended span and its record.

A response is read as a stream of one chunk: both go through `Answer.read`, and the last value seen wins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from spanledger import conventions
from spanledger.guard import failed
from spanledger.instrumentation.collect import (
    at_path,
    find_usage,
    plain,
    read_usage,
    request_attributes,
    text,
    texts,
)
from spanledger.instrumentation.spec import Endpoint
from spanledger.instrumentation.telemetry import SCOPE, Telemetry
from spanledger.model import Attribution, Cost, Usage, UsageRecord, at, record_id_at, record_id_for
from spanledger.pricing.loader import Prices

_MOST_COMPLETED: Final = 4096
_GONE: Final = object()
_CANCELS: Final = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)


@dataclass(slots=True, kw_only=True)
class Engine:
    """What all calls share. `record` and `later` are the recorder's."""

    telemetry: Telemetry
    prices: Prices
    record: Callable[..., None]
    later: Callable[[Callable[[], Any]], None]
    span_keys: tuple[str, ...]
    stream_usage: str = "auto"
    chunk_histogram: bool = False
    open_streams: dict[Call, None] = field(default_factory=dict)
    """Calls whose stream has not ended. Whoever takes one out is its first end, and the only one that counts."""
    completed: dict[str, None] = field(default_factory=dict)
    """Background calls this process has seen the end of; bounded."""

    def completes(self, record_id: str) -> bool:
        """True the first time this process sees the final status of a background call."""
        if record_id in self.completed:
            return False
        if len(self.completed) >= _MOST_COMPLETED:
            self.completed.pop(next(iter(self.completed)), None)
        self.completed[record_id] = None
        return True

    def end_open_streams(self) -> None:
        """At exit: streams nobody will read on are recorded with what is known. Never raises."""
        for call in list(self.open_streams):
            call.abandoned()


@dataclass(frozen=True, slots=True)
class Server:
    """Who is asked: the provider's name, host and port (`None` where it is https's own)."""

    provider: str
    address: str | None
    port: int | None
    known: bool
    """Whether the host is in the provider's table."""


class Answer:
    """What is known of a response so far."""

    __slots__ = ("endpoint", "finish", "raw", "response", "seen", "state", "values")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.seen = False
        self.raw: Any = None
        self.state: str | None = None
        self.response: Any = None
        self.finish: tuple[str, ...] = ()
        self.values: dict[str, str] = {}

    def read(self, response: Any) -> None:
        """Take in a response, or what sits in a chunk of one."""
        endpoint, values = self.endpoint, self.values
        self.seen = True
        self.response = response
        for name in ("id", "model", "service_tier"):
            path = getattr(endpoint, name)
            value = at_path(response, path) if path else None
            if isinstance(value, str) and value:
                values[name] = value
        if endpoint.finish_reasons:
            reasons = texts(at_path(response, endpoint.finish_reasons))
            if reasons:
                self.finish += reasons
        if endpoint.state:
            self.state = text(at_path(response, endpoint.state)) or self.state
        usage = find_usage(endpoint, response)
        if usage is not None:
            self.raw = plain(usage)

    @property
    def complete(self) -> bool:
        """Whether the response has said its last word."""
        if self.endpoint.state:
            return self.endpoint.states.get(self.state or "", "incomplete") != "incomplete"
        return bool(self.finish) or self.raw is not None

    @property
    def in_background(self) -> bool:
        """Whether the provider works on it while nobody waits."""
        return bool(self.endpoint.background) and at_path(self.response, self.endpoint.background) is True


class Call:
    """A call under way. It opens its span when made; `succeeded`, `failed`, … end it, and only the first counts."""

    __slots__ = (
        "_answer", "_attribution", "_context", "_cost", "_duration_ns", "_endpoint", "_engine", "_error_type",
        "_first_chunk_ns", "_gaps", "_last_chunk_ns", "_model", "_server", "_span", "_started_ns", "_status", "_stream",
        "_streaming", "_t0", "_token", "_usage", "hides_usage", "inside",
    )  # fmt: skip

    def __init__(
        self, engine: Engine, endpoint: Endpoint, server: Server, request: Mapping[str, Any], attribution: Attribution
    ) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._server = server
        self._attribution = attribution
        self._stream = request.get("stream") is True
        self._model = text(request.get(endpoint.request_model))
        self._answer = Answer(endpoint)
        self._first_chunk_ns: int | None = None
        self._last_chunk_ns = 0
        self._gaps: list[float] | None = [] if engine.chunk_histogram else None
        self._status: Any = "success"
        self._error_type: str | None = None
        self._usage = Usage()
        self._cost: Cost | None = None
        self._duration_ns = 0
        self._streaming = False
        self.hides_usage = False
        self.inside = False
        name = f"{endpoint.operation} {self._model}" if self._model else endpoint.operation
        self._span: Span = engine.telemetry.tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=dict(self._start_attributes(request))
        )
        self._context = trace.set_span_in_context(self._span)
        self._token: Any = otel_context.attach(self._context)
        self._started_ns = time.time_ns()
        self._t0 = time.perf_counter_ns()

    def _start_attributes(self, request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        server = self._server
        yield conventions.OPERATION, self._endpoint.operation
        yield conventions.PROVIDER, server.provider
        if self._model:
            yield conventions.REQUEST_MODEL, self._model
        if server.address:
            yield conventions.SERVER_ADDRESS, server.address
            if server.port:
                yield conventions.SERVER_PORT, server.port
        if self._stream:
            yield conventions.REQUEST_STREAM, True
        yield from request_attributes(self._endpoint, request)
        attribution = self._attribution
        for key in self._engine.span_keys:
            value = getattr(attribution, key)
            if value is None:
                continue
            if key == "metadata":
                for name, each in value.items():
                    yield conventions.METADATA_PREFIX + name, each
            else:
                yield conventions.ATTRIBUTION[key], value

    # While it runs.

    def returned(self) -> None:
        """The SDK's method has returned or raised: our span is no longer the current one. Never raises."""
        token, self._token = self._token, None
        if token is not None:
            otel_context.detach(token)

    def streaming(self) -> None:
        """The answer comes in parts, which may end in many ways."""
        self._streaming = True
        self._engine.open_streams[self] = None

    def tick(self) -> None:
        """A chunk has come."""
        now = time.perf_counter_ns()
        if self._first_chunk_ns is None:
            self._first_chunk_ns = now - self._t0
        elif self._gaps is not None:
            self._gaps.append((now - self._last_chunk_ns) / 1e9)
        self._last_chunk_ns = now

    def read(self, response: Any) -> None:
        """Take in a response, or the part of a chunk that is one."""
        self._answer.read(response)

    @property
    def endpoint(self) -> Endpoint:
        """What was called."""
        return self._endpoint

    @property
    def ticks_each_chunk(self) -> bool:
        """Whether every chunk is timed, or the first only."""
        return self._gaps is not None

    # Its end. Each of these is a door.

    def succeeded(self, response: Any) -> None:
        """A whole answer. Never raises."""
        try:
            self._answer.read(response)
            self._end(self._own_status())
        except Exception as error:  # noqa: BLE001  # a door
            self.give_up()
            failed("the usage of a call", error)

    def exhausted(self) -> None:
        """A stream was read to its end. Never raises."""
        self._end_once(lambda: self._own_status() if self._answer.complete else "incomplete")

    def closed(self) -> None:
        """A stream was closed, before its end or after. Never raises."""
        if not self.inside:
            self._end_once(lambda: self._own_status() if self._answer.complete else "incomplete")

    def abandoned(self) -> None:
        """A stream was dropped unread or half read. Never raises."""
        self.closed()

    def dropped(self) -> None:
        """The garbage collector has found the stream: if it still is open, another thread ends it. Never raises."""
        if self in self._engine.open_streams:
            self._engine.later(self.abandoned)

    def failed(self, error: BaseException) -> None:
        """The call, or its stream, raised. Never raises."""
        if isinstance(error, _CANCELS):
            self._end_once(lambda: "cancelled")
        else:
            self._end_once(lambda: "error", error)

    def give_up(self) -> None:
        """A mistake of ours: end the span, leave the call alone. Never raises."""
        self._engine.open_streams.pop(self, None)
        self._span.end()

    def _end_once(self, status: Callable[[], str], error: BaseException | None = None) -> None:
        try:
            if self._streaming and self._engine.open_streams.pop(self, _GONE) is _GONE:
                return
            if error is not None:
                self._error_type = type_of(error)
            self._end(status())
        except Exception as mistake:  # noqa: BLE001  # a door
            self.give_up()
            failed("the usage of a call", mistake)

    def _own_status(self) -> str:
        answer, endpoint = self._answer, self._endpoint
        if not endpoint.state:
            return "success"
        status = endpoint.states.get(answer.state or "", "success")
        if status == "error":
            self._error_type = text(at_path(answer.response, endpoint.error)) or "failed"
        return status

    def _end(self, status: str) -> None:
        self._duration_ns = time.perf_counter_ns() - self._t0
        self._status = status
        endpoint, answer, engine = self._endpoint, self._answer, self._engine
        background = answer.in_background
        if endpoint.fetched and not (background and answer.complete and engine.completes(self._derived_id())):
            self._end_span(reported=False)
            return
        if background and answer.complete and not endpoint.fetched:
            engine.completes(self._derived_id())
        self._usage = read_usage(endpoint, answer.raw, answer.response)
        book = engine.prices.ready
        if book is not None and self._span.is_recording():
            self._cost = self._price(book)
        self._end_span(reported=True)
        engine.record(self.record, settles=not (background and not answer.complete))

    def _price(self, book: Any) -> Cost:
        values = self._answer.values
        return book.price(  # type: ignore[no-any-return]
            self._usage,
            provider=self._server.provider,
            models=(values.get("model"), self._model),
            at=at(self._started_ns),
            tier=values.get("service_tier"),
        )

    def _end_span(self, *, reported: bool) -> None:
        span = self._span
        if span.is_recording():
            span.set_attributes(dict(self._end_attributes(reported=reported)))
            if self._error_type is not None:
                span.set_status(Status(StatusCode.ERROR))
        self._measure(reported=reported)
        span.end()

    def _end_attributes(self, *, reported: bool) -> Iterator[tuple[str, Any]]:
        answer = self._answer
        values = answer.values
        if "id" in values:
            yield conventions.RESPONSE_ID, values["id"]
        if "model" in values:
            yield conventions.RESPONSE_MODEL, values["model"]
        if answer.finish:
            yield conventions.FINISH_REASONS, answer.finish
        if "service_tier" in values:
            yield conventions.OPENAI_RESPONSE_SERVICE_TIER, values["service_tier"]
        if self._first_chunk_ns is not None:
            yield conventions.TIME_TO_FIRST_CHUNK, self._first_chunk_ns / 1e9
        if self._error_type is not None:
            yield conventions.ERROR_TYPE, self._error_type
        if reported:
            yield from usage_attributes(self._usage)
            if self._cost is not None:
                yield from cost_attributes(self._cost)

    def _measure(self, *, reported: bool) -> None:
        telemetry, server, context = self._engine.telemetry, self._server, self._context
        attributes: dict[str, Any] = {
            conventions.OPERATION: self._endpoint.operation,
            conventions.PROVIDER: server.provider,
        }
        if self._model:
            attributes[conventions.REQUEST_MODEL] = self._model
        model = self._answer.values.get("model")
        if model:
            attributes[conventions.RESPONSE_MODEL] = model
        if server.address:
            attributes[conventions.SERVER_ADDRESS] = server.address
            if server.port:
                attributes[conventions.SERVER_PORT] = server.port
        if reported:
            for kind, count in (("input", self._usage.input_tokens), ("output", self._usage.output_tokens)):
                if count is not None:
                    telemetry.tokens.record(count, {**attributes, conventions.TOKEN_TYPE: kind}, context)
        if self._first_chunk_ns is not None:
            telemetry.first_chunk.record(self._first_chunk_ns / 1e9, attributes, context)
        for gap in self._gaps or ():
            telemetry.per_chunk.record(gap, attributes, context)
        if self._error_type is not None:
            attributes[conventions.ERROR_TYPE] = self._error_type
        telemetry.duration.record(self._duration_ns / 1e9, attributes, context)

    # Its record, on the writer's thread.

    def _created_at(self) -> float:
        created = at_path(self._answer.response, self._endpoint.created_at)
        return float(created) if isinstance(created, (int, float)) else self._started_ns / 1e9

    def _derived_id(self) -> str:
        server = self._server
        return record_id_for(
            self._created_at(), server.provider, server.address or "", self._answer.values.get("id", "")
        )

    def record(self) -> UsageRecord:
        """The call as a record. Its price is still open where the price list wasn't there in time."""
        answer, values, span = self._answer, self._answer.values, self._span.get_span_context()
        background = answer.in_background and "id" in values
        started = int(self._created_at() * 1e9) if background else self._started_ns
        parent = getattr(self._span, "parent", None)
        return UsageRecord(
            record_id=self._derived_id() if background else record_id_at(started),
            started_at=at(started),
            operation=conventions.CHAT if self._endpoint.fetched else self._endpoint.operation,
            provider=self._server.provider,
            source=SCOPE,
            trace_id=f"{span.trace_id:032x}" if span.is_valid else None,
            span_id=f"{span.span_id:016x}" if span.is_valid else None,
            parent_span_id=f"{parent.span_id:016x}" if parent is not None else None,
            response_id=values.get("id"),
            duration_ns=self._duration_ns,
            time_to_first_chunk_ns=self._first_chunk_ns,
            request_model=self._model,
            response_model=values.get("model"),
            server_address=self._server.address,
            stream=self._stream,
            finish_reasons=answer.finish or None,
            service_tier=values.get("service_tier"),
            conversation_id=text(at_path(answer.response, self._endpoint.conversation))
            if self._endpoint.conversation
            else None,
            status=self._status,
            error_type=self._error_type,
            raw_usage=answer.raw if isinstance(answer.raw, dict) else None,
            usage=self._usage,
            cost=self._cost,
            attribution=self._attribution,
        )


def type_of(error: BaseException) -> str:
    """The type of an error by its full name, never its message."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def usage_attributes(usage: Usage) -> Iterator[tuple[str, Any]]:
    """A usage as span attributes; what was not reported has none."""
    for name, attribute in conventions.USAGE.items():
        count = getattr(usage, name)
        if count is not None:
            yield attribute, count
    yield conventions.USAGE_STATUS, usage.usage_status


def cost_attributes(cost: Cost) -> Iterator[tuple[str, Any]]:
    """A cost as span attributes in USD; amounts are absent where there is no price."""
    yield conventions.COST_STATUS, cost.cost_status
    yield conventions.COST_SOURCE, cost.cost_source
    if cost.price_basis is not None:
        yield conventions.COST_BASIS, cost.price_basis
    if cost.cost_pusd is None:
        return
    yield conventions.COST_TOTAL, cost.cost_pusd / 1e12
    yield conventions.COST_CURRENCY, cost.currency
    parts: dict[str, int] = {}
    for bucket, amount in (cost.cost_breakdown or {}).items():
        attribute = conventions.COST_PARTS.get(bucket)
        if attribute is not None:
            parts[attribute] = parts.get(attribute, 0) + amount
    for attribute, amount in parts.items():
        yield attribute, amount / 1e12
