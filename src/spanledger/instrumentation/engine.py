"""What all calls share, and whom they ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from spanledger.attributes import Written
from spanledger.instrumentation.telemetry import Telemetry
from spanledger.model import UsageRecord
from spanledger.pricing.loader import Prices
from spanledger.recording.bracket import Bracket
from spanledger.recording.telling import Telling

if TYPE_CHECKING:
    from spanledger.instrumentation.call import Call

_MOST_COMPLETED: Final = 4096


class Record(Protocol):
    """The recorder's `record`."""

    def __call__(self, build: Callable[[], UsageRecord | Telling | Bracket | None], *, settles: bool = True) -> None:
        """Keep what `build` makes on the writer's thread."""


def _nothing() -> None:
    """Where nobody else's spans are read."""


class Claim(Protocol):
    """Somebody else's span of a call that our wrapper watches."""

    span: Any
    measured: bool
    """Whether who made it records the token metric, too."""
    so_far: Callable[[], dict[str, Any]] | None
    """What to write onto the span if it ends before the call has."""

    def release(self) -> None:
        """The call has failed: another attempt may use the span."""


class Inside(Protocol):
    """A place inside somebody else's model span."""

    span_id: str

    def leave(self) -> None:
        """The call there has ended."""


class Others(Protocol):
    """Those who make spans of model calls, too."""

    def claim(self, around: Any, provider: str, operation: str, model: str | None) -> Claim | None:
        """The open span of somebody else that is of the call beginning here, inside the span `around`."""

    def measured(self, around: Any, provider: str, operation: str, model: str | None) -> bool:
        """Whether there is such a span, and who made it records the token metric."""

    def enter(self, around: Any) -> Inside | None:
        """A call begins inside the nearest of their model spans around the span `around`."""

    def told(self, provider: str, operation: str, response_id: str | None, *, elsewhere: bool) -> None:
        """A call has ended; `elsewhere` if its cost is to stand on somebody else's span, which ends later."""


@dataclass(slots=True, kw_only=True)
class Engine:
    """What all calls share. `record` and `later` are the recorder's."""

    telemetry: Telemetry
    prices: Prices
    record: Record
    later: Callable[[Callable[[], Any]], None]
    span_keys: tuple[Written, ...]
    request_user: bool = False
    """Whether the user that a request names is believed."""
    stream_usage: str = "auto"
    chunk_histogram: bool = False
    notice: Callable[[], None] = _nothing
    """Looks whether there is another tracer provider than before. Called before each call."""
    others: Others | None = None
    """Those who make spans of calls, too; `None` where theirs are not read."""
    shares_spans: bool = False
    """Whether a call of which somebody else makes a span needs none of ours."""
    reported_after: bool = False
    """Whether the application reports calls by hand after they have ended."""
    open_streams: dict[Call, None] = field(default_factory=dict)
    """Calls whose stream has not ended. Whoever takes one out is its first end, and the only one that counts."""
    unplaced: set[str] = field(default_factory=set)
    """Providers of which somebody should have made a span, and did not: ours are made again."""
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
