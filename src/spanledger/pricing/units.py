"""The billable units of genai-prices. Importing this loads that package (some 0.4 s), so it is done in the background.

`DATA` is genai-prices' own module of prices: what other libraries do to its global snapshot never reaches us, and
nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Final

from genai_prices.data import providers
from genai_prices.data_units import unit_data

from spanledger.model import PICO_USD
from spanledger.pricing.program import Rate, Unit, rate_of

_OWN: Final[Mapping[str, Mapping[str, Any]]] = {
    "output_images": {"per": 1000, "price_key": "output_images_kcount", "dimensions": {"family": "images"}},
}
"""Units that genai-prices lacks, in its own form."""
_ALL: Final[Mapping[str, Mapping[str, Any]]] = {**unit_data, **_OWN}
_DIGITS: Final = Context(prec=12)
DATA: Final = providers
UNITS: Final[Mapping[str, Unit]] = {
    key: Unit(key, raw["per"], frozenset(raw.get("dimensions", {}).items())) for key, raw in _ALL.items()
}
"""Unit key → unit."""
UNIT_OF_PRICE: Final[Mapping[str, Unit]] = {raw.get("price_key", key): UNITS[key] for key, raw in _ALL.items()}
"""Key of a price (`input_mtok`: USD per million tokens) → its unit."""


def rates_of(listed: Mapping[str, Any]) -> dict[str, Rate]:
    """Prices by price key, as genai-prices spells them, as rates by unit."""
    return {
        unit.key: rate_of(price, unit.per)
        for key, price in listed.items()
        if price is not None and (unit := UNIT_OF_PRICE.get(key)) is not None
    }


def usd_per(rate: Fraction, unit: Unit) -> str:
    """A rate in pico-USD per unit as decimal USD for as many as the price list quotes; 12 significant digits."""
    amount = rate * unit.per / PICO_USD
    return format(_DIGITS.divide(Decimal(amount.numerator), Decimal(amount.denominator)).normalize(_DIGITS), "f")
