"""The price book: from a provider, a model and a moment to a compiled program, and from there to a `Cost`.

The data is genai-prices' own module, read into a snapshot of ours: what other libraries do to its global snapshot
never reaches us, and nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from importlib import metadata, resources
from itertools import islice
from typing import Any, Final

from spanledger.model import UNPRICED, Cost, Usage
from spanledger.pricing.fixups import FIXUPS
from spanledger.pricing.program import Program, Rate, Unit, compile_program, counts_of, rate_of

PROVIDER_IDS: Final = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "aws.bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
}
"""OpenTelemetry's provider name → genai-prices' provider id, where the two differ."""

_CACHED_MODELS = 2048
_CACHED_PROGRAMS = 64
_NEVER = datetime.max.replace(tzinfo=UTC)
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_DAY = timedelta(days=1)


@dataclass(slots=True)
class _Prices:
    """Prices of one model in one context, valid from one moment to another."""

    rates: Mapping[str, Rate]
    since: datetime
    until: datetime
    programs: dict[tuple[str, ...], Program] = field(default_factory=dict)


_UNKNOWN = _Prices(rates={}, since=_ALWAYS, until=_NEVER)


class PriceBook:
    """Prices calls. Thread-safe: its caches are plain dictionaries whose entries are replaced whole.

    `fixups` leaves our own corrections in. Constructing it loads genai-prices' data (some 0.5 s, 30 MB), so that is
    done in the background.
    """

    def __init__(self, *, fixups: bool = True) -> None:
        from genai_prices.data import providers  # noqa: PLC0415  # the load is the point of the constructor
        from genai_prices.data_units import unit_data  # noqa: PLC0415

        self.units: Mapping[str, Unit] = {
            key: Unit(key, raw["per"], frozenset(raw.get("dimensions", {}).items())) for key, raw in unit_data.items()
        }
        self._unit_of_price = {raw.get("price_key", key): self.units[key] for key, raw in unit_data.items()}
        self._providers = {provider.id: provider for provider in providers}
        self._all = providers
        self._fixups = FIXUPS if fixups else ()
        self._cache: dict[tuple[str, str, str | None], _Prices] = {}
        self._told: set[tuple[str, str]] = set()
        self.basis = _basis(fixups=fixups)

    def price(
        self, usage: Usage, *, provider: str, models: tuple[str | None, ...], at: datetime, tier: str | None = None
    ) -> Cost:
        """The cost of a call at that moment, exact to the pico-USD.

        `provider` in OpenTelemetry's spelling; of `models` (the one that answered, the one that was asked for) the
        first with a price counts; `tier` is the service tier the provider answered with. No price at all: `unpriced`.
        Some count without a price, or only a part of the usage known: `partial`, a lower bound.
        """
        if usage.usage_status == "missing":
            return UNPRICED
        for model in models:
            prices = self._resolve(provider, model, at, tier) if model else _UNKNOWN
            if prices is not _UNKNOWN:
                break
        else:
            return UNPRICED
        counts = counts_of(usage)
        cost, clamped = self._program(prices, counts).run(counts, self.basis)
        if cost.cost_status in ("priced", "free") and (clamped or usage.usage_status in ("partial", "invalid")):
            return replace(cost, cost_status="partial")
        return cost

    def first_time(self, provider: str, model: str | None) -> bool:
        """True once per unpriced model, so that it is logged once. Bounded."""
        key = (provider, model or "")
        if key in self._told or len(self._told) >= _CACHED_MODELS:
            return False
        self._told.add(key)
        return True

    def _program(self, prices: _Prices, counts: Mapping[str, int]) -> Program:
        reported = tuple(counts)
        program = prices.programs.get(reported)
        if program is None:
            program = compile_program(self.units, prices.rates, reported)
            _put(prices.programs, reported, program, _CACHED_PROGRAMS)
        return program

    def _resolve(self, provider: str, model: str, at: datetime, tier: str | None) -> _Prices:
        key = (provider, model, tier)
        prices = self._cache.get(key)
        if prices is None or not prices.since <= at < prices.until:
            prices = self._look_up(provider, model, at, tier) or _UNKNOWN
            _put(self._cache, key, prices, _CACHED_MODELS)
        return prices

    def _look_up(self, provider: str, model: str, at: datetime, tier: str | None) -> _Prices | None:
        found = self._providers.get(PROVIDER_IDS.get(provider, provider))
        if found is None:
            return None
        for fixed_provider, prefix, listed in self._fixups:
            if found.id == fixed_provider and model.startswith(prefix):
                return _Prices(
                    rates=self._rates({key: Decimal(text) for key, text in listed.items()}), since=_ALWAYS, until=_NEVER
                )
        info = found.find_model(model, all_providers=self._all)
        if info is None:
            return None
        # A variant belongs to the provider that lists it, not to one that falls back to another's models.
        context = {"service_tier": tier} if tier and any(info is own for own in found.models) else None
        rates = self._rates(info.get_prices(at, context).__dict__)
        since, until = _validity(info, at)
        return _Prices(rates=rates, since=since, until=until) if rates else None

    def _rates(self, listed: Mapping[str, Any]) -> dict[str, Rate]:
        return {
            unit.key: rate_of(price, unit.per)
            for key, price in listed.items()
            if price is not None and (unit := self._unit_of_price.get(key)) is not None
        }


def _put(cache: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Keep the cache bounded: model names come from outside. The oldest quarter goes when it is full."""
    if len(cache) >= most:
        for old in list(islice(cache, most // 4)):
            cache.pop(old, None)
    cache[key] = value


def _validity(info: Any, at: datetime) -> tuple[datetime, datetime]:
    """From when to when the prices in force at that moment stay in force."""
    edges: set[datetime] = set()
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    conditions = [each.constraint for each in (info.prices if isinstance(info.prices, list) else ())]
    conditions += [each.constraint for each in info.price_variants or ()]
    for condition in conditions:
        start = getattr(condition, "start_date", None)
        if start is not None:
            edges.add(datetime.combine(start, time(), UTC))
        for name in ("start_time", "end_time"):
            clock = getattr(condition, name, None)
            if clock is not None:
                edge = datetime.combine(midnight.date(), clock, clock.tzinfo or UTC).astimezone(UTC)
                edges.update((edge - _DAY, edge, edge + _DAY))
    return (
        max((edge for edge in edges if edge <= at), default=_ALWAYS),
        min((edge for edge in edges if edge > at), default=_NEVER),
    )


def _basis(*, fixups: bool) -> str:
    """What priced a row: package version and digest of its data, and of our corrections where they are on."""
    data = resources.files("genai_prices").joinpath("data.py").read_bytes()
    basis = f"genai-prices/{metadata.version('genai-prices')} sha256:{sha256(data).hexdigest()[:12]}"
    if fixups:
        basis += f" fixups:{sha256(repr(FIXUPS).encode()).hexdigest()[:8]}"
    return basis
