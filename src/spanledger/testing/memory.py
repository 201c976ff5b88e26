"""A sink that remembers."""

from __future__ import annotations

from collections.abc import Sequence

from spanledger.recording.sink import Row


class MemorySink:
    """A sink that keeps what it is sent, once per record id."""

    name = "memory"

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def send(self, rows: Sequence[Row]) -> None:
        """Keep the rows."""
        self.rows.update({row["record_id"]: row for row in rows})

    def close(self) -> None:
        """Nothing is held."""
