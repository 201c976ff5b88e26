"""Questions of an application to its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from spanledger.ledger.books import LedgerError, NoLedgerError, reading
from spanledger.ledger.queries import moment
from spanledger.ledger.sqlite import nothing
from spanledger.ledger.statistics import Where, statistics


def usage(
    url: str,
    start: datetime | str | None,
    end: datetime | str | None,
    *,
    by: Sequence[str],
    period: str,
    timezone: str,
    where: Where,
) -> dict[str, Any]:
    """What `get_usage` tells of the ledger at a URL; nothing but zeros where there is none yet.

    Raises `ValueError`, `LedgerError`.
    """
    if url == "none":
        raise LedgerError("the ledger is switched off (ledger_url is none): there is nothing to ask")
    now = datetime.now(UTC)
    asked: dict[str, Any] = {
        "start": _moment(start, now),
        "end": _moment(end, now),
        "by": by,
        "period": period,
        "timezone": timezone,
        "where": where,
    }
    try:
        with reading(url) as connection:
            return statistics(connection, now, **asked)
    except NoLedgerError:
        with nothing() as connection:
            return statistics(connection, now, **asked)


def _moment(said: datetime | str | None, now: datetime) -> datetime | None:
    if said is None or isinstance(said, datetime):
        if said is not None and said.tzinfo is None:
            raise ValueError("start and end are aware datetimes: datetime.now(UTC), not datetime.utcnow()")
        return said
    return moment(said, now)
