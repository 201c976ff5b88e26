"""The price book: from a provider, a model, a moment and a context to a compiled program, and from there to a `Cost`.

Its layers, first match wins: the user's override files, genai-prices' data, our own corrections, tables the user names.
Whatever the layer, the user's multipliers come last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Final

from spanledger.model import UNPRICED, Cost, Usage
from spanledger.pricing import snapshot
from spanledger.pricing.offer import ALWAYS, NEVER, Context, Terms
from spanledger.pricing.overrides import Overrides, Rule, glob, read_overrides
from spanledger.pricing.places import provider_id, region_of
from spanledger.pricing.program import Program, compile_program, values_of
from spanledger.pricing.units import UNIT_OF_PRICE, UNITS

_CACHED_CALLS: Final = 2048
_CACHED_PROGRAMS: Final = 64
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
_REPORTED: Final = frozenset({"service_tier", "processing", "speed", "inference_geo", "region", "search_type"})
"""Keys of a context that responses tell of. Others that a price file asks for are looked up in the call's metadata."""


@dataclass(slots=True)
class Resolved:
    """The prices of one model in one context, valid from one moment to another, and why it is these."""

    terms: Terms
    multipliers: Mapping[str, str] | None = None
    free: bool = False
    exact: bool = True
    """Every part of the context that changes a bill is taken into account."""
    notes: tuple[str, ...] = ()
    programs: dict[tuple[tuple[str, ...], bool], Program] = field(default_factory=dict)
    """(other units in the usage, whether only priced units are told apart) → the program for it."""

    @property
    def ends(self) -> bool:
        """Whether it is known that other prices follow."""
        return self.terms.until != NEVER


_UNKNOWN: Final = Resolved(Terms("no list", {}))


class PriceBook:
    """Prices calls. Thread-safe: its caches are plain dictionaries whose entries are replaced whole.

    `fixups` leaves our own corrections in; `overrides` are the user's files, in rising order of weight. Importing this
    loads genai-prices' data (some 0.5 s, 30 MB), so that is done in the background.
    """

    def __init__(self, *, fixups: bool = True, overrides: Sequence[Overrides] = ()) -> None:
        self._files = tuple(each for each in reversed(overrides) if each.table is None)
        self._tables = tuple(each for each in reversed(overrides) if each.table is not None)
        self._fixups = (_shipped(),) if fixups else ()
        self._cache: dict[tuple[str, tuple[str | None, ...], Context], Resolved] = {}
        self._told: set[tuple[str, str]] = set()
        asked = {key for file in self._files for rule in (*file.multipliers, *file.free) for key in rule.when}
        self._asked = tuple(sorted(asked - _REPORTED))
        self.basis = " ".join(
            [
                snapshot.basis(),
                *(f"fixups:{each.digest}" for each in self._fixups),
                *(f"{each.name}:{each.digest}" for each in overrides),
            ]
        )

    def price(
        self,
        usage: Usage,
        *,
        provider: str,
        models: tuple[str | None, ...],
        at: datetime,
        context: Context = (),
        server: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        stated: int | None = None,
    ) -> Cost:
        """The cost of a call at that moment, exact to the pico-USD.

        `provider` in OpenTelemetry's spelling; of `models` (the one that answered, the one that was asked for) the
        first with a price counts; `context` is what the provider answered about tier, speed and the like; `stated` the
        cost it stated itself in pico-USD, which is taken as it is, ours beside it. No price at all: `unpriced`. A count
        without a price, a part of the usage unknown, or a context no list has a price for: `partial`.
        """
        local = UNPRICED
        if usage.usage_status != "missing":
            resolved = self.resolve(provider, models, at, context, server, metadata)
            if resolved is not _UNKNOWN:
                local = self._local(usage, resolved)
        return local if stated is None else local.stated(stated)

    def resolve(
        self,
        provider: str,
        models: tuple[str | None, ...],
        at: datetime,
        context: Context = (),
        server: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Resolved:
        """The prices of a model at that moment in that context."""
        region = region_of(server) if server else None
        if region:
            context = (*context, ("region", region))
        if self._asked:
            context = (*context, *self._told_by(models, server, metadata or {}))
        key = (provider, models, context)
        found = self._cache.get(key)
        if found is None or not found.terms.since <= at < found.terms.until:
            found = self._look_up(provider_id(provider), models, at, context) or _UNKNOWN
            if len(self._cache) >= _CACHED_CALLS:
                _halve(self._cache)
            self._cache[key] = found
        return found

    @property
    def providers(self) -> tuple[str, ...]:
        """Every provider some list has prices of, in genai-prices' spelling."""
        rules = [rule for file in self._files for rule in (*file.free, *(rule for rule, _ in file.models))]
        named = [rule.provider for rule in rules if rule.provider]
        named += [provider for file in self._tables for provider, _ in file.table or ()]
        return tuple(dict.fromkeys((*snapshot.provider_ids(), *sorted(named))))

    def first_time(self, provider: str, model: str | None) -> bool:
        """True once per unpriced model, so that it is logged once. Bounded."""
        key = (provider, model or "")
        if key in self._told or len(self._told) >= _CACHED_CALLS:
            return False
        self._told.add(key)
        return True

    def _local(self, usage: Usage, resolved: Resolved) -> Cost:
        others = tuple(usage.other_usage) if usage.other_usage else ()
        if resolved.free:
            return Cost(0, {}, "USD", "local", "free", self.basis)
        program = self._program(resolved, others)
        values = values_of(usage, others)
        pusd, breakdown, unknown, clamped = program.run(values)
        if clamped:
            pusd, breakdown, unknown, clamped = self._program(resolved, others, bare=True).run(values)
        if pusd is None:
            return Cost(price_basis=self.basis)
        status = "free" if program.free else "priced"
        if unknown or clamped or not resolved.exact or usage.usage_status in ("partial", "invalid"):
            status = "partial"
        for one, other, both in program.overlaps:
            if values[one] and values[other] and (both < 0 or values[both] is None):
                status = "partial"
        return Cost(pusd, breakdown, "USD", "local", status, self.basis, resolved.multipliers)

    def _program(self, resolved: Resolved, others: tuple[str, ...], *, bare: bool = False) -> Program:
        program = resolved.programs.get((others, bare))
        if program is None:
            program = compile_program(UNITS, resolved.terms.rates, others, bare=bare)
            if len(resolved.programs) >= _CACHED_PROGRAMS:
                _halve(resolved.programs)
            resolved.programs[others, bare] = program
        return program

    def _told_by(
        self, models: tuple[str | None, ...], server: str | None, metadata: Mapping[str, Any]
    ) -> Iterator[tuple[str, str]]:
        """What price files ask for and no response tells: the server, the deployment, and the call's metadata."""
        for key in self._asked:
            value = {"server_address": server, "request_model": models[-1]}.get(key) or metadata.get(key)
            if value is not None:
                yield key, str(value)

    def _look_up(
        self, provider: str, models: tuple[str | None, ...], at: datetime, context: Context
    ) -> Resolved | None:
        means = tuple(_MEANS.get(pair, pair) for pair in context)
        for model in models:
            found = self._of_model(provider, model, at, means) if model else None
            if found is not None:
                terms, notes = found
                free = not terms.rates
                if _PROVISIONED in means and not free and "service_tier" not in terms.covered:
                    return None
                names = tuple(name for name in (*models, model) if name)
                terms, multipliers = self._multiplied(terms, provider, names, means)
                exact = all(pair not in _DEPENDS or pair[0] in terms.covered for pair in means)
                return Resolved(terms, multipliers or None, free, exact, notes)
        return None

    def _of_model(
        self, provider: str, model: str, at: datetime, context: Context
    ) -> tuple[Terms, tuple[str, ...]] | None:
        """The terms of a model by whichever layer has them, and what led there."""
        notes: list[str] = []
        names = [model]
        for file in (*self._files, *self._fixups):
            for name in _aliases(file, provider, names[-1], notes):
                names.append(name)  # noqa: PERF402  # the next alias starts from the last one
        for file in self._files:
            for name in names:
                terms = _listed(file, provider, name, at, context)
                if terms is not None:
                    return terms, tuple(notes)
        for file in self._fixups:  # genai-prices has none of these, or has them wrong
            terms = _listed(file, provider, names[-1], at, context)
            if terms is not None:
                return terms, tuple(notes)
        terms = snapshot.terms_of(provider, names[-1], at, context)
        if terms is not None:
            return self._derived(terms, provider, names[-1]), tuple(notes)
        for file in self._tables:
            for name in names:
                offer = (file.table or {}).get((provider, name))
                terms = offer.terms(at, context) if offer else None
                if terms is not None and terms.rates:
                    return terms, tuple(notes)
        return None

    def _derived(self, terms: Terms, provider: str, model: str) -> Terms:
        rates = dict(terms.rates)
        for rule in _rules(self._fixups + self._files, "derived", provider, model):
            unit, base = UNIT_OF_PRICE[rule.entry.price].key, rates.get(UNIT_OF_PRICE[rule.entry.of].key)
            if base is not None and unit not in rates:
                rates[unit] = base.times(Fraction(rule.entry.times))
        return replace(terms, rates=rates)

    def _multiplied(
        self, terms: Terms, provider: str, names: tuple[str, ...], context: Context
    ) -> tuple[Terms, dict[str, str]]:
        """The terms with every multiplier that applies. Ours are for genai-prices' figures; the user's for all."""
        files = (self._fixups if terms.source.startswith("genai-prices") else ()) + self._files
        applied: dict[str, str] = {}
        covered = set(terms.covered)
        rates = dict(terms.rates)
        for rule in _rules(files, "multipliers", provider, *names):
            if not _holds(rule.when, context):
                continue
            factor = Fraction(rule.entry.factor)
            for key, rate in rates.items():
                if rule.entry.applies_to == "all" or ("family", "tokens") in UNITS[key].dimensions:
                    rates[key] = rate.times(factor)
            label = rule.entry.label or ",".join(f"{key}={value}" for key, value in rule.when.items()) or rule.source
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


def _halve(cache: dict[Any, Any]) -> None:
    """Keep a cache bounded: model names come from outside. The older half goes."""
    for old in list(islice(cache, len(cache) // 2)):
        cache.pop(old, None)


def _shipped() -> Overrides:
    with resources.as_file(resources.files("spanledger.pricing") / "fixups.yaml") as path:
        return read_overrides(Path(path))
