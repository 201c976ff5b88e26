"""The price book: from a provider, a model, a moment and a context to a compiled program, and to a `Cost`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from spanledger.model import UNPRICED, Cost, Usage
from spanledger.pricing.layers import Layers, Resolved
from spanledger.pricing.offer import Context
from spanledger.pricing.overrides import Overrides
from spanledger.pricing.places import provider_id, region_of
from spanledger.pricing.program import Program, compile_program, values_of
from spanledger.pricing.units import UNITS

_CACHED_CALLS: Final = 2048
_CACHED_PROGRAMS: Final = 64

_REPORTED: Final = frozenset({"service_tier", "processing", "speed", "inference_geo", "region", "search_type"})
"""Keys of a context that responses tell of. Others that a price file asks for are looked up in the call's metadata."""


class PriceBook:
    """Prices calls. Thread-safe: its caches are plain dictionaries whose entries are replaced whole.

    `fixups` leaves our own corrections in; `overrides` are the user's files, in rising order of weight. Importing this
    loads genai-prices' data (some 0.5 s, 30 MB), so that is done in the background.
    """

    def __init__(self, *, fixups: bool = True, overrides: Sequence[Overrides] = ()) -> None:
        self._layers = Layers(overrides, fixups=fixups)
        self._cache: dict[tuple[str, tuple[str | None, ...], Context], Resolved] = {}
        self._told: set[tuple[str, str]] = set()
        self._asked = tuple(sorted(self._layers.asked - _REPORTED))
        self.basis = self._layers.basis
        self.providers = self._layers.providers

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
            if resolved.known:
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
            found = self._layers.look_up(provider_id(provider), models, at, context)
            if len(self._cache) >= _CACHED_CALLS:
                _halve(self._cache)
            self._cache[key] = found
        return found

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
        unheard = any(name not in UNITS for name in others)  # no price list has such a unit
        if pusd is None or (unheard and not breakdown):
            return Cost(price_basis=self.basis)
        status = "free" if program.free else "priced"
        if unknown or unheard or clamped or not resolved.exact or usage.usage_status in ("partial", "invalid"):
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


def _halve(cache: dict[Any, Any]) -> None:
    """Keep a cache bounded: model names come from outside. The older half goes."""
    for old in list(islice(cache, len(cache) // 2)):
        cache.pop(old, None)
