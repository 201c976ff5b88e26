"""spanledger: counts, prices and attributes every generative-AI call of a Python service, exactly once.

The names here are the public ones. Importing this package imports no model SDK and no OpenTelemetry SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanledger.context.scope import attribution

if TYPE_CHECKING:
    from spanledger.api import get_usage, track, track_usage, usage_of
    from spanledger.assembly import (
        RecordUsage,
        UsageSpanExporter,
        UsageSpanProcessor,
        configure,
        flush,
        instrument,
        shutdown,
        uninstrument,
    )  # fmt: skip
    from spanledger.context.carrier import capture, restore
    from spanledger.context.steps import wrap_aiter, wrap_iter
    from spanledger.ledger.books import LedgerError
    from spanledger.model import Attribution, Cost, Usage, UsageRecord

_HOMES = {
    **dict.fromkeys(("configure", "flush", "instrument", "shutdown", "uninstrument"), "assembly"),
    **dict.fromkeys(("get_usage", "track", "track_usage", "usage_of"), "api"),
    **dict.fromkeys(("RecordUsage", "UsageSpanExporter", "UsageSpanProcessor"), "assembly"),
    "LedgerError": "ledger.books",
    **dict.fromkeys(("capture", "restore"), "context.carrier"),
    **dict.fromkeys(("wrap_aiter", "wrap_iter"), "context.steps"),
    **dict.fromkeys(("Attribution", "Cost", "Usage", "UsageRecord"), "model"),
}

__all__ = [
    "Attribution",
    "Cost",
    "LedgerError",
    "RecordUsage",
    "Usage",
    "UsageRecord",
    "UsageSpanExporter",
    "UsageSpanProcessor",
    "attribution",
    "capture",
    "configure",
    "flush",
    "get_usage",
    "instrument",
    "restore",
    "shutdown",
    "track",
    "track_usage",
    "uninstrument",
    "usage_of",
    "wrap_aiter",
    "wrap_iter",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
