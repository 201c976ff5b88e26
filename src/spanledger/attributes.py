"""Usage, cost, attribution and errors as span attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from spanledger import conventions
from spanledger.model import Attribution, Cost, Usage

HASH: Final = "hash:"
"""Before an attribution key in the setting `span_attributes`: its value is written as a keyed hash."""


def usage_attributes(usage: Usage, attributes: dict[str, Any]) -> None:
    """Add a usage as span attributes; what was not reported has none."""
    for name, attribute in conventions.USAGE.items():
        count = getattr(usage, name)
        if count or (count is not None and name not in conventions.MODALITIES):
            attributes[attribute] = count
    attributes[conventions.USAGE_STATUS] = usage.usage_status


def cost_attributes(cost: Cost, attributes: dict[str, Any]) -> None:
    """Add a cost as span attributes in USD; amounts are absent where there is no price."""
    attributes[conventions.COST_STATUS] = cost.cost_status
    attributes[conventions.COST_SOURCE] = cost.cost_source
    if cost.price_basis is not None:
        attributes[conventions.COST_BASIS] = cost.price_basis
    if cost.cost_pusd is None:
        return
    attributes[conventions.COST_TOTAL] = cost.cost_pusd / 1e12
    attributes[conventions.COST_CURRENCY] = cost.currency
    if cost.local_cost_pusd is not None:
        attributes[conventions.COST_LOCAL] = cost.local_cost_pusd / 1e12
    parts: dict[str, int] = {}
    for bucket, amount in (cost.cost_breakdown or {}).items():
        attribute = conventions.COST_PARTS.get(bucket)
        if attribute is not None:
            parts[attribute] = parts.get(attribute, 0) + amount
    for attribute, amount in parts.items():
        attributes[attribute] = amount / 1e12


def add_to(span: Any, attributes: dict[str, Any]) -> None:
    """Set attributes on somebody else's span, if it has room for them: the SDK would drop their oldest for ours."""
    room = room_in(span)
    if room is None or len(attributes) <= room:
        span.set_attributes(attributes)


def room_in(span: Any) -> int | None:
    """How many attributes more a span takes before the SDK drops its oldest; `None` where there is no bound."""
    held = getattr(span, "_attributes", None)
    most = getattr(held, "maxlen", None)
    return None if held is None or most is None else max(0, most - len(held))


def type_of(error: BaseException) -> str:
    """The type of an error by its full name, never its message."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Written(NamedTuple):
    """An attribution key that is written on spans."""

    position: int
    """Of the key in an `Attribution`."""
    attribute: str | None
    """`None` for the metadata, where each key has one."""
    change: Callable[[str], str] | None
    """What is written instead of the value."""


def written(keys: Iterable[str], hashed: Callable[[str], str]) -> tuple[Written, ...]:
    """The keys of the setting `span_attributes`; those with `hash:` before them are written as `hashed` makes them."""
    return tuple(
        Written(
            Attribution._fields.index(key.removeprefix(HASH)),
            conventions.ATTRIBUTION.get(key.removeprefix(HASH)),
            hashed if key.startswith(HASH) else None,
        )
        for key in keys
    )


def attribution_attributes(attribution: Attribution, keys: Iterable[Written], attributes: dict[str, Any]) -> None:
    """Add an attribution as span attributes, of these keys."""
    for position, attribute, change in keys:
        value: Any = attribution[position]
        if value is None:
            continue
        if attribute is None:
            for name, each in value.items():
                attributes[conventions.METADATA_PREFIX + name] = each
        else:
            attributes[attribute] = value if change is None else change(value)
