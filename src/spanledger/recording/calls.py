"""A call that somebody has told of, and what became of a telling."""

from __future__ import annotations

from dataclasses import dataclass

from spanledger.model import UsageRecord
from spanledger.recording.telling import Facts, Telling


@dataclass(slots=True, eq=False)
class Call:
    """A call that somebody has told of. `tellings` is empty once it is settled; the facts of each teller stay."""

    tellings: list[Telling]
    told: dict[str, Facts]
    """Facts by teller."""
    due: float
    record: UsageRecord | None = None
    """What they say together, completed; `None` once it is settled."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a telling: `recorded`, `merged`, `repeated` (the same span again) or `late` (already final).

    Of a report by hand also `differs` (from what was recorded) and `summed` (it is of several calls together).
    """

    name: str
    record: UsageRecord | None = None
    """The record to keep; `None` where there is nothing to keep."""
    call: Call | None = None
    """Where it may still change: by what it is found again."""
    dropped: tuple[str, ...] = ()
    """Ids of records that are none any more: they turned out to be of the same call."""
    before: UsageRecord | None = None
    """The record of the call until now."""
