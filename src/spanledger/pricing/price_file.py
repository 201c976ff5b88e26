"""The format of a price file. Validation, the published JSON schema and the reference are made from these models."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from spanledger.pricing.units import UNIT_OF_PRICE

_MOST: Final = 10**9


def _amount(value: Any) -> Decimal:
    """A number of 0 or more, written as text or as a number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError('expected a number, such as "2.50"')  # noqa: TRY004  # pydantic wants a ValueError
    try:
        amount = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        raise ValueError('expected a number, such as "2.50"') from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("expected a finite number of 0 or more")
    if amount > _MOST or amount.adjusted() < -18:
        raise ValueError("this is too large or too small to be a price")
    return amount


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected a date, such as 2026-11-01") from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    raise ValueError("expected a date, such as 2026-11-01")


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")  # noqa: TRY004  # pydantic wants a ValueError
    return value


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema({"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?([eE]-?\d+)?$", "minimum": 0}),
]
Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}"})
]
Count = Annotated[int, Field(ge=0), BeforeValidator(_no_flag)]
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Match(_Strict):
    """How a model is told: all that is given must hold."""

    equals: Text | None = None
    starts_with: Text | None = None
    ends_with: Text | None = None
    contains: Text | None = None
    regex: Text | None = None
    any: list[Match] | None = None

    def predicate(self) -> Callable[[str], bool]:
        """Whether a model's name matches. Raises `re.error`."""
        pattern = re.compile(self.regex) if self.regex else None
        either = [each.predicate() for each in self.any or ()]

        def holds(name: str) -> bool:
            return (
                (self.equals is None or name == self.equals)
                and (self.starts_with is None or name.startswith(self.starts_with))
                and (self.ends_with is None or name.endswith(self.ends_with))
                and (self.contains is None or self.contains in name)
                and (pattern is None or pattern.search(name) is not None)
                and (not either or any(each(name) for each in either))
            )

        return holds


class Tier(_Strict):
    """The price where a call has more than so many input tokens."""

    start: Count
    price: Amount


class Tiered(_Strict):
    """A price that depends on the length of the input: the tier reached is that of every token of the call."""

    base: Amount
    tiers: list[Tier]


Price = Amount | Tiered
When = dict[Text, Text]
Prices: Any = create_model(
    "Prices",
    __base__=_Strict,
    __doc__="Prices in USD: per million tokens (`_mtok`), per thousand (`_kcount`), per hour (`_hours`).",
    from_=(Moment | None, Field(default=None, alias="from", description="In force from then on.")),
    when=(When | None, Field(default=None, description="Only in this context; other prices stay as they are.")),
    **dict.fromkeys(UNIT_OF_PRICE, (Price | None, None)),  # type: ignore[call-overload]  # names that are data
)


class Alias(_Strict):
    """Another name of a model. `*` in `match` is any text; `*` in `model` is what its last `*` stood for."""

    provider: Text
    match: Text
    model: Text


class Model(_Strict):
    """The prices of a model, instead of everybody else's."""

    provider: Text
    match: Text | Match
    prices: list[Prices]


class Multiplier(_Strict):
    """A factor on prices, recorded on the row under its label."""

    factor: Amount
    provider: Text | None = None
    match: Text | Match | None = None
    when: When | None = None
    label: Text | None = None
    applies_to: Literal["all", "tokens"] = "all"


class Derived(_Strict):
    """A price where the list has none: a multiple of another price of the same model."""

    provider: Text
    price: Text
    times: Amount
    of: Text
    match: Text | Match | None = None


class Free(_Strict):
    """A model, or all of a provider, that costs nothing: self-hosted, or covered by something else."""

    provider: Text
    match: Text | Match | None = None
    when: When | None = None


class OverrideFile(_Strict):
    """Prices that win over the price list."""

    version: Annotated[Literal["1", 1], BeforeValidator(_no_flag)]
    currency: Literal["USD"] = "USD"
    aliases: list[Alias] = []
    models: list[Model] = []
    multipliers: list[Multiplier] = []
    derived: list[Derived] = []
    free: list[Free] = []


def json_schema() -> dict[str, Any]:
    """The format as a JSON schema."""
    schema = OverrideFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "spanledger price overrides"}
