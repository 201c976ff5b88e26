"""One call, from its request to its ended span and its record.

A response is read as a stream of one chunk: both go through `Answer.read`, and the last value seen wins. The caller's
thread does what a span needs; metrics and the record are made on the writer's.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.baggage import get_all
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from spanledger import conventions
from spanledger.attributes import (
    add_to,
    attribution_attributes,
    cost_attributes,
    room_in,
    type_of,
    usage_attributes,
)
from spanledger.context.scope import bracket_here
from spanledger.guard import failed
from spanledger.instrumentation.answer import Answer, moment, without_usage
from spanledger.instrumentation.engine import Engine
from spanledger.instrumentation.plan import Plan
from spanledger.instrumentation.server import Server
from spanledger.instrumentation.telemetry import SCOPE
from spanledger.model import NOBODY, UNPRICED, Attribution, Cost, Usage, UsageRecord, at, record_id_at, record_id_for
from spanledger.pricing.offer import context_of
from spanledger.pricing.places import models_of
from spanledger.recording.bracket import Bracket, Heard, remember
from spanledger.recording.telling import Telling
from spanledger.usage.paths import at_path, decoded, plain, text
from spanledger.usage.stated import header_cost

_MOST_STARTS: Final = 256
_GONE: Final = object()
_OK: Final = 200


class Call:
    """A call under way. It opens its span when made; `succeeded`, `failed`, … end it, and only the first counts."""

    __slots__ = (
        "_answer", "_around", "_attribution", "_borrowed", "_bracket", "_claim", "_context", "_cost", "_duration_ns",
        "_engine", "_error_type", "_final", "_first", "_first_chunk_ns", "_gaps", "_inside", "_last_chunk_ns",
        "_many", "_measures", "_model", "_own_span", "_placed", "_reported", "_request", "_server", "_span",
        "_started_ns", "_stated", "_status", "_stream", "_streaming", "_t0", "_token", "_usage", "active", "attempts",
        "decode", "hides_usage", "is_traced_inside", "leave", "plan", "response", "silent", "tail",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        server: Server,
        request: Mapping[str, Any],
        attribution: Attribution,
        *,
        silent: bool = False,
    ) -> None:
        self._engine = engine
        self.plan = plan
        self._server = server
        self._attribution = attribution
        self._bracket = bracket_here()
        if self._bracket is None and engine.reported_after:
            self._bracket = Bracket(implicit=engine)
        if self._bracket is not None:
            self._bracket.begin()
        self._request: Mapping[str, Any] | None = request
        self.active = True
        """Whether the SDK's method has not returned yet."""
        self._stream = plan.endpoint.streams or request.get("stream") is True
        self._many = bool(plan.endpoint.choices) and request.get(plan.endpoint.choices) not in (None, 1)
        self._model = text(request.get(plan.endpoint.request_model))
        self._answer = Answer(plan, request)
        self._first: Any = None
        self._first_chunk_ns: int | None = None
        self._gaps: list[float] | None = [] if engine.chunk_histogram else None
        self._error_type: str | None = None
        self._cost: Cost | None = None
        self.response: Any = None
        """The HTTP response, where the SDK shows it to us."""
        self.attempts: int | None = None
        """HTTP requests made for it, where the SDK tells."""
        self.decode: Callable[[Any], Any] | None = None
        """Makes of a chunk what the table speaks of."""
        self._reported = True
        self._streaming = False
        self.leave: Callable[[], Any] = _nothing
        """Undoes what marks the SDK as being in the middle of this call."""
        self.hides_usage = False
        self.tail: deque[Any] = deque(maxlen=plan.endpoint.kept)
        self.silent = silent
        """Whether somebody else makes the span of this call."""
        self.is_traced_inside = False
        """Whether somebody is expected to make its span while it lasts."""
        self._placed: Any = None
        self._token: Any = None
        self._own_span = True
        self._take_span(trace.get_current_span())
        self._started_ns = time.time_ns()
        self._t0 = time.perf_counter_ns()

    def _take_span(self, around: Span) -> None:
        """Write onto the span that somebody else has opened for this call, or open one."""
        others = self._engine.others
        asked = self._server.provider, self.plan.endpoint.operation, self._model
        claim = None if self.silent or others is None else others.claim(around, *asked)
        self._claim, self._borrowed = claim, claim is not None
        if claim is not None:
            self._measures, claim.so_far = not claim.measured, self.so_far
            self._span: Span = claim.span
            self._context = otel_context.get_current()
            if self._attribution is not NOBODY:
                add_to(self._span, self._whose({}))
        else:
            self._measures = others is None or not others.measured(around, *asked)
            self._open_span(around)
        # Last: what is around waits with its own telling until this call has ended.
        self._inside = None if others is None else others.enter(self._span if self._borrowed else around)
        self._around = None if self._inside is None else self._inside.span_id

    def _open_span(self, around: Span) -> None:
        name, _ = self._start()
        attributes = self._start_attributes()
        telemetry = self._engine.telemetry
        tracer = telemetry.silent if self.silent else telemetry.tracer
        self._span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        self._own_span = self._span.is_recording() or _differs(self._span, around)
        self._context = trace.set_span_in_context(self._span)
        self._token = otel_context.attach(self._context)

    def _start_attributes(self) -> dict[str, Any]:
        attributes = self._start()[1].copy()
        self.plan.request_attributes(self._request or {}, attributes)
        if self._attribution is not NOBODY:
            self._whose(attributes)
        return attributes

    def _whose(self, attributes: dict[str, Any]) -> dict[str, Any]:
        attribution_attributes(self._attribution, self._engine.span_keys, attributes)
        return attributes

    def _start(self) -> tuple[str, dict[str, Any]]:
        starts, key = self.plan.starts, (self._server, self._model, self._stream)
        start = starts.get(key)
        if start is None:
            operation = self.plan.endpoint.operation
            attributes: dict[str, Any] = self._identity()
            if self._stream:
                attributes[conventions.REQUEST_STREAM] = True
            start = (f"{operation} {self._model}" if self._model else operation), attributes
            if len(starts) >= _MOST_STARTS:
                starts.clear()
            starts[key] = start
        return start

    def _identity(self) -> dict[str, Any]:
        """What says, on span and metric alike, who was asked for what."""
        server = self._server
        attributes: dict[str, Any] = {
            conventions.OPERATION: self.plan.endpoint.operation,
            conventions.PROVIDER: server.provider,
        }
        if self._model:
            attributes[conventions.REQUEST_MODEL] = self._model
        if server.address:
            attributes[conventions.SERVER_ADDRESS] = server.address
            if server.port:
                attributes[conventions.SERVER_PORT] = server.port
        return attributes

    # While it runs.

    def placed(self, span: Any) -> None:
        """Somebody else's span, begun inside this call, is the one of this call."""
        if self._placed is None:
            self._placed = span

    def repeats(self, request: Mapping[str, Any]) -> bool:
        """Whether a request is this call's own, handed on by the SDK: of the same model, with a list of the same."""
        own = self._request
        if not self.active or own is None or self._model != text(request.get(self.plan.endpoint.request_model)):
            return False
        shared = [own.get(name) is value for name, value in request.items() if isinstance(value, (list, tuple))]
        return not shared or any(shared)

    def returned(self) -> None:
        """The SDK's method has returned or raised: our span is no longer the current one. Never raises."""
        self.active, self._request = False, None
        token, self._token = self._token, None
        for leave in (self.leave, partial(otel_context.detach, token) if token is not None else _nothing):
            try:
                leave()
            except ValueError:  # a coroutine that ends in another context than it began in took that one along
                continue
            except Exception as error:  # noqa: BLE001  # a door
                failed("the context of a call", error)

    def streaming(self) -> None:
        """The answer comes in parts, which may end in many ways."""
        self._streaming = True
        self._engine.open_streams[self] = None

    def begun(self) -> None:
        """The first part of the answer has come."""
        self._first_chunk_ns = self._last_chunk_ns = time.perf_counter_ns() - self._t0

    def saw(self, chunk: Any) -> bool:
        """A chunk has come that is the first, tells something, or is looked at for another reason.

        False: the application did not ask for it. Never raises.
        """
        try:
            if self._first_chunk_ns is None:
                self.begun()
                if not self.hides_usage:
                    self._first = chunk  # read later, so that it is not held up
            elif self._gaps is not None:
                now = time.perf_counter_ns() - self._t0
                self._gaps.append((now - self._last_chunk_ns) / 1e9)
                self._last_chunk_ns = now
            if chunk is not self._first and self.plan.tells(chunk, last=self._many):
                self._read_kept()
            return not self.hides_usage or without_usage(chunk)
        except Exception as error:  # noqa: BLE001  # a door
            failed("what a chunk of a stream said", error)
            return True

    def _read_kept(self) -> None:
        """Take in the first chunk and those of the last ones that tell something, each once, in order."""
        first, self._first = self._first, None
        kept = list(self.tail)
        self.tail.clear()
        if first is not None:
            self.read(first)
        for chunk in kept:
            if chunk is not first:
                self.read(chunk, last=True)

    def read(self, chunk: Any, *, last: bool = False) -> None:
        """Take in the response in a chunk; one of the `last`, only if it tells something."""
        if self.decode is not None:
            chunk = self.decode(chunk)
        if last and not self.plan.tells(chunk, last=True):
            return
        endpoint = self.plan.endpoint
        for root in endpoint.roots:
            found = at_path(chunk, root)
            if found is not None:
                self._answer.read(found, endpoint.placeholders.get(root, ()))

    def read_whole(self, response: Any) -> None:
        """Take in a response that came in parts."""
        self._answer.read(response)

    def so_far(self) -> dict[str, Any]:
        """Usage and cost as far as they are known, as span attributes of ours."""
        self._read_kept()
        self._usage, self._stated = self._answer.usage(), self._find_stated()
        self._price()
        attributes, self._cost = self._end_attributes(), None
        return attributes

    @property
    def streams(self) -> bool:
        """Whether the answer was asked for in parts."""
        return self._stream

    @property
    def special(self) -> bool:
        """Whether every chunk is looked at closely, and not only for a usage."""
        return self.hides_usage or self._many or self._gaps is not None or not self.plan.signal

    # Its end. Each of these is a door.

    def succeeded(self, response: Any) -> None:
        """A whole answer. Never raises."""
        try:
            self._answer.read(response)
            self._end(self._own_status())
        except Exception as error:  # noqa: BLE001  # a door
            self.give_up()
            failed("the usage of a call", error)

    def exhausted(self, *, whole: bool = False) -> None:
        """A stream was read to its end, or a body that is `whole` then. Never raises."""
        self._end_once("success" if whole else "incomplete")

    def closed(self) -> None:
        """A stream was closed, before its end or after. Never raises."""
        self._end_once("incomplete")

    def abandoned(self) -> None:
        """A stream was dropped unread or half read. Never raises."""
        self._end_once("incomplete")

    def dropped(self) -> None:
        """The garbage collector has found the stream: if it still is open, another thread ends it. Never raises."""
        if self in self._engine.open_streams:
            self._engine.later(self.abandoned)

    def failed(self, error: BaseException) -> None:
        """The call, or its stream, raised. Never raises."""
        if is_cancel(error):
            self._end_once("cancelled")
        else:
            self._end_once("error", error)

    def give_up(self) -> None:
        """A mistake of ours: end the span, leave the call alone. Never raises."""
        self._engine.open_streams.pop(self, None)
        self._end_span()
        self._let_others_tell("error")

    def _end_once(self, status: str, error: BaseException | None = None) -> None:
        try:
            if self._streaming and self._engine.open_streams.pop(self, _GONE) is _GONE:
                return
            try:
                self._read_kept()
            except Exception as mistake:  # noqa: BLE001  # the call is recorded all the same
                failed("what a stream said", mistake)
            if error is not None:
                self._error_type = type_of(error)
                carries = self.plan.endpoint.error_carries
                carried = getattr(error, carries, None) if carries else None
                if self.attempts is None:
                    self.attempts = attempts_of(getattr(error, "response", None))
                if carried is not None:
                    self._answer.read(carried)
                elif self._answer.raw is None:
                    self._read_unparsed()
            done = status == "success" or (status == "incomplete" and self._answer.complete)
            self._end(self._own_status() if done else status)
        except Exception as mistake:  # noqa: BLE001  # a door
            self.give_up()
            failed("the usage of a call", mistake)

    def _read_unparsed(self) -> None:
        """The SDK could not make of a whole answer what the application wanted; it is billed all the same."""
        body = getattr(self.response, "_content", None)  # httpx: only there where all was read
        if isinstance(body, bytes) and self.response.status_code == _OK:
            self._answer.read(decoded(body))

    def _own_status(self) -> str:
        answer, endpoint = self._answer, self.plan.endpoint
        if not endpoint.state:
            return "success"
        status = endpoint.states.get(answer.state or "", "success")
        if status == "error":
            self._error_type = text(at_path(answer.response, endpoint.error)) or "failed"
        return status

    def _end(self, status: str) -> None:
        self._duration_ns = time.perf_counter_ns() - self._t0
        self._status: Any = status
        answer, engine, span = self._answer, self._engine, self._span
        pending = False
        if self.plan.endpoint.background and answer.in_background:
            pending = not answer.complete
            first_time = not pending and engine.completes(self._derived_id())
            self._reported = first_time if self.plan.endpoint.fetched else True
        elif self.plan.endpoint.fetched:
            self._reported = False
        self._usage = answer.usage() if self._reported else Usage()
        so_far = self._streaming and status != "success" and not (self.plan.endpoint.usage_ends or answer.complete)
        if so_far and self._usage.usage_status == "reported":
            self._usage = replace(self._usage, usage_status="partial")  # so far, and more may have come
        self._stated = self._find_stated() if self._reported else None
        if self._reported and (span.is_recording() or self._bracket is not None):
            self._price()
        if span.is_recording():
            if self._borrowed:
                add_to(span, self._end_attributes())
            else:
                self._put_right(span)
                if room_in(span) == 0:  # the application may have added so much that the start was dropped
                    span.set_attributes(self._start_attributes())
                span.set_attributes(self._end_attributes())
            if self._error_type is not None and not self._borrowed:
                span.set_status(Status(StatusCode.ERROR))
        if engine.others is not None:
            operation = self.plan.endpoint.operation
            engine.others.told(self._server.provider, operation, answer.values.get("id"), elsewhere=self.silent)
        self._end_span()
        if self._bracket is not None and self._reported:
            self._heard(self._bracket)
        self._final = not pending
        engine.record(self.settle, settles=not pending)
        self._let_others_tell(status)

    def _heard(self, bracket: Bracket) -> None:
        """Let those know of the call who are about to report it by hand."""
        models = self._model, self._answer.values.get("model")
        failed = self._status == "error"
        bracket.hear(Heard(self._server.provider, models, self._usage, self._cost, failed))
        if bracket.implicit:
            remember(bracket)

    def _put_right(self, span: Any) -> None:
        """Whose the call is, where somebody has copied something else over it since: baggage of the same names."""
        if self._attribution is not NOBODY and get_all(self._context):
            held, whose = span.attributes or {}, self._whose({})
            if any(held.get(name) != each for name, each in whose.items()):
                span.set_attributes(whose)

    def _let_others_tell(self, status: str) -> None:
        """Spans around the call may tell now; the one it wrote onto is free again if it has failed."""
        if self._claim is not None:
            self._claim.so_far = None
            if status in ("error", "cancelled"):
                self._claim.release()
        inside, self._inside = self._inside, None
        if inside is not None:
            inside.leave()
        unplaced, name = self._engine.unplaced, self._server.provider
        if self._placed is not None:
            unplaced.discard(name)
        elif self.silent and self.is_traced_inside:
            unplaced.add(name)

    def _end_span(self) -> None:
        """A span that is somebody else's is theirs to end."""
        if not self._borrowed:
            self._span.end()

    def _find_stated(self) -> int | None:
        """The cost that the provider, or a gateway, states itself."""
        if not self._server.states_cost:
            return None
        stated = self.plan.reader(self._answer.raw).stated(self._answer.raw)
        headers = getattr(self.response, "headers", None)
        return header_cost(headers) if stated is None and headers is not None else stated

    def _price(self) -> None:
        """The cost, where it can be told at once: the price list is there, or the provider stated it."""
        answer, book = self._answer, self._engine.prices.ready
        if book is not None:
            self._cost = book.price(
                self._usage,
                provider=self._server.provider,
                models=models_of(self._server.provider, answered=answer.values.get("model"), asked=self._model),
                at=at(self._started_ns),
                context=context_of(answer.values.get("service_tier"), answer.context()),
                server=self._server.address,
                metadata=self._attribution.metadata,
                stated=self._stated,
            )
        elif self._stated is not None:
            self._cost = UNPRICED.stated(self._stated)

    def _end_attributes(self) -> dict[str, Any]:
        """What our own span says at its end; of somebody else's only what is ours."""
        attributes = {} if self._borrowed else self._answer_attributes()
        if self._reported:
            usage_attributes(self._usage, attributes)
            if self._cost is not None:
                cost_attributes(self._cost, attributes)
        if self._borrowed:
            return {name: value for name, value in attributes.items() if not name.startswith("gen_ai.")}
        return attributes

    def _answer_attributes(self) -> dict[str, Any]:
        answer = self._answer
        values = answer.values
        attributes: dict[str, Any] = {}
        if "id" in values:
            attributes[conventions.RESPONSE_ID] = values["id"]
        if "model" in values:
            attributes[conventions.RESPONSE_MODEL] = values["model"]
        tier = self.plan.endpoint.tier_attribute
        if tier and "service_tier" in values:
            attributes[tier] = values["service_tier"]
        if answer.finish:
            attributes[conventions.FINISH_REASONS] = answer.finish
        conversation = self._conversation()
        if conversation is not None:
            attributes[conventions.CONVERSATION_ID] = conversation
        if self._first_chunk_ns is not None:
            attributes[conventions.TIME_TO_FIRST_CHUNK] = self._first_chunk_ns / 1e9
        if self.attempts is not None and self.attempts > 1:
            attributes[conventions.RESEND_COUNT] = self.attempts - 1
        if self._error_type is not None:
            attributes[conventions.ERROR_TYPE] = self._error_type
        return attributes

    # Its metrics and its record, on the writer's thread.

    def settle(self) -> Telling | None:
        """Record the call's metrics; its record, `None` where the call only fetched what is recorded already."""
        if self._measures:
            self._measure()
        if not self._reported:
            return None
        return Telling(self._record(), within=self._around, final=self._final, bracket=self._bracket)

    def _measure(self) -> None:
        telemetry, context, attributes = self._engine.telemetry, self._context, self._identity()
        model = self._answer.values.get("model")
        if model:
            attributes[conventions.RESPONSE_MODEL] = model
        if self._reported:
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

    def _conversation(self) -> str | None:
        path = self.plan.endpoint.conversation
        return text(at_path(self._answer.response, path)) if path else None

    def _created_at(self) -> float:
        return moment(at_path(self._answer.response, self.plan.endpoint.created_at)) or self._started_ns / 1e9

    def _derived_id(self) -> str:
        server = self._server
        return record_id_for(
            self._created_at(), server.provider, server.address or "", self._answer.values.get("id", "")
        )

    def _record(self) -> UsageRecord:
        """The call as a record. Its price is still open where the price list wasn't there in time."""
        answer, values, endpoint = self._answer, self._answer.values, self.plan.endpoint
        span = self._placed if self.silent and self._placed is not None else self._span
        if self._cost is None and self._stated is not None:
            self._price()
        background = answer.in_background and "id" in values
        started = int(self._created_at() * 1e9) if background else self._started_ns
        own, parent = span.get_span_context(), getattr(span, "parent", None)
        has_own = self._own_span or span is not self._span
        if not has_own and own.is_valid:
            parent = own
        raw = plain(answer.raw)
        return UsageRecord(
            record_id=self._derived_id() if background else record_id_at(started),
            started_at=at(started),
            operation=conventions.CHAT if endpoint.fetched else endpoint.operation,
            provider=self._server.provider,
            source=SCOPE,
            trace_id=f"{own.trace_id:032x}" if own.is_valid else None,
            span_id=f"{own.span_id:016x}" if own.is_valid and has_own else None,
            parent_span_id=f"{parent.span_id:016x}" if parent is not None else None,
            response_id=values.get("id"),
            duration_ns=self._duration_ns,
            time_to_first_chunk_ns=self._first_chunk_ns,
            request_model=self._model,
            response_model=values.get("model"),
            server_address=self._server.address,
            stream=self._stream,
            attempts=self.attempts,
            finish_reasons=answer.finish or None,
            service_tier=values.get("service_tier"),
            price_context=answer.context() or None,
            conversation_id=self._conversation(),
            status=self._status,
            error_type=self._error_type,
            raw_usage=raw if isinstance(raw, dict) else None,
            usage_shape=self.plan.reader(raw).shape.name if isinstance(raw, dict) else None,
            usage=self._usage,
            cost=self._cost,
            attribution=self._attribution,
        )


def attempts_of(result: Any) -> int | None:
    """HTTP requests that botocore made, by its answer or its error's."""
    retries = at_path(result, "ResponseMetadata.RetryAttempts") if isinstance(result, dict) else None
    return retries + 1 if isinstance(retries, int) else None


def _nothing() -> None:
    """For a call that left no mark."""


def _differs(span: Span, surrounding: Span) -> bool:
    """Whether a span that isn't recording has an identity of its own: without an SDK it has the surrounding one's."""
    return span.get_span_context().span_id != surrounding.get_span_context().span_id


def is_cancel(error: BaseException) -> bool:
    """Whether the application gave up on the call, rather than the call having failed."""
    if isinstance(error, (GeneratorExit, KeyboardInterrupt, SystemExit)):
        return True
    asyncio: Any = sys.modules.get("asyncio")  # a process without it has no cancelled tasks
    return asyncio is not None and isinstance(error, asyncio.CancelledError)
