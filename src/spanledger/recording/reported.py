"""What an application reports by hand of a stretch of its work (a bracket) is about the calls recorded there.

A report makes a record of its own, its *row*, only where there is no call that it is of. It may come again, more
complete, and the call may come after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, Final, Protocol

from spanledger.model import Usage, at, now_ns, record_id_at
from spanledger.recording.bracket import Bracket
from spanledger.recording.calls import Call, Outcome
from spanledger.recording.telling import Facts, Rank, Telling, may_be_of, reports

HELD: Final = 120.0
"""Seconds that a record waits for the end of its bracket."""
_MOST_LOOKED_AT: Final = 256


@dataclass(slots=True, eq=False)
class Report:
    """What became of a report so far."""

    of: Call | None = None
    """The call it describes."""
    row: Call | None = None
    """Its own record, where it describes none."""
    claimed: tuple[Call, ...] = ()
    """Calls that it is about without describing them."""
    told: Telling | None = None
    """What it has said last without being of a call."""
    settled: Telling | None = None
    """What of that is in a row that is final."""


class Calls(Protocol):
    """Those who keep the calls."""

    def new(self, telling: Telling, facts: Facts) -> Outcome:
        """A call that nobody else has told of."""

    def tell(self, call: Call, teller: str, facts: Facts) -> None:
        """The facts of a teller of a call, in the place of those it has told before."""

    def add(self, call: Call, telling: Telling, facts: Facts, reason: str) -> Outcome:
        """Another telling of a call that is open."""

    def replaced(self, call: Call, tellings: list[Telling], name: str = "merged") -> Outcome:
        """Other tellings in the place of those of a call that is open."""

    def displaced(self, call: Call, telling: Telling, facts: Facts) -> Outcome:
        """The telling of somebody who knows better, in the place of all there are; the id stays."""

    def let_go(self, calls: Sequence[Call]) -> None:
        """What calls were held for has come to its end."""

    def take_back(self, call: Call) -> str | None:
        """The id of the record of a call that turned out to be none, if it is open."""


class Reports:
    """Brings reports and calls together. For one thread."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def know(self, call: Call, telling: Telling) -> None:
        """A call was told of in a bracket, or a report has made its row."""
        if telling.rank is not Rank.MANUAL:
            for each in _around(telling.bracket):
                each.calls.append(call)
        elif telling.bracket is not None:
            telling.bracket.rows.append(call)
            for each in _around(telling.bracket.outer):
                each.calls.append(call)

    # A report.

    def admit(self, telling: Telling, facts: Facts, bracket: Bracket) -> Outcome:
        """Take in what the application says of a bracket."""
        report: Report = bracket.reports.setdefault(telling.record.record_id, Report())
        if report.of is not None:
            return self._again(report.of, telling, facts)
        latest = islice(reversed(bracket.calls), _MOST_LOOKED_AT)
        known = [call for call in latest if bracket.claims.get(call, report) is report]
        fitting = [call for call in known if _any(reports, facts, call)]
        counted = _is_counted(facts)
        if len(fitting) == 1 or (fitting and counted):
            return self._describe(report, _nearest(fitting, facts), telling, facts, bracket)
        about = [call for call in known if _any(may_be_of, facts, call)]
        if about:
            summed = _sums_up(facts, about)
            before = report.claimed
            self._claim(report, tuple(about) if summed else (about[0],), bracket)
            name = "summed" if summed else "differs"
            again = not counted or before == report.claimed
            return Outcome("repeated" if again else name, dropped=self._no_row(report, bracket))
        return self._on_its_own(report, telling, facts)

    def _describe(self, report: Report, call: Call, telling: Telling, facts: Facts, bracket: Bracket) -> Outcome:
        dropped = self._no_row(report, bracket)
        self._claim(report, (), bracket)
        report.of, bracket.claims[call] = call, report
        if not call.tellings:
            return Outcome("late", dropped=dropped)
        return replace(self._calls.add(call, telling, facts, "report"), dropped=dropped)

    @staticmethod
    def _claim(report: Report, calls: tuple[Call, ...], bracket: Bracket) -> None:
        for call in report.claimed:
            bracket.claims.pop(call, None)
        bracket.claims.update(dict.fromkeys(calls, report))
        report.claimed = calls

    def _again(self, call: Call, telling: Telling, facts: Facts) -> Outcome:
        """The same report of the same call."""
        if not call.tellings:
            return Outcome("late")
        name = telling.record.record_id
        rest = [each for each in call.tellings if each.rank is not Rank.MANUAL or each.record.record_id != name]
        seen = [told for teller, told in call.told.items() if teller != telling.record.source]
        self._calls.tell(call, telling.record.source, facts)
        if not seen or any(reports(facts, told) for told in seen):
            return self._calls.replaced(call, [*rest, telling])
        return Outcome("differs") if len(rest) == len(call.tellings) else self._calls.replaced(call, rest, "differs")

    def _on_its_own(self, report: Report, telling: Telling, facts: Facts) -> Outcome:
        """The row of a report; of one whose row is final already, a row of what has come since."""
        row = report.row
        if row is not None and not row.tellings:
            report.row, report.settled = None, report.told
        report.told = telling
        more = telling if report.settled is None else _more(telling, report.settled)
        if more is None:
            return Outcome("late")
        if report.row is not None:
            self._calls.tell(report.row, telling.record.source, facts)
            return self._calls.replaced(report.row, [more])
        outcome = self._calls.new(more, facts)
        report.row = outcome.call
        return outcome

    def _no_row(self, report: Report, bracket: Bracket) -> tuple[str, ...]:
        """The record of a report that turned out to be of a call is none any more, if it is open."""
        row, report.row = report.row, None
        if row is None or not row.tellings:
            return ()
        for each in _around(bracket):
            for calls in (each.rows, each.calls):
                if row in calls:
                    calls.remove(row)
        name = self._calls.take_back(row)
        return () if name is None else (name,)

    # A call, after its report.

    def met(self, telling: Telling, facts: Facts, bracket: Bracket) -> Outcome | None:
        """What becomes of a call whose report was faster; `None` where there is none."""
        for each in _around(bracket):
            for row in each.rows:
                told, *others = row.told.values()
                if others:  # somebody else's span has told of it
                    continue
                if reports(told, facts):
                    self._is_of(each, row)
                    return self._calls.add(row, telling, facts, "report") if row.tellings else Outcome("late")
                under_way = each.whole or facts.started_at <= told.ended_at
                if row.tellings and under_way and may_be_of(told, facts):
                    self._is_of(each, row)
                    return self._calls.displaced(row, telling, facts)
        return None

    def _is_of(self, bracket: Bracket, row: Call) -> None:
        """The row of a report has become the record of its call."""
        bracket.rows.remove(row)
        for each in _around(bracket):
            if each is bracket or row not in each.calls:
                each.calls.append(row)
        for report in bracket.reports.values():
            if report.row is row:
                report.of, report.row = row, None
                bracket.claims[row] = report

    # The end.

    def ended(self, bracket: Bracket) -> None:
        """A call that our wrapper has seen begin in a bracket was told of."""
        for each in _around(bracket):
            each.told += 1
            if each.released and not each.done:
                self.release(each)

    def release(self, bracket: Bracket) -> None:
        """A bracket has ended: its records wait for no report any more, and its reports only for calls under way."""
        bracket.released = True
        bracket.done = len(bracket.begun) <= bracket.told
        if bracket.outer is None or bracket.outer.released:
            self._calls.let_go([*bracket.calls, *(bracket.rows if bracket.done else ())])


def _around(bracket: Bracket | None) -> Iterator[Bracket]:
    while bracket is not None:
        yield bracket
        bracket = bracket.outer


def _any(fits: Any, facts: Facts, call: Call) -> bool:
    return any(fits(facts, told) for told in call.told.values())


def _is_counted(facts: Facts) -> bool:
    return (facts.usage.input_tokens, facts.usage.output_tokens) != (None, None)


def _nearest(calls: Sequence[Call], facts: Facts) -> Call:
    def distance(call: Call) -> float:
        return min(abs((told.started_at - facts.started_at).total_seconds()) for told in call.told.values())

    return min(calls, key=distance)


def _sums_up(report: Facts, calls: Sequence[Call]) -> bool:
    """Whether a report is the sum of several calls."""
    usages = [next(iter(call.told.values())).usage for call in calls]
    said = report.usage
    return (
        len(calls) > 1
        and _is_counted(report)
        and said.input_tokens in (None, sum(each.input_tokens or 0 for each in usages))
        and said.output_tokens in (None, sum(each.output_tokens or 0 for each in usages))
    )


def _more(telling: Telling, before: Telling) -> Telling | None:
    """What a report says beyond what it has said before, as a report of its own; `None` if that is nothing."""
    now, then = telling.record, before.record
    counts: dict[str, Any] = {
        each.name: max(0, known - (getattr(then.usage, each.name) or 0))
        for each in fields(Usage)
        if isinstance(known := getattr(now.usage, each.name), int)
    }
    stated, known = (None if each.cost is None else each.cost.cost_pusd for each in (now, then))
    more = None if stated is None else stated - (known or 0)
    if not any(counts.values()) and not more:
        return None
    cost = None
    if now.cost is not None and more is not None:
        cost = now.cost._replace(cost_pusd=more, cost_breakdown={"stated": more} if more else {})
    usage = Usage(usage_status=now.usage.usage_status, **counts)
    started = now_ns()
    return replace(
        telling,
        record=replace(
            now, record_id=record_id_at(started), started_at=at(started), duration_ns=None, usage=usage, cost=cost,
            raw_usage=None, usage_shape=None,
        ),
    )  # fmt: skip
