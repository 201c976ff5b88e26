"""Unsampled calls beside Langfuse's and Logfire's processors: what they export, and what the ledger has, as JSON.

python tests/once/unsampled.py langfuse|logfire      inside the environment `sdks`, with SPANLEDGER_STATE_DIR set
"""

import json
import os
import sqlite3
import sys
from pathlib import Path

import anthropic
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import spanledger
from spanledger.testing import Loopback

EXPORTED = InMemorySpanExporter()
CALLS = 3


def langfuse():
    from langfuse import Langfuse

    provider = TracerProvider(sampler=ALWAYS_OFF)
    trace.set_tracer_provider(provider)
    Langfuse(
        public_key="unused",
        secret_key="unused",
        base_url="http://127.0.0.1:9",
        tracer_provider=provider,
        span_exporter=EXPORTED,
    )


def logfire():
    from logfire import SamplingOptions, configure

    configure(
        send_to_logfire=False,
        console=False,
        metrics=False,
        sampling=SamplingOptions(head=0.0),
        additional_span_processors=[SimpleSpanProcessor(EXPORTED)],
    )


if __name__ == "__main__":
    {"langfuse": langfuse, "logfire": logfire}[sys.argv[1]]()
    spanledger.configure()
    with Loopback() as loopback, anthropic.Anthropic(base_url=loopback.root, api_key="unused") as client:
        for _ in range(CALLS):
            client.messages.create(
                model="claude-sonnet-4-5", max_tokens=100, messages=[{"role": "user", "content": "What is a ledger?"}]
            )
        truth = [answer["usage"]["output_tokens"] for answer in loopback.truth]
    trace.get_tracer_provider().force_flush()
    spanledger.flush()
    ledger = sqlite3.connect(Path(os.environ["SPANLEDGER_STATE_DIR"]) / "ledger.db")
    rows = [count for (count,) in ledger.execute("SELECT output_tokens FROM usage_records ORDER BY started_at")]
    exported = [span.name for span in EXPORTED.get_finished_spans()]
    sys.stdout.write(json.dumps({"truth": truth, "rows": rows, "exported": exported}) + "\n")
