"""The `spanledger.*` metrics. Recorded by our own threads, from settled records: never on the caller's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry import metrics

from spanledger import conventions
from spanledger.context.values import trimmed
from spanledger.model import Usage, UsageRecord

OTHER: Final = "__other__"
_SCOPE: Final = "spanledger"
_MOST_SETS: Final = 1000
"""Values of several keys that come together; later ones become `__other__`."""
_trimmed: Final[Counter[str]] = Counter()
"""Those that are counted. They are of the process, whatever its settings were and are."""


class Meters:
    """Counters for usage, cost, calls and for what became of the records.

    `keys` are the attribution keys that may become metric attributes; each has at most `limit` values.
    """

    def __init__(
        self, meter_provider: Any, *, keys: tuple[str, ...], limit: int, pending: Callable[[], int], version: str
    ) -> None:
        meter = metrics.get_meter(_SCOPE, version, meter_provider)
        self._keys = keys
        self._limit = limit
        self._values: dict[str, set[str]] = {key: set() for key in keys}
        self._sets: set[tuple[str | None, ...]] = set()
        self._pending = pending
        counters = [name for name, (kind, _, _) in conventions.METRICS.items() if kind == "counter"]
        names = [name for name in counters if name != conventions.METRIC_MISSING]  # that one is not about records
        self._counters = {name: self._counter(meter, name) for name in names}
        _, unit, description = conventions.METRICS[conventions.METRIC_PENDING]
        meter.create_observable_gauge(
            conventions.METRIC_PENDING, callbacks=[self._observe], unit=unit, description=description
        )

    @staticmethod
    def _counter(meter: metrics.Meter, name: str) -> metrics.Counter:
        _, unit, description = conventions.METRICS[name]
        return meter.create_counter(name, unit=unit, description=description)

    def _observe(self, _: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        yield metrics.Observation(self._pending())

    def count(self, name: str, amount: float, attributes: Mapping[str, str]) -> None:
        """Move one of our counters."""
        self._counters[name].add(amount, dict(attributes))

    def forget(self) -> None:
        """In a forked child: what was counted before the fork is the parent's, and told by it."""
        for instrument in self._counters.values():
            forget_inherited(instrument)
        _trimmed.update(trimmed - _trimmed)

    def settled(self, record: UsageRecord) -> None:
        """Count a record that can't change any more."""
        self._count_trimmed()
        source = record.attribution.attribution_source or "none"
        self._counters[conventions.METRIC_ATTRIBUTIONS].add(1, {conventions.ATTRIBUTION_SOURCE: source})
        attributes = self._attributes(record)
        self._counters[conventions.METRIC_CALLS].add(1, {**attributes, conventions.CALL_STATUS: record.status})
        for bucket, amount in token_buckets(record.usage).items():
            self._counters[conventions.METRIC_USAGE].add(amount, {**attributes, conventions.BUCKET: bucket})
        if record.usage.usage_status != "reported":
            self._counters[conventions.METRIC_INVALID].add(
                1, {**attributes, conventions.USAGE_STATUS: record.usage.usage_status}
            )
        cost = record.cost
        if cost is not None and cost.cost_pusd is not None:
            self._counters[conventions.METRIC_COST].add(cost.cost_pusd / 1e12, attributes)
            if cost.local_cost_pusd is not None:
                drift = abs(cost.cost_pusd - cost.local_cost_pusd)
                self._counters[conventions.METRIC_DRIFT].add(drift / 1e12, attributes)
        if cost is None or cost.cost_status in ("unpriced", "partial"):
            status = "unpriced" if cost is None else cost.cost_status
            self._counters[conventions.METRIC_UNPRICED].add(1, {**attributes, conventions.COST_STATUS: status})

    def _count_trimmed(self) -> None:
        for reason, total in list(trimmed.items()):
            new, _trimmed[reason] = total - _trimmed[reason], total
            if new > 0:
                self.count(conventions.METRIC_TRIMMED, new, {conventions.ATTRIBUTION_CHANGE: reason})

    def _attributes(self, record: UsageRecord) -> dict[str, str]:
        attributes = {conventions.OPERATION: record.operation, conventions.PROVIDER: record.provider}
        if record.request_model:
            attributes[conventions.REQUEST_MODEL] = record.request_model
        if record.response_model:
            attributes[conventions.RESPONSE_MODEL] = record.response_model
        whose = tuple(
            None if (value := getattr(record.attribution, key)) is None else self._bounded(key, value)
            for key in self._keys
        )
        if whose not in self._sets:
            if len(self._sets) >= _MOST_SETS:
                whose = tuple(None if value is None else OTHER for value in whose)
            else:
                self._sets.add(whose)
        for key, value in zip(self._keys, whose, strict=True):
            if value is not None:
                attributes[conventions.ATTRIBUTION[key]] = value
        return attributes

    def _bounded(self, key: str, value: str) -> str:
        values = self._values[key]
        if value not in values:
            if len(values) >= self._limit:
                return OTHER
            values.add(value)
        return value


def forget_inherited(instrument: Any) -> None:
    """Begin anew with the sums of our instruments in the SDK that this one belongs to.

    The SDK (1.45) keeps them over a fork, and every child would export the parent's again. Nothing public clears them.
    """
    real = getattr(instrument, "_real_instrument", None) or instrument
    storages = getattr(getattr(real, "_measurement_consumer", None), "_reader_storages", {})
    for storage in storages.values():
        held = getattr(storage, "_instrument_view_instrument_matches", {})
        for each in list(held):
            if each.instrumentation_scope.name == _SCOPE and each.name != conventions.METRIC_PENDING:
                del held[each]


def token_buckets(usage: Usage) -> dict[str, int]:
    """The tokens of a call in disjoint buckets, so that their sum is input + output. Only buckets with tokens."""
    cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    modal_in = (usage.input_audio_tokens or 0) + (usage.input_image_tokens or 0)
    modal_out = (usage.output_audio_tokens or 0) + (usage.output_image_tokens or 0)
    long_write = usage.cache_write_long_tokens or 0
    buckets = {
        "input": (usage.input_tokens or 0) - cached - modal_in,
        "cache_read": usage.cache_read_tokens or 0,
        "cache_write": (usage.cache_write_tokens or 0) - long_write,
        "cache_write_long": long_write,
        "input_audio": usage.input_audio_tokens or 0,
        "input_image": usage.input_image_tokens or 0,
        "output": (usage.output_tokens or 0) - (usage.reasoning_tokens or 0) - modal_out,
        "reasoning": usage.reasoning_tokens or 0,
        "output_audio": usage.output_audio_tokens or 0,
        "output_image": usage.output_image_tokens or 0,
    }
    if min(buckets.values()) < 0:  # contradicting counts: only the two totals are certain
        buckets = {"input": usage.input_tokens or 0, "output": usage.output_tokens or 0}
    return {name: amount for name, amount in buckets.items() if amount}
