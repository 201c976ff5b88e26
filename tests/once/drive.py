"""Run a stack's calls, one after the other, with spanledger beside it, and say what became of them.

python tests/once/drive.py STACK --ours on|off --sampler always_on|always_off|ratio [--calls A,B] [--late] [--kill]

Runs inside the stack's environment, in a process of its own, with SPANLEDGER_STATE_DIR set. Prints one JSON document:
what the provider answered, the ledger's rows, the exported spans, the sums of the metrics.
"""

import argparse
import importlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

SAMPLERS = {
    "always_on": sampling.ALWAYS_ON,
    "always_off": sampling.ALWAYS_OFF,
    "ratio": sampling.ParentBased(sampling.TraceIdRatioBased(0.1)),
}
TOLD = ("spanledger.", "gen_ai.", "openinference.span.kind", "langfuse.observation.type")
PATIENCE = 10.0
"""Seconds in which every call must have reached the disk."""


def main(asked):
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the stack prints is not for whoever reads us
    stack = stacks()[asked.stack]
    if asked.ours == "off":
        os.environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "*"
    resource = Resource({"service.name": "once"})
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(sampler=SAMPLERS[asked.sampler], resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(tracers)
    meters = MeterProvider([reader], resource=resource)
    metrics.set_meter_provider(meters)

    import spanledger
    from spanledger import guard
    from spanledger.testing import Loopback

    state = Path(os.environ["SPANLEDGER_STATE_DIR"])
    steps = [lambda: recording(spanledger), lambda: stack.instrument(tracers, meters)]
    for step in reversed(steps) if asked.late else steps:
        step()
    calls = []
    with Loopback() as loopback:
        for name in asked.calls.split(",") if asked.calls else stack.calls:
            known, began = len(loopback.truth), time.time_ns()
            stack.calls[name](loopback.root)
            calls.append({"call": name, "began": began, "truth": loopback.truth[known:]})
        found = {"calls": calls}
        if asked.kill:
            found["on_disk"] = on_disk(state, sum(len(each["truth"]) for each in calls))
            json.dump(found, out, default=str)
            out.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        trace.get_tracer_provider().force_flush()
        tracers.force_flush()
        spanledger.flush()
    found |= {
        "rows": rows_of(state / "ledger.db"),
        "spans": [written(span) for span in exporter.get_finished_spans()],
        "metrics": sums(reader),
        "failures": dict(guard.failures),
    }
    json.dump(found, out, default=str)
    out.flush()


def stacks():
    found = {}
    for module in sorted(HERE.glob("stacks_*.py")):
        found.update(importlib.import_module(module.stem).STACKS)
    return found


def recording(spanledger):
    """spanledger at work, its price list loaded: a call that ends before has no cost on its span."""
    spanledger.configure()
    spanledger.assembly._runtime.engine.prices.wait()


def on_disk(state, wanted):
    """How many records would outlive this process, once they are as many as wanted or that has taken too long."""
    until = time.monotonic() + PATIENCE
    kept = 0
    while kept < wanted and time.monotonic() < until:
        time.sleep(0.1)
        kept = len({record for file in state.glob("**/*.db") for record in ids_in(file)})
    time.sleep(0.3)  # whoever else tells of the last one
    return kept


def ids_in(file):
    table = "usage_records" if file.name == "ledger.db" else "records"
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            return [record for (record,) in connection.execute(f"SELECT record_id FROM {table}")]
    except sqlite3.Error:
        return []  # being made


def rows_of(ledger):
    if not ledger.exists():
        return []
    with closing(sqlite3.connect(ledger)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM usage_records ORDER BY started_at, record_id")]


def written(span):
    return {
        "scope": span.instrumentation_scope.name,
        "name": span.name,
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
        "parent_span_id": None if span.parent is None else f"{span.parent.span_id:016x}",
        "start_time": span.start_time,
        "attributes": {name: value for name, value in (span.attributes or {}).items() if name.startswith(TOLD)},
    }


def sums(reader):
    """Each counter's total; the token metric's by scope and type, the spans' by what became of them."""
    totals, tokens, outcomes = Counter(), Counter(), Counter()
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    attributes = dict(point.attributes or {})
                    if metric.name == "gen_ai.client.token.usage":
                        tokens[scope.scope.name, attributes.get("gen_ai.token.type")] += point.sum
                    elif metric.name == "spanledger.spans":
                        outcomes[attributes["spanledger.outcome"]] += point.value
                    elif metric.name in ("spanledger.usage", "spanledger.cost", "spanledger.calls"):
                        totals[metric.name] += point.value
    return {**totals, "tokens": [[*key, total] for key, total in tokens.items()], "spans": outcomes}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("stack")
    parser.add_argument("--ours", choices=["on", "off"], default="on")
    parser.add_argument("--sampler", choices=SAMPLERS, default="always_on")
    parser.add_argument("--calls", help="only these, with commas between")
    parser.add_argument("--late", action="store_true", help="spanledger after the stack")
    parser.add_argument("--kill", action="store_true", help="end without a word once the records are on the disk")
    main(parser.parse_args())
