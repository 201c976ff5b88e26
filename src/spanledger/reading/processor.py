"""The span processor: shows every span to the reading room. It changes nothing for other processors."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from spanledger.guard import failed
from spanledger.reading.spans import Spans


class ReadingSpanProcessor(SpanProcessor):
    """`spans()` is what is running in this process, `None` where spanledger is switched off."""

    def __init__(self, spans: Callable[[], Spans | None], flush: Callable[[float], bool]) -> None:
        self._spans = spans
        self._flush = flush

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note whose span it is, and what it is inside of. Never raises."""
        try:
            spans = self._spans()
            if spans is not None:
                spans.started(span, parent_context)
        except Exception as error:  # noqa: BLE001  # a door
            failed("the start of a span", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Hand a model call over to be recorded. Never raises."""
        try:
            spans = self._spans()
            if spans is not None:
                spans.ended(span)
        except Exception as error:  # noqa: BLE001  # a door
            failed("the usage on a span", error)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Deliver what was read. Never raises."""
        return self._flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Deliver what was read; the recorder lives on. Never raises."""
        self._flush(2.0)
