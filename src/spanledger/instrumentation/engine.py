"""What all calls share, and whom they ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from spanledger.instrumentation.telemetry import Telemetry
from spanledger.model import UsageRecord
from spanledger.pricing.loader import Prices

if TYPE_CHECKING:
    from spanledger.instrumentation.call import Call

_MOST_COMPLETED: Final = 4096


class Record(Protocol):
    """The recorder's `record`."""

    def __call__(self, build: Callable[[], UsageRecord | None], *, settles: bool = True) -> None:
        """Keep what `build` makes on the writer's thread."""


@dataclass(slots=True, kw_only=True)
class Engine:
    """What all calls share. `record` and `later` are the recorder's."""

    telemetry: Telemetry
    prices: Prices
    record: Record
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
