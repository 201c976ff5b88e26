"""What users and we test with: a provider that answers on this machine, and a sink that remembers.

`python -m spanledger.testing.loopback` speaks OpenAI's wire format well enough for the real SDK, costs nothing and
knows exactly what it has answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from spanledger.recording.sink import Row
from spanledger.testing.loopback import Loopback

__all__ = ["Loopback", "MemorySink"]


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
