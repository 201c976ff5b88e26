"""Run a stack's calls against the loopback provider and write down every span it makes: the golden spans.

python tests/once/capture.py STACK...      inside the stack's environment; writes tests/once/golden/STACK.json
"""

import importlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


class Notes(SpanProcessor):
    """What each span said when it started and when it ended."""

    def __init__(self):
        self.started = {}
        self.spans = []

    def on_start(self, span, parent_context=None):
        self.started[span.context.span_id] = dict(span.attributes or {})

    def on_end(self, span):
        scope, parent = span.instrumentation_scope, span.parent
        self.spans.append(
            {
                "scope": scope.name,
                "scope_version": scope.version,
                "name": span.name,
                "kind": span.kind.name,
                "status": span.status.status_code.name,
                "trace_id": f"{span.context.trace_id:032x}",
                "span_id": f"{span.context.span_id:016x}",
                "parent_span_id": None if parent is None else f"{parent.span_id:016x}",
                "start_time": span.start_time,
                "end_time": span.end_time,
                "start_attributes": self.started.get(span.context.span_id),
                "attributes": dict(span.attributes or {}),
            }
        )


def token_points(reader):
    """`gen_ai.client.token.usage`, as the stack itself counts it: scope, attributes, sum."""
    data = reader.get_metrics_data()
    return [
        {"scope": scope.scope.name, "attributes": dict(point.attributes), "sum": point.sum}
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "gen_ai.client.token.usage"
        for point in metric.data.data_points
    ]


def capture(name, stack):
    from spanledger.testing import Loopback

    notes, reader = Notes(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(notes)
    trace.set_tracer_provider(provider)
    meters = MeterProvider([reader])
    metrics.set_meter_provider(meters)
    stack.instrument(provider, meters)
    calls = {}
    with Loopback() as loopback:
        for call, make in stack.calls.items():
            known = len(loopback.truth)
            make(loopback.root)
            provider.force_flush()
            calls[call] = {"truth": loopback.truth[known:], "spans": notes.spans.copy()}
            notes.spans.clear()
    return {"stack": name, "packages": {each: installed(each) for each in stack.packages}, "calls": calls,
            "tokens_metric": token_points(reader)}  # fmt: skip


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    name = sys.argv[1]
    stacks = {}
    for module in sorted(HERE.glob("stacks_*.py")):
        stacks.update(importlib.import_module(module.stem).STACKS)
    found = capture(name, stacks[name])
    text = json.dumps(found, indent=1, sort_keys=True, default=str)
    (HERE / "golden").mkdir(exist_ok=True)
    (HERE / "golden" / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    for call, seen in found["calls"].items():
        spans = [(span["scope"], span["name"]) for span in seen["spans"]]
        sys.stdout.write(f"{call} truth {len(seen['truth'])} spans {spans}\n")
