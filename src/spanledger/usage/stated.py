"""The cost that a provider or gateway states itself."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final

from spanledger.model import PICO_USD
from spanledger.usage.paths import at_path

_MOST_USD: Final = 10**6
"""No call costs more; a larger amount is a broken answer, not a bill."""
_ANY: Final = Context(traps=[InvalidOperation])
_NUMBER: Final = re.compile(r"[0-9.eE+-]+")
_HEADER_AMOUNT: Final = re.compile(rf"\s*({_NUMBER.pattern})\s*(?:USD)?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Where a usage object states a cost.

    `unit` is what 1 is worth, in pico-USD. The amount at `plus` is added where `plus_if` is true. A cost whose
    `currency` is another than USD is none. A zero is believed only with `zero`: some write it where they don't know.
    """

    path: str
    unit: int = PICO_USD
    plus: str = ""
    plus_if: str = ""
    currency: str = ""
    zero: bool = False


HEADERS: Final[Mapping[str, bool]] = {
    "x-litellm-response-cost": False,  # 0.0 for models its table lacks (LiteLLM 1.106)
    "logfire-ai-gateway-cost": True,  # 0 is an answer from the gateway's cache
}
"""Response headers in which gateways state the cost in USD → whether a zero is believed."""


def stated_cost(places: tuple[Stated, ...], usage: Any) -> int | None:
    """The cost a usage object states, int pico-USD; `None` if it states none that can be believed."""
    for place in places:
        found = amount(at_path(usage, place.path), place.unit)
        if found is None or (found == 0 and not place.zero):
            continue
        if place.currency and at_path(usage, place.currency) not in (None, "USD"):
            continue
        if place.plus_if and at_path(usage, place.plus_if) is True:
            found += amount(at_path(usage, place.plus), place.unit) or 0
        return found
    return None


def header_cost(headers: Any) -> int | None:
    """The cost that response headers (a mapping with case-insensitive `get`) state, int pico-USD."""
    for name, zero in HEADERS.items():
        if name not in headers:
            continue
        value = headers.get(name)
        found = _HEADER_AMOUNT.fullmatch(value) if isinstance(value, str) else None
        cost = amount(found[1], PICO_USD) if found else None
        if cost or (cost == 0 and zero):
            return cost
    return None


def amount(value: Any, unit: int) -> int | None:
    """So many times `unit`, rounded half to even; `None` for what is no amount. A float counts as it is printed."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    try:
        exact = Decimal(repr(value) if isinstance(value, float) else value, _ANY)
    except InvalidOperation:
        return None
    if not exact.is_finite() or exact < 0 or not -30 <= exact.adjusted() <= 30:
        return None
    pusd = round(Fraction(exact) * unit)
    return pusd if pusd <= _MOST_USD * PICO_USD else None
