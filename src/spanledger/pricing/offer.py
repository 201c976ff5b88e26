"""What a price list says about one model: rates by period, and other rates in particular contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from spanledger.pricing.program import Rate

NEVER: Final = datetime.max.replace(tzinfo=UTC)
ALWAYS: Final = datetime.min.replace(tzinfo=UTC)

Context = tuple[tuple[str, str], ...]
"""What a price depends on besides model and moment, as the provider answered it: (`service_tier`, `flex`), …"""


def context_of(service_tier: str | None, told: Mapping[str, str] | None) -> Context:
    """The context of a call: the tier that answered, and what else the provider told."""
    if not told:
        return (("service_tier", service_tier),) if service_tier else ()
    whole = {"service_tier": service_tier, **told} if service_tier else told
    return tuple(sorted(whole.items()))


@dataclass(frozen=True, slots=True)
class Variant:
    """Rates that replace the period's where the context has all of `when`."""

    when: Mapping[str, str]
    rates: Mapping[str, Rate]


@dataclass(frozen=True, slots=True)
class Period:
    """Rates by unit, in force from `since` until the next period starts."""

    rates: Mapping[str, Rate]
    since: datetime = ALWAYS
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """The rates of one model at one moment in one context, and from when to when they are these."""

    source: str
    """The list, and where in it: `genai-prices gpt-4o`, `prices.yaml line 12`."""
    rates: Mapping[str, Rate]
    since: datetime = ALWAYS
    until: datetime = NEVER
    covered: frozenset[str] = field(default=frozenset())
    """Keys of the context that these rates take into account."""


@dataclass(frozen=True, slots=True)
class Offer:
    """All a list says about one model. Periods in rising order of `since`."""

    source: str
    periods: tuple[Period, ...]

    def terms(self, at: datetime, context: Context) -> Terms | None:
        """The terms in force, `None` before the first period."""
        started = [period for period in self.periods if period.since <= at]
        if not started:
            return None
        period = started[-1]
        later = self.periods[len(started) :]
        rates, covered = dict(period.rates), set[str]()
        for variant in period.variants:
            if matches(variant.when, context):
                rates.update(variant.rates)
                covered.update(variant.when)
        return Terms(
            source=self.source,
            rates=rates,
            since=period.since,
            until=later[0].since if later else NEVER,
            covered=frozenset(covered),
        )


def matches(when: Mapping[str, str], context: Context) -> bool:
    """Whether a context has all of these."""
    return set(when.items()) <= set(context)


def ordered(periods: Sequence[Period]) -> tuple[Period, ...]:
    """Periods in rising order of their start."""
    return tuple(sorted(periods, key=lambda period: period.since))
