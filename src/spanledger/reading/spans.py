"""The spans of others while they are open: whose they are, what is inside what, and who has the cost on it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol

from opentelemetry import baggage
from opentelemetry.sdk.trace import ReadableSpan

from spanledger.attributes import Written, add_to, attribution_attributes, cost_attributes
from spanledger.context.scope import bracket_here, current
from spanledger.conventions import COST_STATUS, EMBEDDINGS, REQUEST_MODEL
from spanledger.guard import failed
from spanledger.model import NOBODY, Attribution, Cost, Usage, UsageRecord
from spanledger.pricing.hosts import provider_named
from spanledger.reading.copied import own, said_at_start
from spanledger.reading.dialect import Dialect
from spanledger.reading.dialects import MARKS, NAMED, dialect_of
from spanledger.reading.reader import read, scope_of
from spanledger.recording.bracket import Heard
from spanledger.recording.telling import Rank, Telling, bare_models, same_model, stands_for

OURS: Final = "spanledger"
_MOST: Final = 10_000
_LONG: Final = 20_000
_UNKNOWN: Final = object()
_HEARD: Final = Heard("unknown", (None, None), Usage(), None, failed=False)
"""A call of which only its span tells, and later."""
_ANY_MARK: Final = frozenset(MARKS)

Place = tuple[int, int]
"""Trace id and span id."""

_latest: ContextVar[Place | None] = ContextVar("spanledger.latest", default=None)
"""The model span begun last in this context: some are never made the current one."""


class Watched(Protocol):
    """A call of our wrapper."""

    @property
    def silent(self) -> bool:
        """Whether somebody else makes the span of the call."""

    def placed(self, span: Any) -> None:
        """This is that span."""


class Claim:
    """Somebody else's span of a call that our wrapper watches."""

    __slots__ = ("entry", "measured", "so_far", "span")

    def __init__(self, span: Any, entry: _Open, *, measured: bool) -> None:
        self.span = span
        self.entry = entry
        self.measured = measured
        """Whether who made it records the token metric, too."""
        self.so_far: Callable[[], dict[str, Any]] | None = None
        """Usage and cost as span attributes, for a span that ends before our wrapper has written them."""

    def release(self) -> None:
        """The call has failed: the span is free for another attempt."""
        self.entry.claim, self.entry.costed = None, False


class Inside:
    """A place inside a model span, where our wrapper has a call under way."""

    __slots__ = ("_entry", "_spans", "span_id")

    def __init__(self, spans: Spans, entry: _Open, place: Place) -> None:
        self._spans = spans
        self._entry = entry
        self.span_id = f"{place[1]:016x}"

    def leave(self) -> None:
        """The call has ended, and told."""
        self._spans.left(self._entry)


class _Open:
    """What is known of an open span: a model call's, or one inside it."""

    __slots__ = (
        "attribution",
        "baggage",
        "bracket",
        "calls",
        "claim",
        "costed",
        "deferred",
        "dialect",
        "inner",
        "known",
        "model",
        "silent",
        "span",
        "within",
    )

    def __init__(self, dialect: Dialect | None, within: Place | None) -> None:
        self.dialect = dialect
        """`None` for our own span, and for a span that is no model call but inside one."""
        self.model = False
        """Whether it may be the span of a model call, rather than of something inside or around one."""
        self.within = within
        """The nearest model span around it."""
        self.attribution: Attribution = NOBODY
        self.bracket: Any = None
        self.baggage: Mapping[str, object] = {}
        """What came in with the request, and may have been copied onto the span."""
        self.inner = False
        """Begun inside a call that our wrapper records."""
        self.silent = False
        """That call has no span of its own, so this one is to have its cost."""
        self.claim: Claim | None = None
        """Our wrapper, inside it, writes onto it."""
        self.span: Callable[[], Any] = _gone
        """The span, if it is of a model call and somebody still holds it."""
        self.known: dict[str, Any] = {}
        """What it said at its start of what it is of."""
        self.calls = 0
        """Calls of our wrapper under way inside it."""
        self.deferred: Callable[[], Telling | None] | None = None
        """What it tells, once those have ended."""
        self.costed = False
        """The cost of its call stands on this span, or on one inside it."""


class Spans:
    """Reads the spans of others.

    `tell(build)` takes what a span tells, `note(outcome)` counts a span that tells nothing; `inside()` is the call that
    our wrapper records at the place it is called at, or `None`; `price(record)` is the cost if it can be told at once.
    Span attributes are written for these attribution `keys`, and only if `write`.
    """

    def __init__(
        self,
        *,
        tell: Callable[[Callable[[], Telling | None]], None],
        note: Callable[[str], None],
        inside: Callable[[], Watched | None],
        price: Callable[[UsageRecord], Cost | None],
        keys: tuple[Written, ...],
        write: bool,
    ) -> None:
        self._tell = tell
        self._note = note
        self._inside = inside
        self._price = price
        self._keys = keys
        self._write = write
        self._lock = threading.Lock()
        self._dialects: dict[str, Any] = {}
        self._open: dict[Place, _Open] = {}
        self._ended: dict[Place, None] = {}
        self._costed: dict[str, str] = {}
        """Response id of a call whose cost stands on a span → who made that span."""
        self._uncosted: dict[str, None] = {}
        """Response ids of calls whose cost is to stand on a span that has not ended yet."""
        self._silencing: dict[str, None] = {}
        """Scopes inside whose spans our wrapper makes none."""
        self._nearest: dict[tuple[str, str], Rank] = {}
        """Provider and operation → the highest rank of those who tell of such calls."""
        self.active = False
        """Whether anybody else has made a span of a model call in this process."""

    def forget(self) -> None:
        """In a forked child: what is open is the parent's."""
        self._lock = threading.Lock()
        for place in self._open:
            _keep(self._ended, place, None)
        self._open.clear()

    # Begin and end.

    def started(self, span: Any, parent_context: Any = None) -> None:
        """A span has begun."""
        scope = scope_of(span)
        carried = baggage.get_all(parent_context)
        attributes = (span.attributes or {}) if not carried else said_at_start(span, carried)
        dialect = self._dialect(scope, attributes)
        parent = span.parent
        around = self._open.get(_place(parent)) if parent is not None else None
        if dialect is None and around is None and scope != OURS and not carried and current() is NOBODY:
            return
        within = None
        if around is not None:
            within = _place(parent) if around.model else around.within
        entry = _Open(dialect, within)
        entry.attribution, entry.baggage, entry.bracket = current(), carried, bracket_here()
        if dialect is not None:
            self._begin(entry, dialect, span, attributes)
        elif scope == OURS:
            entry.model = entry.costed = True
            self._has_cost(within)
        _keep(self._open, _place(span.context), entry)

    def _begin(self, entry: _Open, dialect: Dialect, span: Any, attributes: Mapping[str, Any]) -> None:
        self.active = True
        entry.span = weakref.ref(span)
        entry.known = {name: attributes[name] for name in dialect.identity if name in attributes}
        word = dialect.word(span.name, attributes)
        entry.model = word is None or word in dialect.operations
        if entry.model:
            _latest.set(_place(span.context))
        ours = self._inside()
        entry.inner = ours is not None
        if ours is not None and entry.model:
            ours.placed(span)
            entry.silent = ours.silent
            if entry.silent:
                _keep(self._silencing, scope_of(span), None)
        if entry.attribution is not NOBODY and self._write and entry.model:
            whose: dict[str, Any] = {}
            attribution_attributes(entry.attribution, self._keys, whose)
            add_to(span, whose)

    def ended(self, span: Any) -> None:
        """A span has ended: it is read if it is of a billed call."""
        place = _place(span.context)
        entry = self._open.pop(place, None)
        attributes: Mapping[str, Any] = span.attributes or {}
        dialect = self._dialect(scope_of(span), attributes) if entry is None or entry.dialect is None else entry.dialect
        if dialect is None or place in self._ended:
            return
        entry = entry or _Open(dialect, None)
        attributes = {**entry.known, **attributes}
        if entry.baggage:
            attributes = own(attributes, dialect, entry.known, entry.baggage)
            if self._dialects.get(scope_of(span)) is None and not attributes.keys() & dialect.answers:
                return  # nothing but what somebody has sent says that it is a model call
            self._put_right(span, entry)
        self.active = True
        _keep(self._ended, place, None)
        word = dialect.word(span.name, attributes)
        if word is None:
            return
        if word not in dialect.operations:
            self._note("skipped_aggregate")
            return
        within = None if entry.within is None else f"{entry.within[1]:016x}"
        telling: Callable[[], Telling | None] = partial(
            read, span, dialect, attributes=attributes, attribution=entry.attribution, within=within
        )
        try:
            telling = self._price_span(span, entry, telling, attributes)
        except Exception as error:  # noqa: BLE001  # what it tells is recorded all the same
            failed("the cost on a span", error)
        if entry.inner:
            self._note("inside_ours")
            return
        if entry.bracket is not None:
            entry.bracket.hear(_HEARD)
            telling = partial(_in_bracket, entry.bracket, telling)
        with self._lock:
            if entry.calls:
                entry.deferred = telling
                return
        self._tell(telling)

    def _put_right(self, span: ReadableSpan, entry: _Open) -> None:
        """Whose the call is, where baggage of the same names was copied over it."""
        if self._write and entry.model and entry.attribution is not NOBODY:
            whose: dict[str, Any] = {}
            attribution_attributes(entry.attribution, self._keys, whose)
            held = span.attributes or {}
            if any(name in entry.baggage and held.get(name) != each for name, each in whose.items()):
                _write_onto(span, whose)

    def _price_span(
        self,
        span: ReadableSpan,
        entry: _Open,
        telling: Callable[[], Telling | None],
        attributes: Mapping[str, Any],
    ) -> Callable[[], Telling | None]:
        """Put the cost of a call onto its span where it is missing there. What the span tells, read if it had to be."""
        if entry.claim is not None:
            if COST_STATUS not in attributes and entry.claim.so_far is not None:
                _write_onto(span, entry.claim.so_far())
            elif attributes.get(COST_STATUS) == "unpriced":
                self._write_cost(span, telling())  # they may know a usage that our wrapper does not
            return telling
        hidden = entry.dialect is not None and entry.dialect.looks_inside and _is_long(attributes)
        if hidden or (entry.inner and not entry.silent) or not self._may_write(span, entry):
            return telling
        found = telling()
        self._enrich(span, entry, found)
        return partial(_as_is, found)

    def exported(self, span: Any) -> None:
        """A finished span, long after its end: nothing of where it stood is known any more."""
        dialect = self._dialect(scope_of(span), span.attributes or {})
        if dialect is None or _place(span.context) in self._ended:
            return
        word = dialect.word(span.name, span.attributes or {})
        if word in dialect.operations:
            self._tell(partial(read, span, dialect))
        elif word is not None:
            self._note("skipped_aggregate")

    # One span has the cost.

    def claim(self, around: Any, provider: str, operation: str, model: str | None) -> Claim | None:
        """The open span of somebody else that is of the call beginning here, so that ours needs none.

        That is the span `around`, or the one begun last in this context.
        """
        place, entry, span = self._around(around, provider, operation, model) if self._write else (None, None, None)
        if entry is None:
            return None
        entry.claim = Claim(span, entry, measured=_is_measured(entry, span))
        self._has_cost(place)
        return entry.claim

    def measured(self, around: Any, provider: str, operation: str, model: str | None) -> bool:
        """Whether somebody else's open span is of the call beginning here, and who made it records the token metric."""
        _, entry, span = self._around(around, provider, operation, model)
        return entry is not None and _is_measured(entry, span)

    def _around(
        self, around: Any, provider: str, operation: str, model: str | None
    ) -> tuple[Place | None, _Open | None, Any]:
        if self.active:
            for place in (_place(around.get_span_context()), _latest.get()):
                entry = None if place is None else self._open.get(place)
                span = None if entry is None else entry.span()
                if entry is not None and span is not None and self._is_of(entry, span, provider, operation, model):
                    return place, entry, span
        return None, None, None

    def _is_of(self, entry: _Open, span: Any, provider: str, operation: str, model: str | None) -> bool:
        """Whether an open span can be of such a call."""
        dialect = entry.dialect
        if dialect is None or entry.claim is not None or not entry.model or not span.is_recording():
            return False
        attributes = {**entry.known, **(span.attributes or {})}
        said = next((attributes[name] for name in dialect.fields["provider"] if attributes.get(name)), None)
        if isinstance(said, str) and not stands_for(provider_named(said, None), provider):
            return False
        word = dialect.word(span.name, attributes)
        if word is None:
            return NAMED.fullmatch(span.name) is not None
        of = dialect.operations.get(word)
        if of is None or (of == EMBEDDINGS) != (operation == EMBEDDINGS):
            return False
        asked = attributes.get(REQUEST_MODEL)
        return asked is None or model is None or same_model(bare_models(str(asked)), bare_models(model))

    def enter(self, around: Any) -> Inside | None:
        """A call of our wrapper begins inside the nearest model span of somebody else around the span `around`."""
        place: Place | None = _place(around.get_span_context())
        entry = self._open.get(place) if self.active and place is not None else None
        if entry is not None and not entry.model:
            place = entry.within
            entry = None if place is None else self._open.get(place)
        if entry is None or entry.dialect is None or place is None:
            return None
        with self._lock:
            entry.calls += 1
        return Inside(self, entry, place)

    def left(self, entry: _Open) -> None:
        """A call of our wrapper inside a model span has ended: if it was the last one, the span may tell."""
        with self._lock:
            entry.calls -= 1
            deferred = None if entry.calls else entry.deferred
            if deferred is not None:
                entry.deferred = None
        if deferred is not None:
            self._tell(deferred)

    def told(self, provider: str, operation: str, response_id: str | None, *, elsewhere: bool) -> None:
        """Our wrapper has seen the end of a call. `elsewhere`: its cost belongs on a span that ends later."""
        _keep(self._nearest, (provider, operation), Rank.OURS)
        if response_id and not elsewhere:
            _keep(self._costed, response_id, OURS)
        elif response_id and response_id not in self._costed:
            _keep(self._uncosted, response_id, None)

    def _has_cost(self, place: Place | None) -> None:
        """The cost of a call stands on this span or inside it: not on one around it, too."""
        while place is not None:
            entry = self._open.get(place)
            if entry is None or entry.costed:
                return
            entry.costed, place = True, entry.within

    def _may_write(self, span: ReadableSpan, entry: _Open) -> bool:
        """Whether an ended span may be the one that has the cost of its call."""
        return self._write and not entry.costed and span.context.trace_flags.sampled

    def _enrich(self, span: ReadableSpan, entry: _Open, telling: Telling | None) -> None:
        """Write the cost onto somebody else's span, unless a nearer one of the call has it."""
        if telling is None:
            return
        record = telling.record
        answer = record.response_id or ""
        if not entry.silent and answer not in self._uncosted and record.source not in self._silencing:
            calls = (record.provider, record.operation)
            nearest = max(self._nearest.get(calls, telling.rank), telling.rank)
            _keep(self._nearest, calls, nearest)
            if self._costed.get(answer, record.source) != record.source or (not answer and telling.rank < nearest):
                return
        self._has_cost(entry.within)
        if answer:
            self._uncosted.pop(answer, None)
            _keep(self._costed, answer, record.source)
        self._write_cost(span, telling)

    def _write_cost(self, span: ReadableSpan, telling: Telling | None) -> None:
        cost = None if telling is None else self._price(telling.record)
        if cost is not None:
            attributes: dict[str, Any] = {}
            cost_attributes(cost, attributes)
            _write_onto(span, attributes)

    # Whose it is.

    def _dialect(self, scope: str, attributes: Mapping[str, Any]) -> Dialect | None:
        """The dialect of a span: by its scope, else by an attribute that only model spans have."""
        found: Any = self._dialects.get(scope, _UNKNOWN)
        if found is _UNKNOWN:
            if len(self._dialects) >= _MOST:
                self._dialects.clear()
            found = self._dialects[scope] = dialect_of(scope)
        if found is not None or scope == OURS:
            return found  # type: ignore[no-any-return]
        return None if not attributes or _ANY_MARK.isdisjoint(attributes) else _marked(attributes)


def _is_measured(entry: _Open, span: Any) -> bool:
    return entry.dialect is not None and entry.dialect.measured(scope_of(span))


def _is_long(attributes: Mapping[str, Any]) -> bool:
    """Whether looking into its JSON takes longer than an application's thread should wait."""
    return any(isinstance(value, str) and len(value) > _LONG for value in attributes.values())


def _gone() -> None:
    """For what is no model span."""


def _marked(attributes: Mapping[str, Any]) -> Dialect:
    return next(dialect for mark, dialect in MARKS.items() if mark in attributes)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep at most so many; the oldest goes. Other threads may do the same."""
    if len(kept) >= _MOST and key not in kept:
        with suppress(RuntimeError, StopIteration):
            kept.pop(next(iter(kept)), None)
    kept[key] = value


def _write_onto(span: ReadableSpan, attributes: dict[str, Any]) -> None:
    """Add attributes to a span that has ended.

    The SDK has no public way (open-telemetry/opentelemetry-python#5614), but what is exported later is this same
    object, so it gets other attributes; an exporter may be reading those it has. An SDK that keeps them elsewhere, and
    a span that has no room left, are left as they are.
    """
    held: Any = getattr(span, "_attributes", None)
    if held is None:
        return
    if isinstance(held, MappingProxyType):  # Logfire hands copies on
        span._attributes = MappingProxyType({**held, **attributes})  # noqa: SLF001  # see above
        return
    most = getattr(held, "maxlen", 0)
    if most is None or len(held) + len(attributes) <= most:
        more = {**held, **attributes}
        span._attributes = type(held)(most, more, immutable=True, max_value_len=held.max_value_len)  # noqa: SLF001


def _place(context: Any) -> Place:
    return context.trace_id, context.span_id


def _in_bracket(bracket: Any, telling: Callable[[], Telling | None]) -> Telling | None:
    told = telling()
    return None if told is None else replace(told, bracket=bracket)


def _as_is(telling: Telling | None) -> Telling | None:
    return telling
