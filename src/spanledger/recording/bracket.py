"""A stretch of an application's work of which it reports the usage by hand.

What is recorded in it and what is said of it are of the same calls: a report makes a record of its own only where it
tells of a call that nothing else has told of.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from spanledger.model import Cost, Usage


class Heard(NamedTuple):
    """A call that has ended in a bracket."""

    usage: Usage
    cost: Cost | None
    """`None` where it was not priced at once."""
    failed: bool


class Bracket:
    """Open until it has `ended`."""

    __slots__ = ("calls", "ended", "heard", "released", "reports")

    def __init__(self) -> None:
        self.ended = False
        self.released = False
        """Whether the writer's thread knows that it has ended."""
        self.heard: list[Heard] = []
        """Calls that our wrapper has seen the end of, on whatever thread."""
        self.calls: list[Any] = []
        """Those that are settled together: of the writer's thread alone."""
        self.reports: dict[str, Any] = {}
        """Record id of a report → the call it describes, `None` where it made no difference. As above."""
