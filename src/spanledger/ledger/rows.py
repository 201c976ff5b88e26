"""What both ledgers share: columns, how a row that is there is completed, and how a ledger is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from spanledger.model import COLUMNS

__all__ = ["COLUMNS", "Asked", "enriched"]

# A background call is told of twice: when it is made and when its answer is there. The first telling to arrive makes
# the row, the other one completes it; what is known never changes.
_FINAL: Final = "usage_records.status = 'incomplete' AND excluded.status <> 'incomplete'"
_OUTCOME: Final = ("status", "usage_status", "cost_status", "cost_source")


def enriched(names: Iterable[str]) -> str:
    """What an upsert of these columns sets where the record is there already."""
    return ", ".join(
        f"{name} = CASE WHEN {_FINAL} THEN excluded.{name} ELSE usage_records.{name} END"
        if name in _OUTCOME
        else f"{name} = coalesce(usage_records.{name}, excluded.{name})"
        for name in names
        if name not in ("record_id", "recorded_at")
    )


class Asked(Protocol):
    """A connection to a ledger. Its rows are read by number or by name."""

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), /) -> Any:
        """A cursor. Values stand in the statement as `?` or `:name`."""
