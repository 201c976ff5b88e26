"""A stretch of an application's work of which it reports the usage by hand.

What is recorded in it and what is said of it are of the same calls: a report makes a record of its own only where it
tells of a call that nothing else has told of.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from spanledger.model import Cost, Usage

_MOST_RECENT: Final = 8


class Heard(NamedTuple):
    """A call that has ended in a bracket."""

    provider: str
    models: tuple[str | None, ...]
    usage: Usage
    cost: Cost | None
    """`None` where it was not priced at once."""
    failed: bool


class Bracket:
    """Open until it has `ended`. An implicit one is around a single call, which may be reported after it."""

    __slots__ = ("calls", "ended", "heard", "implicit", "released", "reports")

    def __init__(self, *, implicit: bool = False) -> None:
        self.implicit = implicit
        self.ended = False
        self.released = False
        """Whether the writer's thread knows that it has ended."""
        self.heard: list[Heard] = []
        """Calls that our wrapper has seen the end of, on whatever thread."""
        self.calls: list[Any] = []
        """Those that are settled together: of the writer's thread alone."""
        self.reports: dict[str, Any] = {}
        """Record id of a report → the call it describes, `None` where it made no difference. As above."""


recent: Final[ContextVar[tuple[Bracket, ...]]] = ContextVar("spanledger.recent", default=())
"""Implicit brackets of the calls that have ended in this context and are not reported yet, the last ones."""


def remember(bracket: Bracket) -> None:
    """A call has ended here that may be reported."""
    recent.set((*recent.get()[1 - _MOST_RECENT :], bracket))


def forget(bracket: Bracket) -> None:
    """It was reported."""
    recent.set(tuple(each for each in recent.get() if each is not bracket))
