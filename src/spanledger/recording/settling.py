"""Once: several tellers of one call make one record.

A record waits a moment for other tellers before it is final. What is final is still remembered for a while, so that
whoever comes late makes no second record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from spanledger.model import UsageRecord
from spanledger.recording.calls import Call, Outcome
from spanledger.recording.reported import HELD, Reports
from spanledger.recording.telling import (
    Facts,
    Rank,
    Telling,
    contradict,
    encloses,
    facts_of,
    merged,
    nested,
    overlap,
    same_counts,
    same_request,
)  # fmt: skip

WINDOW: Final = 2.0
"""Seconds that a record waits for other tellers. Frameworks end their spans within milliseconds of the SDK's; LiteLLM
tells from a thread of its own, a little later."""
MOST_KNOWN: Final = 10_000
MOST_OPEN: Final = 10_000
_MOST_LOOKED_AT: Final = 256
_MOST_TELLERS: Final = 8
_GONE: Final = object()


class Settling:
    """The calls of this process, each once. For one thread; `clock` in seconds, monotonic."""

    def __init__(self, others: Callable[[], bool], clock: Callable[[], float]) -> None:
        self._others = others
        self._clock = clock
        self._reports = Reports(self)
        self.release = self._reports.release
        self._known: deque[Call] = deque()
        self._open: deque[Call] = deque()
        self._held: dict[Call, None] = {}
        """Open, and in a bracket."""
        self._numberless: deque[Call] = deque(maxlen=_MOST_LOOKED_AT)
        """Calls of which a teller had no numbers."""
        self._by_response: dict[str, deque[Call]] = {}
        self._by_span: dict[str, Call] = {}
        self._by_within: dict[str, deque[Call]] = {}
        self._by_counts: dict[tuple[int, int], deque[Call]] = {}

    @property
    def next_due(self) -> float | None:
        """When the next record becomes final."""
        first = [*islice(self._open, 1), *islice(self._held, 1)]
        return min((call.due for call in first), default=None)

    def admit(self, telling: Telling) -> Outcome:
        """Take in what a teller says."""
        outcome = self._admit(telling)
        if telling.rank is Rank.OURS and telling.bracket is not None:
            self._reports.ended(telling.bracket)
        return outcome

    def _admit(self, telling: Telling) -> Outcome:
        facts, teller = facts_of(telling), telling.record.source
        if telling.rank is Rank.MANUAL and telling.bracket is not None:
            return self._reports.admit(telling, facts, telling.bracket)
        span = _key(facts.trace_id, facts.span_id)
        known = self._by_span.get(span) if span else None
        again = known is not None and teller in known.told and known.told[teller].span_id == facts.span_id
        if again and telling.rank < Rank.OURS:  # ours tells of each call once
            return Outcome("repeated")
        call, reason, more = self._match(teller, facts)
        if call is None:
            outcome = None if telling.bracket is None else self._reports.met(telling, facts, telling.bracket)
            return outcome or self._new(telling, facts)
        if len(call.told) >= _MOST_TELLERS:
            return Outcome("repeated")
        dropped = self._join(call, more, teller)
        self.tell(call, teller, facts)
        if not call.tellings:
            return Outcome("late", dropped=dropped)
        call.tellings.append(telling)
        return self._merged(call, reason, dropped)

    def _merged(self, call: Call, reason: str, dropped: tuple[str, ...] = ()) -> Outcome:
        before, call.record = call.record, merged(call.tellings, reason)
        return Outcome("merged", call.record, call, dropped, before)

    # What reports by hand need.

    def tell(self, call: Call, teller: str, facts: Facts) -> None:
        """The facts of a teller of a call, in the place of those it has told before."""
        before = call.told.get(teller)
        if before is not None:
            self._unindex(call, before)
        call.told[teller] = facts
        self._index(call, facts)

    def new(self, telling: Telling, facts: Facts) -> Outcome:
        """A call that nobody else has told of."""
        return self._new(telling, facts)

    def add(self, call: Call, telling: Telling, facts: Facts, reason: str) -> Outcome:
        """Another telling of a call that is open."""
        self.tell(call, telling.record.source, facts)
        call.tellings.append(telling)
        return self._merged(call, reason)

    def replaced(self, call: Call, tellings: list[Telling], name: str = "merged") -> Outcome:
        """Other tellings in the place of those of a call that is open; its id stays."""
        before = call.record
        assert before is not None  # noqa: S101  # it is open
        first = replace(tellings[0], record=replace(tellings[0].record, record_id=before.record_id))
        call.tellings = [first, *tellings[1:]]
        call.record = first.record if len(tellings) == 1 else merged(call.tellings, "report")
        return Outcome(name, call.record, call, before=before)

    def displaced(self, call: Call, telling: Telling, facts: Facts) -> Outcome:
        """The telling of somebody who knows better, in the place of all there are; the id stays."""
        for told in call.told.values():
            self._unindex(call, told)
        call.told = {}
        self.tell(call, telling.record.source, facts)
        return self.replaced(call, [telling])

    def let_go(self, calls: Sequence[Call]) -> None:
        """What calls were held for has come to its end."""
        others = self._others()
        free = [call for call in calls if self._held.pop(call, _GONE) is not _GONE]
        free.sort(key=lambda call: call.due)
        for call in free:
            call.due = self._clock() + (WINDOW if others else 0.0)
        self._open.extend(free) if others else self._open.extendleft(reversed(free))

    def take_back(self, call: Call) -> str | None:
        """The id of the record of a call that turned out to be none, if it is open; it is not kept."""
        name = None if call.record is None else call.record.record_id
        call.tellings, call.record = [], None
        self._held.pop(call, None)
        return name

    def completed(self, outcome: Outcome, record: UsageRecord) -> None:
        """The record of an outcome, with its service and price."""
        call = outcome.call
        if call is not None:
            call.record = record
            if len(call.tellings) == 1:  # its price may stand when another teller comes
                call.tellings[0] = replace(call.tellings[0], record=record)

    def abandon(self, outcome: Outcome) -> None:
        """The record of an outcome can't be made: the call stays as it was before, or is not counted at all."""
        call = outcome.call
        if call is not None:
            call.record = outcome.before
            call.tellings = call.tellings[:-1] if outcome.before is not None else []

    def due(self, *, all_of_them: bool = False, held: bool = False) -> list[UsageRecord]:
        """The records that are final now; `held` are those in brackets."""
        now, ended = self._clock(), []
        while self._open and (all_of_them or len(self._open) > MOST_OPEN or self._open[0].due <= now):
            ended.append(self._open.popleft())
        while self._held and (held or len(self._held) > MOST_OPEN or self._first_held().due <= now):
            ended.append(self._first_held())
            del self._held[ended[-1]]
        final = [call.record for call in ended if call.record is not None]
        for call in ended:
            call.tellings, call.record = [], None
        return final

    def _first_held(self) -> Call:
        return next(iter(self._held))

    def _new(self, telling: Telling, facts: Facts) -> Outcome:
        bracket = None if telling.bracket is None or telling.bracket.done else telling.bracket
        told_by_others = Rank.MANUAL < telling.rank < Rank.OURS
        waits = telling.final and (told_by_others or self._others() or bracket is not None)
        call = Call(
            [telling] if waits else [],
            {telling.record.source: facts},
            self._clock() + (WINDOW if bracket is None or bracket.implicit else HELD),
            telling.record if waits else None,
        )
        if telling.bracket is not None:
            self._reports.know(call, telling)
        self._known.append(call)
        self._index(call, facts)
        if waits and bracket is not None and not bracket.implicit:
            self._held[call] = None
        elif waits:
            self._open.append(call)
        if len(self._known) > MOST_KNOWN:
            self._forget(self._known.popleft())
        return Outcome("recorded", telling.record, call if waits else None)

    def _join(self, call: Call, more: list[Call], teller: str) -> tuple[str, ...]:
        """Other calls that this telling shows to be the same one: the ids of their records, which are none any more."""
        dropped = []
        for other in more:
            fits = other.tellings and teller not in other.told and not other.told.keys() & call.told.keys()
            if not fits or any(contradict(a, b) for a in call.told.values() for b in other.told.values()):
                continue
            dropped.append(other.tellings[0].record.record_id)
            if call.tellings:
                call.tellings += other.tellings
            other.tellings, other.record = [], None
            for facts in other.told.values():
                self._index(call, facts)
            call.told.update(other.told)
        return tuple(dropped)

    # Who has told of the same call?

    def _match(self, teller: str, facts: Facts) -> tuple[Call | None, str, list[Call]]:
        """The call a telling is of, by what that is known, and further ones that must be the same one.

        The surest sign comes first.
        """
        found: tuple[Call, str] | None = None
        more: list[Call] = []
        for reason, candidates, fits in (
            ("span", self._at_span(facts), _always),
            ("response_id", self._by_response.get(facts.response_id or "", ()), _same_answer),
            ("nesting", self._nested(facts), same_request),
            ("counts", self._with_counts(facts), _same_numbers),
            ("time", self._without_numbers(facts), _same_time),
        ):
            if found is not None and reason != "nesting":
                continue
            fitting = [
                call
                for call in candidates
                if teller not in call.told
                and any(fits(facts, told) for told in call.told.values())
                and not any(_differs(facts, told, reason) for told in call.told.values())
            ]
            if found is None and fitting:
                nearest = min(fitting, key=lambda call: _distance(call, facts))
                found = nearest, reason
            if found is not None and reason == "nesting":
                more = [call for call in fitting if call is not found[0]]
        return (None, "", []) if found is None else (*found, more)

    def _at_span(self, facts: Facts) -> Iterable[Call]:
        span = _key(facts.trace_id, facts.span_id)
        found = self._by_span.get(span) if span else None
        return () if found is None else (found,)

    def _nested(self, facts: Facts) -> Iterable[Call]:
        around, span = _key(facts.trace_id, facts.within), _key(facts.trace_id, facts.span_id)
        found = list(self._by_within.get(span, ())) if span else []
        outer = self._by_span.get(around) if around else None
        return found if outer is None else [*found, outer]

    def _with_counts(self, facts: Facts) -> Iterable[Call]:
        counts = _counts(facts)
        return () if counts is None else self._by_counts.get(counts, ())

    def _without_numbers(self, facts: Facts) -> Iterable[Call]:
        """Calls of which one side has no numbers at all; only among those told lately."""
        if facts.usage.usage_status != "missing":
            return reversed(self._numberless)
        count = len(self._known)
        return (self._known[index] for index in range(count - 1, max(-1, count - 1 - _MOST_LOOKED_AT), -1))

    # What is remembered.

    def _index(self, call: Call, facts: Facts) -> None:
        span = _key(facts.trace_id, facts.span_id)
        if span:
            self._by_span[span] = call
        if facts.usage.usage_status == "missing":
            self._numberless.append(call)
        for index, key in self._lists(facts):
            if key is not None:
                calls = index.setdefault(key, deque(maxlen=_MOST_LOOKED_AT))
                if call not in calls:
                    calls.append(call)

    def _lists(self, facts: Facts) -> tuple[tuple[dict[Any, deque[Call]], Any], ...]:
        return (
            (self._by_response, facts.response_id or None),
            (self._by_within, _key(facts.trace_id, facts.within)),
            (self._by_counts, _counts(facts)),
        )

    def _forget(self, call: Call) -> None:
        with suppress(ValueError):
            self._numberless.remove(call)
        for facts in call.told.values():
            self._unindex(call, facts)

    def _unindex(self, call: Call, facts: Facts) -> None:
        span = _key(facts.trace_id, facts.span_id)
        if span and self._by_span.get(span) is call:
            del self._by_span[span]
        for index, key in self._lists(facts):
            calls = index.get(key)
            if calls is not None:
                with suppress(ValueError):
                    calls.remove(call)
                if not calls:
                    del index[key]


def _key(trace_id: str | None, span_id: str | None) -> str | None:
    return trace_id + span_id if trace_id and span_id else None


def _counts(facts: Facts) -> tuple[int, int] | None:
    usage = facts.usage
    if usage.input_tokens is None or not (usage.input_tokens or usage.output_tokens):
        return None
    return usage.input_tokens, usage.output_tokens or 0


def _distance(call: Call, facts: Facts) -> tuple[bool, bool, float]:
    """Of several calls that fit, the one with the same counts, in the same trace, and nearest in time.

    A span around two attempts, of which the first failed, is of the second one.
    """
    told = call.told.values()
    equal = any(_counts(each) == _counts(facts) for each in told)
    near = any(each.trace_id == facts.trace_id for each in told)
    return not equal, not near, min(abs((each.started_at - facts.started_at).total_seconds()) for each in told)


def _always(_: Facts, __: Facts) -> bool:
    return True


def _differs(one: Facts, other: Facts, reason: str) -> bool:
    """Whether a telling of a call speaks against another. On one span only another answer's id does."""
    if reason == "span":
        return bool(one.response_id and other.response_id and one.response_id != other.response_id)
    return contradict(one, other)


def _same_answer(one: Facts, other: Facts) -> bool:
    return same_request(one, other) and (nested(one, other) or same_counts(one.usage, other.usage))


def _same_numbers(one: Facts, other: Facts) -> bool:
    if one.by_hand or other.by_hand:  # a coincidence
        return False
    return not (one.response_id and other.response_id) and same_request(one, other) and overlap(one, other)


def _same_time(one: Facts, other: Facts) -> bool:
    if (one.response_id and other.response_id) or one.by_hand or other.by_hand:
        return False
    lacking = "missing" in (one.usage.usage_status, other.usage.usage_status)
    named = one.models and other.models
    return bool(lacking and named) and same_request(one, other) and (encloses(one, other) or encloses(other, one))
