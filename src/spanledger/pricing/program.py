"""Exact arithmetic: one resolved set of prices, compiled to integers.

genai-prices describes a billable unit as a set of dimensions (tokens, input, audio, cache read, …). A unit is a part of
another when its dimensions contain the other's. A count is billed once, under the most particular unit that was
reported, at the price of that unit or else of the nearest unit it is part of. So cached tokens of a model without a
cache price cost what input costs, and nothing is billed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

from spanledger.model import PICO_USD, Cost, Usage

UNIT_OF = {
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

BUCKET_OF = {
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


@dataclass(frozen=True, slots=True)
class _Step:
    bucket: str
    key: str
    parts: tuple[int, ...]
    """Indexes of the steps whose counts are inside this one's."""
    base: int | None
    tiers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Prices of one model for one set of reported units: `scale` is the common denominator of all its integer rates."""

    steps: tuple[_Step, ...]
    scale: int
    free: bool

    def run(self, counts: Mapping[str, int], basis: str) -> tuple[Cost, bool]:
        """The exact cost of `counts` (unit → count), and whether they contradicted each other.

        Parts that exceed their whole are cut until they fit, so that nothing is billed beyond the whole. Buckets
        nothing was counted in are left out. Half a pico-USD is rounded to even, once, on the total; the breakdown
        always sums to the total.
        """
        leaves, clamped = self._leaves(counts)
        scale, total, known, unknown = self.scale, 0, False, False
        breakdown: dict[str, int] = {}
        prompt = counts.get("input_tokens", 0)
        for step, leaf in zip(self.steps, leaves, strict=True):
            rate = step.base
            if rate is None:
                unknown = unknown or leaf > 0
                continue
            known = True
            if leaf == 0:
                continue
            for start, above in step.tiers:
                if prompt > start:
                    rate = above
            before = _rounded(total, scale)
            total += leaf * rate
            amount = _rounded(total, scale) - before
            breakdown[step.bucket] = breakdown.get(step.bucket, 0) + amount
        if not known:
            return Cost(price_basis=basis), clamped
        status = "partial" if unknown else "free" if self.free else "priced"
        return (
            Cost(
                cost_pusd=_rounded(total, scale),
                cost_breakdown=breakdown,
                currency="USD",
                cost_source="local",
                cost_status=status,
                price_basis=basis,
            ),
            clamped,
        )

    def _leaves(self, counts: Mapping[str, int]) -> tuple[list[int], bool]:
        """What is billed under each step: its count less what is billed under its parts."""
        leaves: list[int] = []
        clamped = False
        for step in self.steps:
            leaf = counts.get(step.key, 1)  # the one unit nobody reports is the request itself
            for part in step.parts:
                leaf -= leaves[part]
            if leaf < 0:
                clamped = True
                for part in step.parts:
                    cut = min(leaves[part], -leaf)
                    leaves[part] -= cut
                    leaf += cut
            leaves.append(leaf)
        return leaves, clamped


def _rounded(scaled: int, scale: int) -> int:
    if scale == 1:
        return scaled
    whole, rest = divmod(scaled, scale)
    if rest * 2 > scale or (rest * 2 == scale and whole & 1):
        return whole + 1
    return whole


def compile_program(units: Mapping[str, Unit], rates: Mapping[str, Rate], reported: Sequence[str]) -> Program:
    """The program for a model with these `rates` (unit → rate) and an answer that reports these units.

    A unit that is priced per request is counted once for every call.
    """
    keys = sorted({*reported, *(["requests"] if "requests" in rates else [])} & units.keys())
    keys.sort(key=lambda key: (-len(units[key].dimensions), key))
    found = [_nearest(units, rates, key) for key in keys]
    fractions = [part for rate in found if rate for part in (rate.base, *(tier for _, tier in rate.tiers))]
    scale = lcm(1, *(fraction.denominator for fraction in fractions))
    steps = tuple(
        _Step(
            bucket=BUCKET_OF.get(key, key),
            key=key,
            parts=tuple(i for i in range(index) if units[keys[i]].dimensions > units[key].dimensions),
            base=None if rate is None else int(rate.base * scale),
            tiers=() if rate is None else tuple((start, int(above * scale)) for start, above in rate.tiers),
        )
        for index, (key, rate) in enumerate(zip(keys, found, strict=True))
    )
    return Program(steps=steps, scale=scale, free=bool(fractions) and not any(fractions))


def _nearest(units: Mapping[str, Unit], rates: Mapping[str, Rate], key: str) -> Rate | None:
    """The rate of the unit, or of the most particular priced unit it is part of."""
    wider = [other for other in rates if units[other].dimensions <= units[key].dimensions]
    return rates[max(wider, key=lambda other: len(units[other].dimensions))] if wider else None


def counts_of(usage: Usage) -> dict[str, int]:
    """The reported counts of a usage by unit of genai-prices."""
    counts = {unit: count for field, unit in UNIT_OF.items() if (count := getattr(usage, field)) is not None}
    if usage.other_usage:
        counts.update(usage.other_usage)
    return counts


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
