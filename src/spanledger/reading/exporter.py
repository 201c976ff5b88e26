"""A plain span exporter that puts what foreign GenAI spans say into the ledger.

Best effort, because what stands before it is: a batch processor hands over sampled spans only, and forgets the oldest
when its queue is full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from spanledger.guard import failed
from spanledger.reading.reader import read


class RecordingSpanExporter(SpanExporter):
    """`record(build)` keeps a record; `told(mark)` says whether this process has recorded a call with that response id,
    or inside that span, itself."""  # noqa: D205, D209

    def __init__(
        self, record: Callable[..., None], told: Callable[[str], bool], flush: Callable[[float], bool]
    ) -> None:
        self._record = record
        self._told = told
        self._flush = flush

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Record the model calls among the spans. Never raises."""
        for span in spans:
            try:
                found = read(span)
                if found is not None and not any(
                    self._told(mark) for mark in (found.response_id, found.span_id) if mark
                ):
                    self._record(_ready(found))
            except Exception as error:  # noqa: BLE001  # a door
                failed("the usage on a span", error)
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Deliver what was exported."""
        return self._flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Deliver what was exported; the recorder lives on."""
        self._flush(2.0)


def _ready(record: Any) -> Callable[[], Any]:
    return lambda: record
