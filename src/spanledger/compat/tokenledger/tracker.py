"""TokenLedger's trackers: an event becomes a record, at once and for good."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from typing import Any, Final

from spanledger import api, assembly
from spanledger.compat.tokenledger.event import LLMEvent
from spanledger.model import record_id_for


class TokenTracker:
    """`get_tracker().track(event)`. What was tracked is on the disk within milliseconds, and delivered from there."""

    def __init__(self) -> None:
        self.default_metadata: Mapping[str, Any] = {}
        """Metadata of every event."""

    def track(self, event: LLMEvent) -> None:
        """Record a call, of whoever is in force here unless the event says otherwise.

        The first one waits some 0.5 s for the price list.
        """
        said = event.said()
        if self.default_metadata:
            said["metadata"] = {**self.default_metadata, **(said["metadata"] or {})}
        api.track_as(_record_id(event.event_id), said)

    def flush(self, timeout: float = 10.0) -> bool:
        """Deliver everything tracked so far. True if it is home within `timeout` seconds. Never raises."""
        return assembly.flush(timeout)

    def shutdown(self) -> None:
        """Deliver everything. Never raises."""
        assembly.flush()


def _record_id(event_id: Any) -> str:
    """The record id of an event: its own, where that is a UUID, else one that is derived from it."""
    try:
        return str(uuid.UUID(str(event_id)))
    except ValueError:
        return record_id_for(0.0, "event", str(event_id))


class AsyncTokenTracker:
    """`(await get_async_tracker()).track_async(event)`."""

    async def track_async(self, event: LLMEvent) -> None:
        """Record a call; nothing is waited for."""
        _TRACKER.track(event)

    async def flush_async(self, timeout: float = 10.0) -> bool:  # noqa: ASYNC109  # it is the flush's own
        """Deliver everything tracked so far, without holding up the loop. True if it is home in time. Never raises."""
        return await asyncio.to_thread(assembly.flush, timeout)


_TRACKER: Final = TokenTracker()
_ASYNC: Final = AsyncTokenTracker()


def named_by_environment() -> str | None:
    """The ledger that TokenLedger's variables name; one that ours names comes first."""
    names = ("SPANLEDGER_LEDGER_URL", "TOKENLEDGER_DATABASE_URL", "DATABASE_URL")
    return next((found for name in names if (found := os.environ.get(name))), None)


def use_environment() -> None:
    """Where nobody has named a ledger, let `DATABASE_URL` name it."""
    url = named_by_environment()
    if url and not assembly.is_brought("ledger_url"):
        assembly.extend(ledger_url=url)


def get_tracker() -> TokenTracker:
    """The tracker of this process."""
    use_environment()
    return _TRACKER


async def get_async_tracker() -> AsyncTokenTracker:
    """The tracker for coroutines, once the price list is there: `track_async` waits for nothing."""
    use_environment()
    await asyncio.to_thread(api.ready)
    return _ASYNC
