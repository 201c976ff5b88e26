"""Baggage that an application copies onto its spans: whoever sent the request wrote it, and it proves nothing.

It is told by its value, which is that of the baggage entry of the same name. What an instrumentation says when its span
begins is seen by our sampler before anybody can copy anything over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from spanledger.reading.dialect import Dialect

begins: Final[ContextVar[tuple[int, str, Mapping[str, Any]] | None]] = ContextVar("spanledger.begins", default=None)
"""Trace id, name and attributes of the span that begins here, where there is baggage."""


def said_at_start(span: Any, baggage: Mapping[str, object]) -> Mapping[str, Any]:
    """What a span that has just begun says itself."""
    begun = begins.get()
    if begun is not None and begun[0] == span.context.trace_id and begun[1] == span.name:
        return begun[2]
    return {name: value for name, value in (span.attributes or {}).items() if baggage.get(name) != value}


def own(
    attributes: Mapping[str, Any], dialect: Dialect, known: Mapping[str, Any], baggage: Mapping[str, object]
) -> dict[str, Any]:
    """What a span that has ended says itself: nothing copied, but what says of which model it is, which anybody may
    guess right."""  # noqa: D205, D209
    found = {}
    for name, value in attributes.items():
        if baggage.get(name) != value:
            found[name] = value
        elif name in known or name in dialect.identity:
            found[name] = known.get(name, value)
    return found
