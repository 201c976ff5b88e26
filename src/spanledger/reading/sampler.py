"""A sampler that lets no model call go unread: what the inner one drops is recorded without being exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.baggage import get_all
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)  # fmt: skip
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from spanledger.guard import failed, log
from spanledger.reading.copied import begins
from spanledger.reading.dialects import MARKS, NAMED


class RecordUsage(Sampler):
    """Asks `inner`; a model call that it drops becomes record-only. Such a span is exported nowhere and its context is
    not sampled, so all that is exported, here and downstream, is what `inner` alone would have let through."""  # noqa: D205, D209

    def __init__(self, inner: Sampler) -> None:
        self.inner: Sampler = inner.inner if isinstance(inner, RecordUsage) else inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """What the inner sampler decides, but for model calls it drops. Nothing of ours raises."""
        try:
            if get_all(parent_context):
                begins.set((trace_id, name, attributes or {}))
        except Exception as error:  # noqa: BLE001  # a door
            failed("the baggage around a span", error)
        result = self.inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if result.decision is not Decision.DROP:
            return result
        try:
            if not _is_model_call(name, attributes):
                return result
        except Exception as error:  # noqa: BLE001  # a door
            failed("the usage on a span", error)
            return result
        return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)

    def get_description(self) -> str:
        """The inner sampler's, in ours."""
        return f"RecordUsage{{{self.inner.get_description()}}}"


def _is_model_call(name: str, attributes: Any) -> bool:
    if attributes and not MARKS.keys().isdisjoint(attributes):
        return True
    return isinstance(name, str) and NAMED.fullmatch(name) is not None


def sampler_named(argument: str | None) -> RecordUsage:
    """`opentelemetry_traces_sampler`: a `RecordUsage` around the sampler that `OTEL_TRACES_SAMPLER_ARG` names.

    `parentbased_traceidratio=0.1`, or just `0.1`; without an argument `parentbased_always_on`. Never raises.
    """
    text = (argument or "parentbased_always_on").strip()
    name, _, rest = (text if not _is_number(text) else f"parentbased_traceidratio={text}").partition("=")
    try:
        inner = _sampler(name.strip().lower(), rest)
    except (ValueError, LookupError) as error:
        log.warning("OTEL_TRACES_SAMPLER_ARG=%s is not usable (%s); everything is sampled.", argument, error)
        inner = DEFAULT_ON
    return RecordUsage(inner)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def _sampler(name: str, argument: str) -> Any:
    if name.startswith("parentbased_"):
        return ParentBased(_sampler(name.removeprefix("parentbased_"), argument))
    if name == "always_on":
        return ALWAYS_ON
    if name == "always_off":
        return ALWAYS_OFF
    if name == "traceidratio":
        return TraceIdRatioBased(float(argument or 1))
    from importlib.metadata import entry_points  # noqa: PLC0415  # somebody else's sampler

    found = entry_points(group="opentelemetry_traces_sampler", name=name)
    if not found:
        raise LookupError(f"there is no sampler {name!r}")
    return next(iter(found)).load()(argument)
