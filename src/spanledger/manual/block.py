"""`track_usage`: a block in which an application calls a model, and says what that used."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from spanledger.attributes import type_of
from spanledger.context.scope import Frame, bracket_here, enter, leave, merge
from spanledger.guard import failed
from spanledger.instrumentation.call import is_cancel
from spanledger.manual.report import SAYS, Moment, checked, record_of, whose
from spanledger.model import Attribution, Cost, UsageRecord, now_ns, record_id_at
from spanledger.recording.bracket import Bracket, Heard

if TYPE_CHECKING:
    from spanledger.manual.desk import Desk


class Block:
    """A block under way. What is recorded in it is what the report is about: equal counts make no second call."""

    def __init__(self, desk: Desk | None, said: dict[str, Any]) -> None:
        checked(said)
        self._desk = desk
        self._first = self._said = said
        self._frame: Frame | None = None
        self._begin()
        self.record: UsageRecord | None = None
        """What is reported, with its cost once the block has ended; `None` until something is."""

    def _begin(self) -> None:
        self._said = dict(self._said)
        self._started_ns, self._t0 = now_ns(), time.perf_counter_ns()
        self._record_id = record_id_at(self._started_ns)
        self.bracket = Bracket(bracket_here(), whole=True)

    def set_usage(self, **said: Any) -> None:
        """What the call used, and what else is known by now, by the names that `track` takes.

        Raises `TypeError` for a name there is none of.
        """
        checked(said)
        self._said.update(said)
        try:
            self._report()
        except Exception as mistake:  # noqa: BLE001  # a door
            failed("a report of usage", mistake)

    def __enter__(self) -> Self:
        """Begin. Never raises."""
        if self._frame is not None:  # once more
            self._said = self._first
            self._begin()
        self._frame = enter(self._change, self, self.bracket)
        if self._desk is not None:
            self._desk.prices.warm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, and report. Never raises; the block's own exception goes on."""
        try:
            if error is not None and "status" not in self._said:
                cancelled = is_cancel(error)
                self._said["status"] = "cancelled" if cancelled else "error"
                self._said["error_type"] = None if cancelled else type_of(error)
            forked = self._frame is None or self._frame.closed
            if not forked:
                self._report(ended=True)
        except Exception as mistake:  # noqa: BLE001  # a door
            failed("the usage of a block", mistake)
        finally:
            self.bracket.ended = True
            if self._frame is not None:
                leave(self._frame)
            if self._desk is not None:
                self._desk.ended(self.bracket)

    async def __aenter__(self) -> Self:
        """Begin. Never raises."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, and report. Never raises; the block's own exception goes on."""
        self.__exit__(kind, error, trace)

    def _change(self, outer: Attribution) -> Attribution:
        return merge(outer, whose(self._said))

    def _report(self, *, ended: bool = False) -> None:
        duration = time.perf_counter_ns() - self._t0
        record = record_of(self._said, Moment(self._started_ns, duration), self._record_id)
        if self._desk is None:
            self.record = record
        else:
            self.record = self._desk.report(record, self.bracket, ended=ended, says=bool(SAYS & self._said.keys()))


def heard_cost(bracket: Bracket, record: UsageRecord, price: Callable[[UsageRecord], UsageRecord]) -> Cost | None:
    """The cost of the calls that were seen in a bracket, if the report is of them all and they have prices."""
    calls = [each for each in bracket.heard if not each.failed]
    total = sum(each.usage.output_tokens or 0 for each in calls)
    if not calls or record.usage.output_tokens not in (None, total):
        return None
    costs = [each.cost or price(_as_seen(record, each)).cost for each in calls]
    known = [each.cost_pusd for each in costs if each is not None and each.cost_pusd is not None]
    if len(known) < len(calls):
        return None
    return costs[0] if len(costs) == 1 else Cost(sum(known), None, "USD", "local", "priced")


def _as_seen(record: UsageRecord, heard: Heard) -> UsageRecord:
    asked, answered = heard.models
    return replace(
        record, provider=heard.provider, request_model=asked, response_model=answered, usage=heard.usage, cost=None
    )
