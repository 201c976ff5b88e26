"""genai-prices' data as a price list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from functools import cache
from hashlib import sha256
from importlib import metadata, resources
from typing import Any, Final

from spanledger.pricing.offer import ALWAYS, NEVER, Context, Terms
from spanledger.pricing.units import DATA, rates_of

_DAY: Final = timedelta(days=1)
_PROVIDERS: Final = {provider.id: provider for provider in DATA}


def provider_ids() -> tuple[str, ...]:
    """The providers it lists, in its own spelling."""
    return tuple(_PROVIDERS)


def terms_of(provider: str, model: str, at: datetime, context: Context) -> Terms | None:
    """The terms of a model at that moment, `None` where it lists none. An empty set of prices is none."""
    found = _PROVIDERS.get(provider)
    info = found.find_model(model, all_providers=DATA) if found is not None else None
    if found is None or info is None:
        return None
    # A variant belongs to the provider that lists it, not to one that falls back to another's models.
    own = any(info is each for each in found.models)
    rates = rates_of(info.get_prices(at, dict(context) if own else None).__dict__)
    if not rates:
        return None
    since, until = _validity(info, at)
    return Terms(
        source=f"genai-prices {info.id}",
        rates=rates,
        since=since,
        until=until,
        covered=_covered(info, at, dict(context)) if own else frozenset(),
    )


def _covered(info: Any, at: datetime, context: Mapping[str, str]) -> frozenset[str]:
    """Keys of the context that some variant in force is about."""
    return frozenset(
        key
        for variant in info.price_variants or ()
        if variant.constraint is None or variant.constraint.active(at)
        if variant.when.items() <= context.items()
        for key in variant.when
    )


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
                edges.update(_days_around(edge))
    return (
        max((edge for edge in edges if edge <= at), default=ALWAYS),
        min((edge for edge in edges if edge > at), default=NEVER),
    )


def _days_around(edge: datetime) -> Iterator[datetime]:
    """The same time of the day before, of that day and of the next, as far as there are such days."""
    for days in (-_DAY, timedelta(), _DAY):
        with suppress(OverflowError):
            yield edge + days


@cache
def basis() -> str:
    """Version and digest of the data."""
    data = resources.files("genai_prices").joinpath("data.py").read_bytes()
    return f"genai-prices/{metadata.version('genai-prices')} sha256:{sha256(data).hexdigest()[:12]}"
