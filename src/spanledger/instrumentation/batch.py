"""Results of batches: each answer in them is a row, priced at the batch's rates, the same one whoever reads it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from spanledger.guard import failed
from spanledger.instrumentation.answer import Answer, moment
from spanledger.instrumentation.engine import Engine
from spanledger.instrumentation.plan import Plan
from spanledger.instrumentation.server import Server
from spanledger.instrumentation.spec import Batch
from spanledger.instrumentation.telemetry import SCOPE
from spanledger.model import Attribution, UsageRecord, at, record_id_for
from spanledger.usage.paths import at_path, decoded, plain, text

BATCH_TIER: Final = "batch"
_MOST_ANNOUNCED: Final = 1024
_MOST_SEEN: Final = 200_000
_SLICE: Final = 20_000
"""Lines of a file between which the writer has its turn."""


class Batches:
    """The batches of one SDK: when they were made, as far as the SDK was seen to ask, and how their items are read."""

    def __init__(self) -> None:
        self._plans: dict[int, dict[str, Plan]] = {}
        self._created: dict[str, float] = {}
        self._seen: dict[str, None] = {}

    def announced(self, batch_id: Any, created: Any) -> None:
        """A batch was made at that time."""
        if isinstance(batch_id, str) and isinstance(created, datetime):
            if len(self._created) >= _MOST_ANNOUNCED:
                self._created.clear()
            self._created[batch_id] = created.timestamp()

    def reading(self, batch: Batch, engine: Engine, server: Server, owner: Attribution, batch_id: Any) -> Reading:
        """What makes records of a batch's items."""
        plans = self._plans.get(id(batch))
        if plans is None:
            plans = self._plans[id(batch)] = {kind: Plan(each) for kind, each in batch.endpoints.items()}
        known = str(batch_id or "")
        return Reading(batch, plans, engine, server, owner, known, self._created.get(known), self._seen)


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a batch's results."""

    batch: Batch
    plans: Mapping[str, Plan]
    engine: Engine
    server: Server
    owner: Attribution
    batch_id: str
    created: float | None
    seen: dict[str, None]
    """Record ids of the items this process has recorded, whose metrics don't move again; bounded."""

    def follow(self, result: Any) -> Any:
        """Watch what the method returned. Never raises."""
        try:
            iterator: Any = getattr(result, "_iterator", None)
            if hasattr(iterator, "__anext__"):
                result._iterator = self._items_async(iterator)  # noqa: SLF001  # same name in every version
            elif hasattr(iterator, "__next__"):
                result._iterator = self._items(iterator)  # noqa: SLF001
            elif self.batch.marks:
                response = getattr(result, "response", None) or getattr(result, "http_response", None)
                body = getattr(response, "_content", None)
                first = decoded(body.partition(b"\n")[0]) if isinstance(body, bytes) and body[:1] == b"{" else None
                if body is not None and isinstance(first, dict) and first.keys() >= self.batch.marks:
                    self.engine.later(partial(self._lines, body.splitlines(), 0))
        except Exception as error:  # noqa: BLE001  # a door
            failed("the results of a batch", error)
        return result

    def _items(self, iterator: Iterator[Any]) -> Iterator[Any]:
        for item in iterator:
            self._saw(item)
            yield item

    async def _items_async(self, iterator: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for item in iterator:
            self._saw(item)
            yield item

    def _lines(self, lines: list[bytes], start: int) -> None:
        """The items of a file from this one on, on the writer's thread."""
        for line in lines[start : start + _SLICE]:
            item = decoded(line)
            if item is not None:
                self._saw(item)
        if start + _SLICE < len(lines):
            self.engine.later(partial(self._lines, lines, start + _SLICE))

    def _saw(self, item: Any) -> None:
        """An item has come. Never raises."""
        try:
            record = self._record(item)
            if record is not None and record.record_id not in self.seen:
                if len(self.seen) >= _MOST_SEEN:
                    self.seen.pop(next(iter(self.seen)), None)
                self.seen[record.record_id] = None
                self.engine.record(_given(record))
        except Exception as error:  # noqa: BLE001  # a door
            failed("a result of a batch", error)

    def _record(self, item: Any) -> UsageRecord | None:
        batch = self.batch
        response, error = at_path(item, batch.answer), at_path(item, batch.error) if batch.error else None
        plan = self.plans.get(text(at_path(response, batch.kind)) or "")
        failure = text(error)
        if plan is None and failure is None:
            return None
        answer = Answer(plan or next(iter(self.plans.values())))
        if plan is not None:
            answer.read(response)
        named = text(at_path(item, batch.id)) or answer.values.get("id", "")
        known = moment(at_path(response, batch.created_at)) if batch.created_at else self.created
        raw = plain(answer.raw)
        return UsageRecord(
            record_id=record_id_for(known or 0, self.server.provider, self.batch_id, named),
            started_at=at(int(known * 1e9) if known else time.time_ns()),
            operation=answer.plan.endpoint.operation,
            provider=self.server.provider,
            source=SCOPE,
            response_id=answer.values.get("id"),
            response_model=answer.values.get("model"),
            server_address=self.server.address,
            finish_reasons=answer.finish or None,
            service_tier=BATCH_TIER,
            price_context={**answer.context(), "service_tier": BATCH_TIER},
            status="success" if plan is not None else "error",
            error_type=None if plan is not None else failure,
            raw_usage=raw if isinstance(raw, dict) else None,
            usage_shape=answer.plan.reader(raw).shape.name if isinstance(raw, dict) else None,
            usage=answer.usage(),
            attribution=self.owner,
        )


def _given(record: UsageRecord) -> Callable[[], UsageRecord]:
    return lambda: record
