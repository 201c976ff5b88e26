"""What a record gets off the caller's thread: the service it is of, and its price where the caller had none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from spanledger.guard import log
from spanledger.model import COLUMNS, Cost, Usage, UsageRecord, cost_columns, usage_of_row
from spanledger.pricing.loader import Prices
from spanledger.pricing.offer import context_of
from spanledger.pricing.places import models_of

if TYPE_CHECKING:
    from spanledger.pricing.book import PriceBook


class Completion:
    """Completes a record on the writer's thread: the service it is of, and its price where the caller had none.

    The writer never waits for the price list: what comes before it is written without a price, which `price` and
    `price_row` add as of the call's own time once the list is there.
    """

    def __init__(self, prices: Prices, service: Callable[[], dict[str, Any]]) -> None:
        self._prices = prices
        self._find_service = service
        self._service: dict[str, Any] | None = None

    def finish(self, record: UsageRecord) -> UsageRecord:
        """The record with its service, and with its price if that can be told at once."""
        record = replace(record, **self._of_service())
        self._prices.warm()
        return record if record.cost is None and not self.ready else self.price(record)

    @property
    def ready(self) -> bool:
        """Whether prices can be told at once."""
        return self._prices.ready is not None

    def price(self, record: UsageRecord) -> UsageRecord:
        """The record with its price. Waits for the price list; an unpriced model is said once."""
        book = self._prices.wait()
        cost = record.cost or _cost(book, record)
        known = record.usage.usage_status not in ("missing", "invalid")
        if cost.cost_status == "unpriced" and known and book.first_time(record.provider, record.model):
            _log_unpriced(record.provider, record.model)
        return replace(record, cost=cost)

    def price_at_once(self, record: UsageRecord) -> Cost | None:
        """The cost of a record if it can be told at once."""
        book = self._prices.ready
        return None if book is None else record.cost or _cost(book, record)

    def price_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row that was written without a price, with it."""
        if row.get("cost_status") is not None:
            return row
        whole = {**dict.fromkeys(COLUMNS), **row}  # an outbox may be of an earlier version
        return {**row, **cost_columns(price_of_row(self._prices.wait(), whole))}

    def _of_service(self) -> dict[str, Any]:
        if self._service is None:
            self._service = self._find_service()
        return self._service


def _cost(book: PriceBook, record: UsageRecord) -> Cost:
    return book.price(
        record.usage,
        provider=record.provider,
        models=models_of(record.provider, answered=record.response_model, asked=record.request_model),
        at=record.started_at,
        context=context_of(record.service_tier, record.price_context),
        server=record.server_address,
        metadata=record.attribution.metadata,
    )


def price_of_row(book: PriceBook, row: Mapping[str, Any], usage: Usage | None = None) -> Cost:
    """What a call costs by its row in the ledger, as of its own time. `usage` instead of the row's, where it is given.

    A cost that the provider stated is not looked at.
    """
    return book.price(
        usage or usage_of_row(row),
        provider=row["provider"],
        models=models_of(row["provider"], answered=row["response_model"], asked=row["request_model"]),
        at=datetime.fromisoformat(row["started_at"]),
        context=context_of(row["service_tier"], _decoded(row["price_context"])),
        server=row["server_address"],
        metadata=_decoded(row["metadata"]),
    )


def _decoded(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _log_unpriced(provider: str, model: str | None) -> None:
    """One line per model that has no price."""
    log.warning(
        "No price is known for model %r of provider %s; its calls are recorded with their tokens and without a cost.",
        model,
        provider,
    )
