"""The price lists in layers, and what they say together of a model: the first that knows it counts.

The user's price files, our own corrections, genai-prices' data, tables the user names. Whatever the layer, the user's
multipliers come last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Final

from spanledger.pricing import snapshot
from spanledger.pricing.offer import ALWAYS, NEVER, Context, Terms
from spanledger.pricing.overrides import Overrides, Rule, glob, read_overrides
from spanledger.pricing.program import Program
from spanledger.pricing.units import UNIT_OF_PRICE, UNITS

_MOST_ALIASES: Final = 4

_MEANS: Final = {
    ("service_tier", "batch"): ("processing", "batch"),  # Anthropic's way to say so
    ("service_tier", "ON_DEMAND_PRIORITY"): ("service_tier", "priority"),  # Vertex AI's traffic types
    ("service_tier", "ON_DEMAND_FLEX"): ("service_tier", "flex"),
    ("service_tier", "PROVISIONED_THROUGHPUT"): ("service_tier", "provisioned"),
    ("service_tier", "scale"): ("service_tier", "provisioned"),  # OpenAI's
    ("service_tier", "reserved"): ("service_tier", "provisioned"),  # Bedrock's
}
"""What a provider answers → how price lists say the same."""
_PROVISIONED: Final = ("service_tier", "provisioned")
"""Capacity that is paid by time: a call has no price of its own."""
_DEPENDS: Final = frozenset(
    {("processing", "batch"), *(("service_tier", tier) for tier in ("flex", "priority", "fast")), ("speed", "fast")}
)
"""Contexts that change what a provider bills: without a price for them the standard one is not the whole truth."""


@dataclass(slots=True)
class Resolved:
    """The prices of one model in one context, valid from one moment to another, and why it is these."""

    terms: Terms
    multipliers: Mapping[str, str] | None = None
    free: bool = False
    exact: bool = True
    """Every part of the context that changes a bill is taken into account."""
    notes: tuple[str, ...] = ()
    known: bool = True
    """Some list has prices for it, or says that it is free."""
    programs: dict[tuple[tuple[str, ...], bool], Program] = field(default_factory=dict)
    """(other units in the usage, whether only priced units are told apart) → the program for it."""

    @property
    def ends(self) -> bool:
        """Whether it is known that other prices follow."""
        return self.terms.until != NEVER


class Layers:
    """All price lists. `overrides` in rising order of weight; `fixups` leaves our own corrections in."""

    def __init__(self, overrides: Sequence[Overrides], *, fixups: bool) -> None:
        self._files = tuple(each for each in reversed(overrides) if each.table is None)
        self._tables = tuple(each for each in reversed(overrides) if each.table is not None)
        self._fixups = (_shipped(),) if fixups else ()
        self.basis = " ".join(
            [
                snapshot.basis(),
                *(f"fixups:{each.digest}" for each in self._fixups),
                *(f"{each.name}:{each.digest}" for each in overrides),
            ]
        )
        """Version or digest of each list."""

    @property
    def asked(self) -> frozenset[str]:
        """Keys of a context that the user's files ask for."""
        rules = [rule for file in self._files for rule in (*file.multipliers, *file.free)]
        variants = [
            variant
            for file in self._files
            for _, offer in file.models
            for period in offer.periods
            for variant in period.variants
        ]
        return frozenset(key for when in (*(r.when for r in rules), *(v.when for v in variants)) for key in when)

    @property
    def providers(self) -> tuple[str, ...]:
        """Every provider some list has prices of, in genai-prices' spelling."""
        rules = [rule for file in self._files for rule in (*file.free, *(rule for rule, _ in file.models))]
        named = [rule.provider for rule in rules if rule.provider]
        named += [provider for file in self._tables for provider, _ in file.table or ()]
        return tuple(dict.fromkeys((*snapshot.provider_ids(), *sorted(named))))

    def look_up(self, provider: str, models: tuple[str | None, ...], at: datetime, context: Context) -> Resolved:
        """The prices of the first of these models that has some, in genai-prices' spelling of the provider.

        Whatever is found holds only until some list has something else to say of one of these models.
        """
        means = tuple(_MEANS.get(pair, pair) for pair in context)
        names: list[str] = []
        found: tuple[Terms, tuple[str, ...]] | None = None
        for model in models:
            if model:
                notes: list[str] = []
                reached = self._names(provider, model, notes)
                names += reached
                terms = None if found else self._of_names(provider, reached, at, means)
                if terms is not None:
                    found = terms, tuple(notes)
        if found is None or (_PROVISIONED in means and found[0].rates and "service_tier" not in found[0].covered):
            return Resolved(self._bounded(Terms("no list", {}), provider, names, at), known=False)
        terms, notes_told = found
        free = not terms.rates
        terms, multipliers = self._multiplied(self._bounded(terms, provider, names, at), provider, names, means)
        exact = all(pair not in _DEPENDS or pair[0] in terms.covered for pair in means)
        return Resolved(terms, multipliers or None, free, exact, notes_told)

    def _bounded(self, terms: Terms, provider: str, names: Sequence[str], at: datetime) -> Terms:
        """The terms, until the next start of a period that a file or table has for one of these names."""
        offers = [
            offer
            for file in (*self._files, *self._fixups)
            for rule, offer in file.models
            if rule.provider == provider and any(rule.match(name) for name in names)
        ]
        offers += [
            offer for file in self._tables for name in names if (offer := (file.table or {}).get((provider, name)))
        ]
        starts = [period.since for offer in offers for period in offer.periods]
        return replace(
            terms,
            since=max([terms.since, *(start for start in starts if start <= at)]),
            until=min([terms.until, *(start for start in starts if start > at)]),
        )

    def _names(self, provider: str, model: str, notes: list[str]) -> list[str]:
        """The model's name, and those that aliases lead to."""
        names = [model]
        for file in (*self._files, *self._fixups):
            names += _aliases(file, provider, names[-1], notes)
        return names

    def _of_names(self, provider: str, names: Sequence[str], at: datetime, context: Context) -> Terms | None:
        """The terms of a model by the first layer that has some. `names`: its own, then those aliases lead to."""
        for file in self._files:
            for name in names:
                terms = _listed(file, provider, name, at, context)
                if terms is not None:
                    return terms
        for file in self._fixups:  # genai-prices has none of these, or has them wrong
            terms = _listed(file, provider, names[-1], at, context)
            if terms is not None:
                return terms
        terms = snapshot.terms_of(provider, names[-1], at, context)
        if terms is not None:
            return self._derived(terms, provider, names[-1])
        for file in self._tables:
            for name in names:
                offer = (file.table or {}).get((provider, name))
                terms = offer.terms(at, context) if offer else None
                if terms is not None and terms.rates:
                    return terms
        return None

    def _derived(self, terms: Terms, provider: str, model: str) -> Terms:
        rates = dict(terms.rates)
        for rule in _rules(self._fixups + self._files, "derived", provider, model):
            unit, base = UNIT_OF_PRICE[rule.entry.price].key, rates.get(UNIT_OF_PRICE[rule.entry.of].key)
            if base is not None and unit not in rates:
                rates[unit] = base.times(Fraction(rule.entry.times))
        return replace(terms, rates=rates)

    def _multiplied(
        self, terms: Terms, provider: str, names: Sequence[str], context: Context
    ) -> tuple[Terms, dict[str, str]]:
        """The terms with every multiplier that applies. Ours are for genai-prices' figures; the user's for all."""
        files = (self._fixups if terms.source.startswith("genai-prices") else ()) + self._files
        ours = {id(rule) for file in self._fixups for rule in file.multipliers}
        applied: dict[str, str] = {}
        covered = set(terms.covered)
        rates = dict(terms.rates)
        for rule in _rules(files, "multipliers", provider, *names):
            if not _holds(rule.when, context) or (id(rule) in ours and terms.covered & rule.when.keys()):
                continue  # a correction of ours is for what genai-prices has no price for
            factor = Fraction(rule.entry.factor)
            for key, rate in rates.items():
                if rule.entry.applies_to == "all" or ("family", "tokens") in UNITS[key].dimensions:
                    rates[key] = rate.times(factor)
            label = rule.entry.label or ",".join(f"{key}={value}" for key, value in rule.when.items()) or rule.source
            if label in applied:
                label = f"{label} ({rule.source})"
            applied[label] = str(rule.entry.factor)
            covered.update(rule.when)
        return replace(terms, rates=rates, covered=frozenset(covered)), applied


def _listed(file: Overrides, provider: str, model: str, at: datetime, context: Context) -> Terms | None:
    """What an override file says of a model: free, priced, or nothing."""
    for rule in file.free:
        if rule.provider == provider and rule.match(model) and _holds(rule.when, context):
            return Terms(f"{rule.source}, free", {}, ALWAYS, NEVER, frozenset(rule.when))
    for rule, offer in file.models:
        if rule.provider == provider and rule.match(model):
            terms = offer.terms(at, context)
            if terms is not None and terms.rates:
                return terms
    return None


def _aliases(file: Overrides, provider: str, model: str, notes: list[str]) -> Iterator[str]:
    """The names a model's alias leads to, one after the other."""
    for _ in range(_MOST_ALIASES):
        for rule in file.aliases:
            found = glob(rule.entry.match).fullmatch(model) if rule.provider == provider else None
            target = rule.entry.model.replace("*", found[found.lastindex or 0]) if found else model
            if target != model:
                notes.append(f"{model} is {target} ({rule.source})")
                model = target
                yield model
                break
        else:
            return


def _rules(files: Sequence[Overrides], kind: str, provider: str, *names: str) -> Iterator[Rule]:
    """The rules of that kind about a provider and one of these names."""
    for file in files:
        for rule in getattr(file, kind):
            if rule.provider in (None, provider) and any(rule.match(name) for name in names):
                yield rule


def _holds(when: Mapping[str, str], context: Context) -> bool:
    """Whether a context has all of these; `*` is any text."""
    told = dict(context)
    return all(key in told and glob(wanted).fullmatch(told[key]) for key, wanted in when.items())


def _shipped() -> Overrides:
    with resources.as_file(resources.files("spanledger.pricing") / "fixups.yaml") as path:
        return read_overrides(Path(path))
