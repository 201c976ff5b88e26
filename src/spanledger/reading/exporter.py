"""A plain span exporter that puts what others' model spans say into the ledger.

Best effort, because what stands before it is: a batch processor hands over sampled spans only, and forgets the oldest
when its queue is full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from spanledger.guard import failed
from spanledger.reading.spans import Spans


class ReadingSpanExporter(SpanExporter):
    """`spans()` is what is running in this process, `None` where spanledger is switched off."""

    def __init__(self, spans: Callable[[], Spans | None], flush: Callable[[float], bool]) -> None:
        self._spans = spans
        self._flush = flush

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Record the model calls among the spans. Never raises."""
        for span in spans:
            try:
                reading = self._spans()
                if reading is not None:
                    reading.exported(span)
            except Exception as error:  # noqa: BLE001  # a door
                failed("the usage on a span", error)
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Deliver what was exported."""
        return self._flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Deliver what was exported; the recorder lives on."""
        self._flush(2.0)
