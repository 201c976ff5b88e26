"""Spans and `gen_ai.client.*` metrics of the calls we watch. The only holder of a tracer and these instruments."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import metrics, trace

from spanledger import conventions
from spanledger.version import __version__

SCOPE: Final = "spanledger"


class Telemetry:
    """A tracer and the instruments. `None` takes the global provider, also one that is set later."""

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None, *, spans: bool = True) -> None:
        source = trace.NoOpTracerProvider() if not spans else tracer_provider
        self.tracer = trace.get_tracer(SCOPE, __version__, source, conventions.SCHEMA_URL)
        self.silent: trace.Tracer = trace.NoOpTracer()
        """For calls of which the SDK itself makes a span."""
        meter = metrics.get_meter(SCOPE, __version__, meter_provider, conventions.SCHEMA_URL)
        self.tokens = self._histogram(meter, conventions.METRIC_TOKENS, conventions.TOKEN_BOUNDARIES)
        self.duration = self._histogram(meter, conventions.METRIC_DURATION, conventions.DURATION_BOUNDARIES)
        self.first_chunk = self._histogram(meter, conventions.METRIC_FIRST_CHUNK, conventions.DURATION_BOUNDARIES)
        self.per_chunk = self._histogram(meter, conventions.METRIC_PER_CHUNK, conventions.DURATION_BOUNDARIES)
        _, unit, description = conventions.METRICS[conventions.METRIC_MISSING]
        self.missing = meter.create_counter(conventions.METRIC_MISSING, unit=unit, description=description)

    @staticmethod
    def _histogram(meter: metrics.Meter, name: str, boundaries: tuple[float, ...]) -> metrics.Histogram:
        _, unit, description = conventions.METRICS[name]
        return meter.create_histogram(
            name, unit=unit, description=description, explicit_bucket_boundaries_advisory=list(boundaries)
        )
