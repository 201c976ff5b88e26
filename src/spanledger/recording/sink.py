"""What a receiver of records is: two methods and two kinds of error. Durability is the outbox's, never a sink's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Row = Mapping[str, Any]
"""One record under the ledger's column names, as `model.row_of` makes it."""


class Sink(Protocol):
    """Takes records in order, at least once each."""

    name: str

    def send(self, rows: Sequence[Row]) -> None:
        """Take the rows, all of them, or raise `SinkError`."""

    def close(self) -> None:
        """Let go of files and connections."""


class SinkError(Exception):
    """A delivery that failed.

    `permanent`: it will never succeed as it is, so the rows are split until the bad one stands alone and is put aside.
    Otherwise it is tried again, after `retry_after` seconds if the receiver said so. `taken`: how many of the leading
    rows the receiver has taken all the same.
    """

    def __init__(
        self, reason: str, *, permanent: bool = False, retry_after: float | None = None, taken: int = 0
    ) -> None:
        super().__init__(reason)
        self.permanent = permanent
        self.retry_after = retry_after
        self.taken = taken
