"""Exact arithmetic: one resolved set of prices, compiled to integers.

genai-prices describes a billable unit as a set of dimensions (tokens, input, audio, cache read, …). A unit is a part of
another when its dimensions contain the other's. A count is billed once, under the most particular unit that was
reported, at the price of that unit or else of the nearest unit it is part of. So cached tokens of a model without a
cache price cost what input costs, and nothing is billed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from operator import attrgetter
from typing import Any, Final, NamedTuple

from spanledger.model import PICO_USD, Usage

UNIT_OF: Final = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_long_tokens": "cache_write_1h_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "input_image_tokens": "input_image_tokens",
    "output_image_tokens": "output_image_tokens",
    "web_searches": "web_searches",
}
"""Field of `Usage` → unit of genai-prices."""

BUCKET_OF: Final = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "cache_write_1h_tokens": "cache_write_long",
    "output_reasoning_tokens": "reasoning",
    "input_audio_tokens": "input_audio",
    "output_audio_tokens": "output_audio",
    "input_image_tokens": "input_image",
    "output_image_tokens": "output_image",
    "web_searches": "web_search",
    "requests": "request",
}
"""Unit of genai-prices → bucket of a cost breakdown; other units keep their own name."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A billable unit: so many of it (`per`) cost the listed price."""

    key: str
    per: int
    dimensions: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Rate:
    """Pico-USD per token (or search, second, …): the base, and (more than so much input, rate) in rising order."""

    base: Fraction
    tiers: tuple[tuple[int, Fraction], ...] = ()

    def times(self, factor: Fraction) -> Rate:
        """The rate multiplied, its tiers too."""
        return Rate(self.base * factor, tuple((start, above * factor) for start, above in self.tiers))


class Step(NamedTuple):
    """One unit of a program. A tuple, because programs run on the caller's thread."""

    place: int
    """Of its count among the values a program runs on."""
    base: int | None
    tiers: tuple[tuple[int, int], ...]
    bucket: str


class Sum(NamedTuple):
    """What a program makes of the counts of a call."""

    pusd: int | None
    """`None` where nothing that was reported has a price."""
    breakdown: dict[str, int]
    """By bucket; buckets nothing was counted in are left out. Sums to `pusd`."""
    unknown: bool
    """Something was counted that has no price."""
    clamped: bool
    """The counts contradicted each other."""


@dataclass(frozen=True, slots=True)
class Program:
    """Prices of one model. `scale` is the common denominator of all its integer rates."""

    steps: tuple[Step, ...]
    wholes: tuple[tuple[int, int, tuple[int, ...]], ...]
    """Steps that others are parts of, the most particular first: index, place of the count, indexes of the parts."""
    scale: int
    free: bool
    overlaps: tuple[tuple[int, int, int], ...]
    """Values of which two may overlap, priced apart, and the value that would say by how much."""

    def run(self, values: Sequence[int | None]) -> Sum:
        """The exact cost of the values, which are in the order of `values_of`.

        Parts that exceed their whole are cut until they fit, so that nothing is billed beyond the whole. Half a
        pico-USD is rounded to even, once, on the total.
        """
        leaves = [values[step[0]] or 0 for step in self.steps]
        clamped = unknown = False
        for number, place, parts in self.wholes:
            if values[place] is None:
                continue
            leaf = leaves[number]
            for part in parts:
                leaf -= leaves[part]
            if leaf < 0:
                clamped = True
                leaf = _cut(leaves, parts, leaf)
            leaves[number] = leaf
        scale, total, done = self.scale, 0, 0
        breakdown: dict[str, int] = {}
        for leaf, step in zip(leaves, self.steps, strict=True):
            if not leaf:
                continue
            _, rate, tiers, bucket = step
            if rate is None:
                unknown = True
                continue
            for start, above in tiers:
                if (values[0] or 0) > start:
                    rate = above
            amount = leaf * rate
            if scale != 1:  # whole rates are the rule
                total += amount
                amount = _rounded(total, scale) - done
            done += amount
            breakdown[bucket] = breakdown[bucket] + amount if bucket in breakdown else amount
        if not breakdown and not any(values[step.place] is not None and step.base is not None for step in self.steps):
            return Sum(None, breakdown, unknown, clamped)
        return Sum(done, breakdown, unknown, clamped)


def _cut(leaves: list[int], parts: tuple[int, ...], leaf: int) -> int:
    """Cut what is billed under the parts by what their whole lacks."""
    for part in parts:
        cut = min(leaves[part], -leaf)
        leaves[part] -= cut
        leaf += cut
    return leaf


def _rounded(scaled: int, scale: int) -> int:
    whole, rest = divmod(scaled, scale)
    if rest * 2 > scale or (rest * 2 == scale and whole & 1):
        return whole + 1
    return whole


_FIELDS: Final = attrgetter(*UNIT_OF)
_UNITS: Final = tuple(UNIT_OF.values())


def values_of(usage: Usage, others: tuple[str, ...]) -> tuple[int | None, ...]:
    """The counts of a usage in the order a program takes them: the fields, one request, the other units named."""
    if others:
        other = usage.other_usage or {}
        return (*_FIELDS(usage), 1, *(other.get(name) for name in others))
    return (*_FIELDS(usage), 1)


def compile_program(
    units: Mapping[str, Unit], rates: Mapping[str, Rate], others: tuple[str, ...] = (), *, bare: bool = False
) -> Program:
    """The program for a model with these `rates` (unit → rate), over the fields of a usage and these `others`.

    `bare`: only what has a price of its own is told apart, so that counts which overlap without a difference in price
    do not contradict each other.
    """
    place = {key: index for index, key in enumerate((*_UNITS, "requests", *others)) if key in units}
    keys = [key for key in place if key in rates or not (bare or key == "requests")]
    keys.sort(key=lambda key: (-len(units[key].dimensions), key))
    found = [_nearest(units, rates, key) for key in keys]
    fractions = [part for rate in found if rate for part in (rate.base, *(tier for _, tier in rate.tiers))]
    scale = lcm(1, *(fraction.denominator for fraction in fractions))
    steps = tuple(
        Step(
            place=place[key],
            base=None if rate is None else int(rate.base * scale),
            tiers=() if rate is None else tuple((start, int(above * scale)) for start, above in rate.tiers),
            bucket=BUCKET_OF.get(key, key),
        )
        for key, rate in zip(keys, found, strict=True)
    )
    wholes = (
        (number, place[key], tuple(i for i in range(number) if units[keys[i]].dimensions > units[key].dimensions))
        for number, key in enumerate(keys)
    )
    return Program(
        steps=steps,
        wholes=tuple(each for each in wholes if each[2]),
        scale=scale,
        free=bool(fractions) and not any(fractions),
        overlaps=tuple(_overlaps(units, rates, place)),
    )


def _overlaps(
    units: Mapping[str, Unit], rates: Mapping[str, Rate], place: Mapping[str, int]
) -> Iterator[tuple[int, int, int]]:
    """Pairs such as cached and audio input, both with prices of their own: cached audio may be in both counts."""
    by_dimensions = {unit.dimensions: key for key, unit in units.items()}
    priced = [key for key in place if key in rates]
    for number, one in enumerate(priced):
        for other in priced[number + 1 :]:
            both = units[one].dimensions | units[other].dimensions
            joint = by_dimensions.get(both)
            if joint is not None and both not in (units[one].dimensions, units[other].dimensions):
                yield place[one], place[other], place.get(joint, -1)


def _nearest(units: Mapping[str, Unit], rates: Mapping[str, Rate], key: str) -> Rate | None:
    """The rate of the unit, or of the most particular priced unit it is part of."""
    wider = [other for other in rates if units[other].dimensions <= units[key].dimensions]
    return rates[max(wider, key=lambda other: len(units[other].dimensions))] if wider else None


def rate_of(price: Any, per: int) -> Rate:
    """A price of genai-prices (`Decimal` or tiered, USD for `per` units) as pico-USD per unit.

    Goes through `Fraction`, so the decimal context of the thread has no say in it.
    """
    base = getattr(price, "base", price)
    tiers = getattr(price, "tiers", ())
    return Rate(
        base=Fraction(base) * PICO_USD / per,
        tiers=tuple((tier.start, Fraction(tier.price) * PICO_USD / per) for tier in tiers),
    )
