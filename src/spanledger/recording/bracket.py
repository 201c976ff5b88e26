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
    models: tuple[str | None, str | None]
    """Asked, answered."""
    usage: Usage
    cost: Cost | None
    """`None` where it was not priced at once."""
    failed: bool


class Bracket:
    """Open until it has `ended`. An implicit one is around a single call, which may be reported after it."""

    __slots__ = (
        "begun", "calls", "claims", "done", "ended", "heard", "implicit", "outer", "released", "reports", "rows",
        "told", "whole",
    )  # fmt: skip

    def __init__(self, outer: Bracket | None = None, *, whole: bool = False, implicit: object = None) -> None:
        self.outer = outer
        self.whole = whole
        """Whether a report is about all that is in it, rather than about one call after the other."""
        self.implicit = implicit
        """Whose it is, if it is an implicit one."""
        self.ended = False
        self.begun: list[None] = []
        """One for each call that our wrapper has seen the begin of, on whatever thread."""
        self.heard: list[Heard] = []
        """Calls that have ended."""
        # The rest is the writer's thread's alone.
        self.released = False
        """Whether it is known there that it has ended."""
        self.done = False
        """Whether all calls that have begun have been told of, too."""
        self.told = 0
        """How many of them have been."""
        self.calls: list[Any] = []
        """Calls in it, and in those inside it."""
        self.rows: list[Any] = []
        """Records of reports of its own that are of no call yet."""
        self.reports: dict[str, Any] = {}
        """Record id of a report → what became of it."""
        self.claims: dict[Any, Any] = {}
        """Call → the report that is about it."""

    def begin(self) -> None:
        """A call begins in it."""
        bracket: Bracket | None = self
        while bracket is not None:
            bracket.begun.append(None)
            bracket = bracket.outer

    def hear(self, heard: Heard) -> None:
        """A call has ended in it."""
        bracket: Bracket | None = self
        while bracket is not None:
            bracket.heard.append(heard)
            bracket = bracket.outer


recent: Final[ContextVar[tuple[Bracket, ...]]] = ContextVar("spanledger.recent", default=())
"""Implicit brackets of the calls that have ended in this context and are not reported yet, the last ones."""


def remember(bracket: Bracket) -> None:
    """A call has ended here that may be reported."""
    recent.set((*recent.get()[1 - _MOST_RECENT :], bracket))


def forget(bracket: Bracket) -> None:
    """It was reported."""
    recent.set(tuple(each for each in recent.get() if each is not bracket))
