"""What a receiver of records is: two methods and two kinds of error. Durability is the outbox's, never a sink's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Row = Mapping[str, Any]
"""One record under the ledger's column names, as `model.row_of` makes it; what is unknown may be left out."""


class Sink(Protocol):
    """Takes records in order, at least once each.

    It may have three more attributes. `idempotent = True`: a record that comes twice is kept once, so what is in a
    batch may change from one attempt to the next. `bulk`: how many records it takes at a time where more than a batch
    waits. `tidy()` is called about once an hour.
    """

    name: str

    def send(self, rows: Sequence[Row]) -> None:
        """Take the rows, all of them, or raise `SinkError`."""

    def close(self) -> None:
        """Let go of files and connections."""


class Poster(Protocol):
    """A sink whose receiver takes one thing per request, and can't tell that a request is a repetition.

    One request is under way at a time, and what was accepted is noted after each.
    """

    name: str

    def parts(self, row: Row) -> Sequence[Any]:
        """The requests that one record is. Raises `SinkError` for a record that can't be told to this receiver."""

    def post(self, part: Any, key: str) -> None:
        """Send one of them; `key` is the same at every attempt. Raises `SinkError`."""

    def close(self) -> None:
        """Let go of connections."""


class SinkError(Exception):
    """A delivery that failed.

    `permanent`: it will never succeed as it is, so the rows are split until the bad one stands alone and is put aside.
    Otherwise it is tried again, after `retry_after` seconds if the receiver said so.
    """

    def __init__(self, reason: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.permanent = permanent
        self.retry_after = retry_after
